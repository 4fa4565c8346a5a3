"""The ``nsactors`` command: ``command`` reads what is typed, ``demo`` is what it shows."""

from nsactors.cli.command import main

__all__ = ["main"]
