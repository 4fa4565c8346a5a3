"""Lists of a client as tables: requests, tasks and recoveries."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from nsactors.errors import engine_ranges
from nsactors.membership.history import QUEUED
from nsactors.protocol.control import HistoryEntry
from nsactors.protocol.engine_info import RecoveryReport
from nsactors.results.display.tables import Column, Layout, Table, duration_in_words, time_in_words
from nsactors.tasks.messages import TaskStatus

_UUID = re.compile(r"(?<=-[0-9a-f]{4})[0-9a-f]{8}(?=$|:)")  # the last part of a client's unique name
_STYLES = {"ok": "green", "running": "", QUEUED: "bright_black"}
_STATE_STYLES = {"succeeded": "green", "failed": "red", "stranded": "red"}


def history_table(entries: Iterable[HistoryEntry]) -> Table[HistoryEntry]:
    """Return a table of requests, with their clients, engines, times and outcomes."""
    return Table(entries, _HISTORY)


def task_table(tasks: Iterable[TaskStatus]) -> Table[TaskStatus]:
    """Return a table of tasks, with their state and their engines."""
    return Table(tasks, _TASKS)


def recovery_table(reports: Iterable[RecoveryReport]) -> Table[RecoveryReport]:
    """Return a table of recoveries of namespaces, with the number of names recovered."""
    return Table(reports, _RECOVERIES)


def short_client(name: str) -> str:
    """Return the name of a client, or the id of a request, without the last part that makes it unique."""
    return _UUID.sub("…", name)


def _first_line(text: str) -> str:
    first, *more = text.strip().splitlines() or [""]
    return first + " …" * bool(more)


def _entry_took(entry: HistoryEntry, now: float) -> float | None:
    if entry.outcome == QUEUED:
        return None
    return max(0.0, (now if entry.completed is None else entry.completed) - entry.started)


def _entry_record(entry: HistoryEntry) -> dict[str, Any]:
    return {
        "msg_id": str(entry.request),
        "client": entry.request.client,
        "engine": entry.engine_id,
        "label": entry.label,
        "source": entry.source,
        "started": entry.started,
        "completed": entry.completed,
        "took_s": None if entry.completed is None else entry.completed - entry.started,
        "outcome": entry.outcome,
    }


_HISTORY: Layout[HistoryEntry] = Layout(
    ("request", "requests"),
    (
        Column("started", lambda entry, now: time_in_words(entry.started, now)),
        Column("took", lambda entry, now: duration_in_words(_entry_took(entry, now)), right=True),
        Column("engine", lambda entry, now: str(entry.engine_id), right=True),
        Column("client", lambda entry, now: short_client(entry.request.client)),
        Column("request", lambda entry, now: _first_line(entry.source) or entry.label, cut=True),
        Column("outcome", lambda entry, now: entry.outcome, style=lambda entry: _STYLES.get(entry.outcome, "red")),
    ),
    _entry_record,
    times=("started", "completed"),
)


def _task_took(task: TaskStatus, now: float) -> float | None:
    return None if task.started is None else max(0.0, (now if task.ended is None else task.ended) - task.started)


def _task_style(task: TaskStatus) -> str:
    return _STATE_STYLES.get(_state(task), "")


def _state(task: TaskStatus) -> str:
    return task.state.name.lower()


def _task_record(task: TaskStatus) -> dict[str, Any]:
    return {
        "msg_id": task.msg_id,
        "label": task.label,
        "state": _state(task),
        "engines": list(task.engines),
        "items_left": task.items_left,
        "submitted": task.submitted,
        "started": task.started,
        "ended": task.ended,
        "detached": task.detached,
        "waits": task.waits,
    }


_TASKS: Layout[TaskStatus] = Layout(
    ("task", "tasks"),
    (
        Column("submitted", lambda task, now: time_in_words(task.submitted, now)),
        Column("task", lambda task, now: task.label + " (detached)" * task.detached, cut=True),
        Column("state", lambda task, now: _state(task), style=_task_style),
        Column("left", lambda task, now: f"{task.items_left:,}" if task.items_left else "", right=True),
        Column("engines", lambda task, now: engine_ranges(task.engines).split(" ", 1)[1] if task.engines else ""),
        Column("took", lambda task, now: duration_in_words(_task_took(task, now)), right=True),
        Column("waits", lambda task, now: task.waits, cut=True),
    ),
    _task_record,
    times=("submitted", "started", "ended"),
)


def _count(number: int) -> str:
    return str(number) if number else ""


def _in_doubt(report: RecoveryReport) -> int:
    return sum(map(len, (report.not_replayed, report.diverged, report.may_differ, report.not_kept)))


def _recovery_record(report: RecoveryReport) -> dict[str, Any]:
    return {
        "engine": report.engine_id,
        "complete": report.is_complete,
        "restored": list(report.restored),
        "remade": list(report.remade),
        "replayed": report.replayed,
        "not_replayed": [label for _, label, _ in report.not_replayed],
        "diverged": [str(each) for each in report.diverged],
        "lost": [name for name, _ in report.lost],
        "may_differ": [each.label for each in report.may_differ],
        "not_kept": [name for name, _ in report.not_kept],
        "shipped_only": report.shipped_only,
        "saved_at": report.saved_at,
        "took_s": report.took_s,
    }


_RECOVERIES: Layout[RecoveryReport] = Layout(
    ("recovery", "recoveries"),
    (
        Column("engine", lambda report, now: str(report.engine_id), right=True),
        Column("restored", lambda report, now: _count(len(report.restored)), right=True),
        Column("recreated", lambda report, now: _count(len(report.remade)), right=True),
        Column("replayed", lambda report, now: _count(report.replayed), right=True),
        Column("in doubt", lambda report, now: _count(_in_doubt(report)), right=True),
        Column("lost", lambda report, now: _count(len(report.lost)), right=True),
        Column("took", lambda report, now: duration_in_words(report.took_s), right=True),
        Column(
            "",
            lambda report, now: "complete" if report.is_complete else "incomplete",
            style=lambda report: "green" if report.is_complete else "red",
        ),
    ),
    _recovery_record,
    hint="print(rc.recoveries[-1]) says what came back, and what did not",
)
