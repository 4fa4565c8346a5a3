"""Modules for code on engines: ``datapub``."""
