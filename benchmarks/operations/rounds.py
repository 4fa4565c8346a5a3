"""Interleaved rounds: every system takes its turn at an operation before any system takes a second one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.operations.catalogue import Operation
from benchmarks.operations.stats import turn_order
from benchmarks.operations.turns import Turn

__all__ = ["Cell", "Driver", "Results", "measure_in_rounds"]


class Driver(Protocol):
    """A started system, here or in another process."""

    def measure(self, operation: str, engines: int, runs: int) -> Turn | None:
        """Run an operation ``runs`` times; return None if the system has no such operation."""
        ...


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """The operation, engines and system of a list of turns; ``engines`` is 0 if their number does not matter."""

    operation: str
    engines: int
    system: str


@dataclass(slots=True)
class Results:
    """The measurements: for each cell one turn per round."""

    turns: dict[Cell, list[Turn]] = field(default_factory=dict)

    def add(self, cell: Cell, turn: Turn) -> None:
        """Add a turn."""
        self.turns.setdefault(cell, []).append(turn)


def measure_in_rounds(
    drivers: Mapping[str, Driver],
    operations: Sequence[Operation],
    engine_counts: tuple[int, ...],
    rounds: int,
    results: Results,
    tell: Callable[[int], object] = lambda round_number: None,
) -> None:
    """Let every driver run every operation, round by round, in rotating order; add each turn to ``results``."""
    for number in range(rounds):
        tell(number)
        for operation in (o for o in operations if number < o.rounds(rounds)):
            for engines in operation.engine_counts(engine_counts):
                for name in turn_order(list(drivers), number):
                    turn = drivers[name].measure(operation.name, engines, operation.burst)
                    if turn is not None:
                        results.add(Cell(operation.name, engines, name), turn)
