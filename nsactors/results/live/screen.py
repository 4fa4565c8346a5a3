"""Where output is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from nsactors.core.messages import ExecuteResult
from nsactors.results.live.grouping import Shown, engine_label

__all__ = ["Progress", "Screen", "grouped_statuses", "result_label"]


class Progress(NamedTuple):
    """How far a call is."""

    label: str
    done: int
    total: int
    elapsed_s: float


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
