"""What an engine has to tell its controller."""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

from nsactors.core.cluster import Answer, HistoryEntry, Report
from nsactors.core.messages import Execute, Failed, Outcome, OutputBatch, Request

__all__ = ["Ended", "News", "begun_entry"]

SOURCE_PREVIEW_CHARS = 200


class Ended(NamedTuple):
    """A request that has ended, as its main thread leaves it: cheaply."""

    request: Request
    started: float
    completed: float
    outcome: Outcome


class News:
    """What is to be told to the controller next; filled by all of an engine's threads, emptied by one."""

    def __init__(self) -> None:
        self.urgent = threading.Event()
        self._items: deque[OutputBatch | Ended | HistoryEntry | Answer] = deque()

    def add(self, item: OutputBatch | Ended | HistoryEntry | Answer) -> None:
        """Tell this with the next report."""
        self._items.append(item)
        if isinstance(item, Answer):  # somebody waits for it; the rest goes with the next round
            self.urgent.set()

    def take(self, engine_id: int) -> Report:
        """All there is to tell."""
        self.urgent.clear()
        output: list[OutputBatch] = []
        history: list[HistoryEntry] = []
        answers: list[Answer] = []
        while self._items:
            match self._items.popleft():
                case OutputBatch() as batch:
                    output.append(batch)
                case HistoryEntry() as entry:
                    history.append(entry)
                case Answer() as answer:
                    answers.append(answer)
                case Ended(request, started, completed, outcome):
                    entry = begun_entry(request, engine_id, started)
                    history.append(entry._replace(completed=completed, outcome=_outcome_name(outcome)))
        return Report(tuple(output), tuple(history), tuple(answers))


def begun_entry(request: Request, engine_id: int, started: float) -> HistoryEntry:
    """How a request that has begun stands in the history."""
    operation = request.operation
    source = operation.code[:SOURCE_PREVIEW_CHARS] if isinstance(operation, Execute) else request.label
    return HistoryEntry(request.id, engine_id, request.label, source, started, None, "running")


def _outcome_name(outcome: Outcome) -> str:
    return outcome.failure.type_name if isinstance(outcome, Failed) else type(outcome).__name__.lower()
