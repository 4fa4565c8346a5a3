"""What a client has asked for, set against what engines hold in the end."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

__all__ = ["Book", "Effect", "Fate", "Holding"]


class Fate(enum.Enum):
    """The knowledge of a client about an effect that it asked for."""

    ASKED = "nobody has said what became of it"
    KEPT = "it was acknowledged"
    LOST = "it was said to be lost"
    UNSAFE = "it was said not to survive its engine"


class Effect(NamedTuple):
    """The effect of a request: it adds a number to an engine's ledger, or binds a name to the number there."""

    engine_id: int
    number: int
    is_named: bool = False

    def __str__(self) -> str:
        return f"{'name' if self.is_named else 'note'} {self.number} on engine {self.engine_id}"


class Holding(NamedTuple):
    """An engine's contents from one client: the notes in its ledger, in order, and the numbers of its names."""

    notes: Sequence[int]
    names: Sequence[int]


class Book:
    """One client's effects. Their numbers go up in the order in which it asked for them."""

    def __init__(self) -> None:
        self._fates: dict[Effect, Fate] = {}

    def __len__(self) -> int:
        return len(self._fates)

    def ask(self, effect: Effect) -> None:
        """An effect has been asked for."""
        self._fates[effect] = Fate.ASKED

    def end(self, effect: Effect, fate: Fate) -> None:
        """Set the outcome of an effect."""
        self._fates[effect] = fate

    def fate(self, effect: Effect) -> Fate:
        """Return the knowledge about an effect."""
        return self._fates[effect]

    def close(self) -> None:
        """Begin a new page: engines hold nothing any more of what has been entered so far."""
        self._fates.clear()

    def errors(self, holdings: Mapping[int, Holding]) -> Iterator[str]:
        """Yield the differences between the contents of engines and the books; none if the books balance.

        An effect that was acknowledged exists once. An effect that was reported as lost or as not safe exists at most
        once. No other effects exist, and each engine has run requests in the order in which they were made.
        """
        found = Counter(_effects(holdings))
        yield from (f"{effect}: was not asked for, and is there" for effect in found.keys() - self._fates.keys())
        yield from (f"{effect}: is there {count} times" for effect, count in found.items() if count > 1)
        for effect, fate in self._fates.items():
            if fate is Fate.ASKED or (fate is Fate.KEPT and effect not in found):
                yield f"{effect}: {fate.value}, and is{'' if effect in found else ' not'} there"
        for engine_id, (notes, _) in holdings.items():
            for earlier, later in pairwise(notes):
                if later < earlier:
                    yield f"note {later} on engine {engine_id}: came after {earlier}"


def _effects(holdings: Mapping[int, Holding]) -> Iterable[Effect]:
    for engine_id, (notes, names) in holdings.items():
        yield from (Effect(engine_id, number) for number in notes)
        yield from (Effect(engine_id, number, is_named=True) for number in names)
