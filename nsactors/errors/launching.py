"""The error of starting a cluster on other machines."""

from __future__ import annotations

from nsactors.errors.tree import NsactorsError
from nsactors.errors.wording import last_lines

__all__ = ["LaunchError"]


class LaunchError(NsactorsError):
    """A batch system, or another machine, does not do what a cluster needs of it.

    Args:
        what: which, and what has happened.
        output: what it wrote about it.
    """

    def __init__(self, what: str, output: str = "") -> None:
        super().__init__("\n".join(filter(None, [what, last_lines(output).rstrip()])))
        self.what = what
        self.output = output
