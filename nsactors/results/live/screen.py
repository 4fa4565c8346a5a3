"""Where output is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from nsactors.core.durations import seconds_in_words
from nsactors.core.messages import ExecuteResult
from nsactors.results.live.grouping import Shown, engine_label

__all__ = ["Progress", "Screen", "grouped_statuses", "result_label"]


class Progress(NamedTuple):
    """How far a call is.

    Attributes:
        label: what it is.
        done: how much of it has ended.
        total: how much there is.
        elapsed_s: seconds since it was asked for.
        unit: what is counted.
        rate: how many end in a second lately; None if that is not known, or says nothing.
        left_s: seconds that the rest will take, by that.
    """

    label: str
    done: int
    total: int
    elapsed_s: float
    unit: str = "engines"
    rate: float | None = None
    left_s: float | None = None

    @property
    def amount(self) -> str:
        """``512/1,000 items``."""
        return f"{self.done:,}/{self.total:,} {self.unit}"

    @property
    def times(self) -> str:
        """``12 s``, and as far as they are known rate and estimate: ``12 s, 41.7/s, some 15 s left``."""
        parts = [_seconds(self.elapsed_s)]
        if self.rate is not None:
            parts.append(f"{self.rate:,.0f}/s" if self.rate >= 100 else f"{self.rate:.3g}/s")
        if self.left_s is not None and self.done < self.total:
            parts.append(f"some {_seconds(self.left_s)} left")
        return ", ".join(parts)


class Screen(Protocol):
    """A place for the output of one call to several engines."""

    def show(self, shown: Sequence[Shown]) -> None:
        """Add output."""
        ...

    def status(self, lines: Mapping[int, str], progress: Progress | None) -> None:
        """Show lines that engines have not finished, and progress, until the next call."""
        ...

    def notice(self, text: str) -> None:
        """Say something about the output, such as what was left out."""
        ...

    def close(self) -> None:
        """Nothing more comes; the status goes away."""
        ...


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else seconds_in_words(seconds)


def grouped_statuses(lines: Mapping[int, str]) -> list[tuple[str, str]]:
    """Label and text of unfinished lines, equal ones once."""
    groups: dict[str, list[int]] = {}
    for engine_id, line in lines.items():
        groups.setdefault(line, []).append(engine_id)
    return [(engine_label(engines), line) for line, engines in groups.items()]


def result_label(engines: Sequence[int], result: ExecuteResult) -> str:
    """What stands before a value: ``Out[0-3:5]:``."""
    number = f":{result.execution_count}" if result.execution_count else ""
    return f"Out{engine_label(engines)[:-1]}{number}]:"
