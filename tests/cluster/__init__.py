"""Tests with several processes or hosts; a package, so that fixtures can end with its last test."""
