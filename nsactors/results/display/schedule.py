"""Schedules: the work of engines in time, as parts of a picture.

A *schedule* is made of stretches: work that an engine did without a break. Pictures are made of cells (in a terminal)
or bars (in a drawing); this module places and fills them, and :mod:`~nsactors.results.display.timeline` draws them.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nsactors._frozen import frozen

# Above a second, the steps of an axis are those of clocks; below, they are decimal.
_CLOCK_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


class Stretch(NamedTuple):
    """Work that an engine did without a break.

    Attributes:
        engine_id: the engine.
        start: its beginning, in seconds since the epoch, by the engine's clock.
        stop: its end.
        label: the name of the work, e.g. ``map(f)``.
        items: the number of calls.
        failed: whether it ended with an error.
    """

    engine_id: int
    start: float
    stop: float
    label: str
    items: int = 1
    failed: bool = False

    @property
    def seconds(self) -> float:
        """The duration of the stretch."""
        return max(0.0, self.stop - self.start)


@frozen
class Schedule:
    """Stretches of work, and the period from their submission to the last reply.

    Attributes:
        stretches: in any order.
        begin: the time of the first submission, or of the start of the first stretch if its engine's clock gives an
            earlier time.
        end: the time of the last reply.
        engine_ids: the engines that worked, and others that could have, in order.
        left: the number of items that have not ended.
    """

    stretches: tuple[Stretch, ...]
    begin: float
    end: float
    engine_ids: tuple[int, ...]
    left: int = 0

    @classmethod
    def of(
        cls, stretches: Iterable[Stretch], begin: float, end: float, engine_ids: Iterable[int] = (), left: int = 0
    ) -> Schedule:
        """Return a schedule of these stretches, which covers at least this period and at least these engines."""
        known = tuple(stretches)
        return cls(
            known,
            min([begin, *(stretch.start for stretch in known)]),
            max([end, *(stretch.stop for stretch in known)]),
            tuple(sorted({*engine_ids, *(stretch.engine_id for stretch in known)})),
            left,
        )

    @property
    def items(self) -> int:
        """The number of items that have ended on engines."""
        return sum(stretch.items for stretch in self.stretches)

    @property
    def makespan(self) -> float:
        """Seconds from the beginning to the end."""
        return self.end - self.begin

    @property
    def serial_time(self) -> float:
        """Seconds that engines worked, added up: the time that one engine alone would have taken."""
        return sum(stretch.seconds for stretch in self.stretches)

    @property
    def speed_up(self) -> float:
        """The factor by which one engine alone would have taken longer."""
        return self.serial_time / self.makespan if self.makespan else 0.0

    @property
    def utilisation(self) -> float:
        """The part of the time in which engines worked, from 0 to 1."""
        return self.speed_up / len(self.engine_ids) if self.engine_ids else 0.0

    @property
    def labels(self) -> list[str]:
        """The labels of the work, in the order in which it began."""
        ordered = sorted(self.stretches, key=lambda stretch: stretch.start)
        return list(dict.fromkeys(stretch.label for stretch in ordered))


class Cell(NamedTuple):
    """A short period of an engine, or of several.

    Attributes:
        busy: the part of the period in which they worked, from 0 to 1.
        stretch: the stretch that took most of the period; None if there is none.
        is_odd: whether that stretch is the second, fourth ... of its engine, so that neighbours can be told apart.
    """

    busy: float = 0.0
    stretch: Stretch | None = None
    is_odd: bool = False


class Bar(NamedTuple):
    """Work of an engine as one shape: a stretch, or several that are too short to be told apart.

    Attributes:
        first: the first of these stretches.
        stop: the end of the last stretch.
        stretches: their number.
        items: the number of items in all stretches.
        seconds: their duration, without the gaps.
        labels: the names of the work; several only if the stretches are too short to show them apart.
        failed: whether one of the stretches has failed.
    """

    first: Stretch
    stop: float
    stretches: int
    items: int
    seconds: float
    labels: frozenset[str]
    failed: bool


def rows(engine_ids: Sequence[int], at_most: int) -> list[tuple[int, ...]]:
    """Return the engines of each row of a picture: one for each row if there is room, otherwise as many as needed.

    Example:
        >>> rows([0, 1, 2, 3, 4], 3)
        [(0, 1), (2, 3), (4,)]
    """
    size = max(1, -(-len(engine_ids) // at_most))
    return [tuple(engine_ids[start : start + size]) for start in range(0, len(engine_ids), size)]


def cells(schedule: Schedule, lines: Sequence[Sequence[int]], columns: int) -> list[list[Cell]]:
    """Return the cells of a picture with this many columns, and with a line for each group of engines."""
    step = schedule.makespan / columns
    if step <= 0:
        return [[Cell()] * columns for _ in lines]
    by_engine = _by_engine(schedule.stretches)
    return [_line([by_engine[i] for i in engine_ids], schedule.begin, step, columns) for engine_ids in lines]


def _line(engines: Sequence[Sequence[Stretch]], begin: float, step: float, columns: int) -> list[Cell]:
    busy = [0.0] * columns
    most: list[tuple[float, Stretch | None, bool]] = [(0.0, None, False)] * columns
    for stretches in engines:
        for number, stretch in enumerate(stretches):
            start, stop = (stretch.start - begin) / step, (stretch.stop - begin) / step
            for column in range(max(0, int(start)), min(columns, math.ceil(stop))):
                covered = min(stop, column + 1) - max(start, column)
                busy[column] += covered
                if covered > most[column][0]:
                    most[column] = (covered, stretch, number % 2 == 1)
    share = 1 / len(engines)
    return [Cell(min(1.0, part * share), *main[1:]) for part, main in zip(busy, most, strict=True)]


def bars(schedule: Schedule, shortest_s: float) -> list[Bar]:
    """Return the bars of a drawing, by engine and time; neighbours shorter than ``shortest_s`` become one bar."""
    found: list[Bar] = []
    for stretches in _by_engine(schedule.stretches).values():
        mine: list[Bar] = []
        for stretch in stretches:
            if mine and _belongs(mine[-1], stretch, shortest_s):
                mine[-1] = _joined(mine[-1], stretch)
            else:
                labels = frozenset([stretch.label])
                mine.append(Bar(stretch, stretch.stop, 1, stretch.items, stretch.seconds, labels, stretch.failed))
        found += mine
    return found


def _belongs(bar: Bar, stretch: Stretch, shortest_s: float) -> bool:
    if stretch.stop - bar.first.start < shortest_s:
        return True
    alike = bar.labels == {stretch.label} and bar.failed == stretch.failed
    is_short = stretch.seconds < shortest_s and (bar.stretches > 1 or bar.seconds < shortest_s)
    return alike and is_short and stretch.start - bar.stop < shortest_s


def _joined(bar: Bar, stretch: Stretch) -> Bar:
    return Bar(
        bar.first,
        max(bar.stop, stretch.stop),
        bar.stretches + 1,
        bar.items + stretch.items,
        bar.seconds + stretch.seconds,
        bar.labels | {stretch.label},
        bar.failed or stretch.failed,
    )


def _by_engine(stretches: Iterable[Stretch]) -> defaultdict[int, list[Stretch]]:
    by_engine: defaultdict[int, list[Stretch]] = defaultdict(list)
    for stretch in sorted(stretches):
        by_engine[stretch.engine_id].append(stretch)
    return by_engine


def ticks(span_s: float, at_most: int) -> list[float]:
    """Return round times from 0 to ``span_s`` at equal distances; at least two of them, unless ``span_s`` is 0.

    Args:
        span_s: seconds.
        at_most: the largest number of times, 3 or more.

    Example:
        >>> ticks(4.2, 6), ticks(150, 4)
        ([0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 60.0, 120.0])
    """
    if span_s <= 0:
        return [0.0]
    step = next(step for step in _steps(span_s / at_most) if span_s / step < at_most)
    return [round(number * step, 12) for number in range(int(span_s / step) + 1)]


def _steps(least: float) -> Iterable[float]:
    """Yield round steps, from about ``least`` seconds up."""
    magnitude = 10.0 ** (math.floor(math.log10(least)) - 1)
    decimal = (round(factor * magnitude * 10**power, 12) for power in range(4) for factor in (1, 2, 5))
    below = [step for step in decimal if step < 1]
    days = (86400.0 * 2**power for power in itertools.count(1))
    return itertools.chain(below, _CLOCK_STEPS, days)


def tick_label(seconds: float, largest: float) -> str:
    """Return the text at a tick of an axis up to ``largest`` seconds. All ticks of the axis have the same unit."""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if largest >= size * (2 if size > 1 else 1):
            return f"{round(seconds / size, 6):g} {unit}"
    return f"{round(seconds / 1e-6, 3):g} µs"
