"""Whether code has spoken to others: what it said has had its effect elsewhere, and cannot be said again."""

from __future__ import annotations

__all__ = ["CONTACTS", "Contacts"]


class Contacts:
    """Counts calls to services.

    Attributes:
        count: of the calls so far.
    """

    def __init__(self) -> None:
        self.count = 0

    def note(self) -> None:
        """There is one more."""
        self.count += 1


CONTACTS = Contacts()
"""Those of this process. An engine that keeps a journal has one of its own."""
