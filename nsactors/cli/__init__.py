"""The ``nsactors`` command."""

from nsactors.cli.command import main

__all__ = ["main"]
