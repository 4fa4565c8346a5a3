"""The function of a seeded map, as it runs on an engine: each item has random numbers of its own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from nsactors.namespace.interrupts import protected, run_user_code
from nsactors.protocol.map_functions import ITEM, ItemStream, Seeds, takes
from nsactors.protocol.process import imported


class SeededCall:
    """Call ``function`` with random numbers that depend on the item's number alone.

    Each call gets the item's number, and then the item. The random numbers come as the function's parameter ``rng``, if
    it has one (SPEC 7 of Scientific Python). Otherwise the global generators of ``random``, ``numpy.random`` and torch
    are seeded for the call, and restored after it.

    Args:
        function: called with the item.
        seeds: the seeds of the items.
    """

    def __init__(self, function: Any, seeds: Seeds) -> None:
        self.function = function
        self._seeds = seeds
        self._common: _CommonGenerators | None = None
        self._takes_rng: bool | None = None

    def __getstate__(self) -> tuple[Any, Seeds]:
        return self.function, self._seeds

    def __setstate__(self, state: tuple[Any, Seeds]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    @protected  # an interrupt here, not in the function, would leave the generators seeded
    def __call__(self, index: int, *items: Any) -> Any:
        """Call the function for one item."""
        if self._takes_rng is None:
            self._takes_rng = takes(self.function, "rng", len(items), named=True) or False
        stream = ItemStream(self._seeds.of_item(index))
        token = ITEM.set(stream)
        try:
            # This branch takes 11.5 us an item. Seeding the common generators takes 79 us; 38 us of these are NumPy's
            # get_state.
            if self._takes_rng:
                return run_user_code(self.function, *items, rng=stream.rng)
            if self._common is None:
                self._common = _CommonGenerators()
            before = self._common.seed(stream.seed)
            try:
                return run_user_code(self.function, *items)
            finally:
                self._common.restore(before)
        finally:
            ITEM.reset(token)


def arguments_of_item(function: Any, args: Sequence[Any]) -> tuple[Any, ...]:
    """Return the items that the user's function gets, from the arguments of the function that a map calls."""
    return tuple(args[1:] if type(function) is SeededCall else args)


class _Before(NamedTuple):
    """The state of a process's generators before a call."""

    python: Any
    bits: Any
    numpy: dict[str, Any]
    torch: Any


class _CommonGenerators:
    """The generators that all code of a process shares."""

    def __init__(self) -> None:
        import numpy.random

        self._numpy: Any = numpy.random
        # With any other kind of generator, numpy.random.seed() fails within the function. Making one takes 100 us.
        self._bits = self._numpy.MT19937(0)

    def seed(self, seed: Any) -> _Before:
        """Seed the generators; return their former state."""
        shared, torch = self._numpy, imported("torch")
        before = _Before(
            random.getstate(),
            shared.get_bit_generator(),
            shared.get_state(legacy=False),
            None if torch is None else torch.get_rng_state(),
        )
        words = seed.generate_state(4)
        number = int.from_bytes(words.astype("<u4", copy=False).tobytes(), "little")
        # Replacing NumPy's generator takes 0.3 us, setting its state 40.
        shared.set_bit_generator(self._bits)
        shared.seed(words)
        random.seed(number)
        if torch is not None:
            torch.manual_seed(number & (2**63 - 1))
        return before

    def restore(self, before: _Before) -> None:
        """Restore the generators' former state."""
        random.setstate(before.python)
        self._numpy.set_bit_generator(before.bits)
        if before.numpy["has_gauss"] and before.numpy["bit_generator"] == "MT19937":
            self._numpy.set_state(before.numpy)  # normal numbers are made in pairs, and the second one is still unused
        if before.torch is not None:
            imported("torch").set_rng_state(before.torch)
