"""A picture of which engine did what when."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nsactors.core.durations import seconds_in_words
from nsactors.core.timeline import Schedule, Stretch
from nsactors.results.call import NOWHERE, Call
from nsactors.results.call_group import CallGroup
from nsactors.results.task_calls import MapPiece
from nsactors.results.timeline_svg import drawing
from nsactors.results.timeline_text import TerminalPicture

__all__ = ["Timeline"]

_LABELS = 3  # in a title


class Timeline:
    """Which engine did what when: drawn in terminals, notebooks and SVG files, and in numbers.

    It shows what has ended when it is made. Times of work are read from the engines' clocks.

    Args:
        schedule: the work.
        unit: what its items are.

    Example:
        >>> result = lview.map_async(simulate, range(1000))
        >>> result.wait_interactive()
        >>> result.timeline().save("simulation.svg")
    """

    def __init__(self, schedule: Schedule, unit: str = "call") -> None:
        self._schedule = schedule
        self._unit = unit

    @classmethod
    def of(cls, *results: CallGroup | Iterable[CallGroup], engines: Iterable[int] = ()) -> Timeline:
        """The work of several results together.

        Args:
            results: of calls, tasks and maps, whichever views they come from; or lists of these.
            engines: ids of engines that get a line although they did nothing, and count as unused.
        """
        groups: list[CallGroup] = []
        for some in results:
            groups += [some] if isinstance(some, CallGroup) else list(some)
        calls = [call for group in groups for call in group.calls]
        submitted = [call.submitted for group in groups for call in group._calls]
        received = [call.received for call in calls if call.received is not None]
        begin = min(submitted, default=time.time())
        work = [stretch for call in calls if (stretch := _stretch(call)) is not None]
        left = sum(len(group) - group.progress for group in groups)
        unit = "item" if any(isinstance(call, MapPiece) for call in calls) else "call"
        return cls(Schedule.of(work, begin, max(received, default=begin), engines, left), unit)

    @property
    def engines(self) -> list[int]:
        """Ids of the engines that it has lines for."""
        return list(self._schedule.engine_ids)

    @property
    def stretches(self) -> list[Stretch]:
        """The work: what took which engine from when to when."""
        return sorted(self._schedule.stretches, key=lambda stretch: stretch.start)

    @property
    def makespan(self) -> float:
        """Seconds from the first submission until the last result was there."""
        return self._schedule.makespan

    @property
    def serial_time(self) -> float:
        """Seconds that engines worked, added up: what one alone would have taken."""
        return self._schedule.serial_time

    @property
    def speed_up(self) -> float:
        """How many times longer one engine would have taken: ``serial_time / makespan``."""
        return self._schedule.speed_up

    @property
    def utilisation(self) -> float:
        """The part of their time that engines worked, from 0 to 1: ``speed_up / len(engines)``."""
        return self._schedule.utilisation

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture into a file, as SVG.

        Raises:
            ValueError: if the file's name does not end in ``.svg``.
        """
        file = Path(path)
        if file.suffix.lower() != ".svg":
            raise ValueError(f"a timeline is saved as SVG: give a name such as {file.with_suffix('.svg').name!r}")
        file.write_text(self._repr_svg_(), encoding="utf-8")

    def __repr__(self) -> str:
        return f"<Timeline of {self._title()}: {self._numbers()}>"

    def __rich__(self) -> Any:
        """The picture for a terminal, as wide as that is."""
        return TerminalPicture(self._schedule, self._title(), self._numbers())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """The picture at a prompt, in colours if it is a terminal."""
        from rich.console import Console

        at_terminal = sys.stdout.isatty()
        console = Console(file=io.StringIO(), force_terminal=at_terminal, force_jupyter=False)
        console.print(self.__rich__(), end="")
        printer.text(console.file.getvalue())  # type: ignore[attr-defined]  # of StringIO

    def _repr_html_(self) -> str:
        return drawing(self._schedule, self._title(), self._numbers(), inline=True)

    def _repr_svg_(self) -> str:
        return drawing(self._schedule, self._title(), self._numbers(), inline=False)

    def _title(self) -> str:
        schedule = self._schedule
        labels = schedule.labels
        what = ", ".join(labels[:_LABELS]) + f" and {len(labels) - _LABELS} more" * (len(labels) > _LABELS)
        items, engines = schedule.items, len(schedule.engine_ids)
        counted = f"{items:,} {self._unit}{'s' * (items != 1)} on {engines} engine{'s' * (engines != 1)}"
        left = f", {schedule.left:,} have not ended" if schedule.left else ""
        return f"{what + ': ' if what else ''}{counted}{left}"

    def _numbers(self) -> str:
        makespan, serial = seconds_in_words(self.makespan), seconds_in_words(self.serial_time)
        return (
            f"makespan {makespan} · serial time {serial} · speed-up {self.speed_up:.2f} · "
            f"utilisation {self.utilisation:.0%}"
        )


def _stretch(call: Call) -> Stretch | None:
    """What a call was to its engine; None if it has not run, or not ended."""
    if call.started is None or call.completed is None or call.engine_id == NOWHERE:
        return None
    items = call.stop - call.start if isinstance(call, MapPiece) else 1
    return Stretch(call.engine_id, call.started, call.completed, call.label, items, call.error is not None)
