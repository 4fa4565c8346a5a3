"""Requests named by message ids, results, clients and positions in the history."""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nsactors.errors import ResultUnavailable, WrongType, WrongValue
from nsactors.protocol import arguments as arg
from nsactors.protocol.control import HistoryEntry
from nsactors.protocol.messages import RequestId
from nsactors.protocol.partition import Block
from nsactors.results import AsyncResult, BalancedMapResult, Call, MapCall, OutputGoes
from nsactors.results.map_result import map_of_part
from nsactors.tasks.detached_client import TaskSchedulers, is_detached
from nsactors.tasks.messages import TaskState, TaskStatus

if TYPE_CHECKING:
    from nsactors.session.session import Session

STATES = ("queued", "running", "ok", "failed")
"""The states of requests. ``failed`` stands for every other outcome in the history, such as the name of an error."""

_STATES_OF_TASKS = {
    TaskState.WAITING: "queued",
    TaskState.READY: "queued",
    TaskState.STRANDED: "queued",
    TaskState.ASSIGNED: "running",
    TaskState.SUCCEEDED: "ok",
    TaskState.FAILED: "failed",
}

JOBS = "results, message ids or several of these"

NEWS_S = 1.0  # within this time, the history learns of a request that was sent or has ended
LOOK_S = 0.1


class RequestFinder:
    """Finds requests that are named by the argument ``jobs`` of a client's methods, and makes their results.

    Args:
        session: the client's connection.
        schedulers: the schedulers of the client's tasks.
    """

    def __init__(self, session: Session, schedulers: TaskSchedulers) -> None:
        self._session = session
        self._schedulers = schedulers

    def unfinished(self, call: str, jobs: Any) -> tuple[list[Call], list[str]]:
        """Return the calls of this client that have not ended, and the ids of other clients' requests.

        Args:
            call: the method that takes the jobs, such as ``"wait"``.
            jobs: see :func:`results_and_ids`; None: all calls of this client.

        Raises:
            InvalidArgument: if ``jobs`` cannot name requests.
        """
        session = self._session
        if jobs is None:
            return [*session.open_calls(), *session.open_tasks()], []
        results, ids = results_and_ids(call, jobs)
        open_calls = {str(c.request_id): c for c in [*session.open_calls(), *session.open_tasks()]} if ids else {}
        # The calls of a balanced map are its parts that have arrived.
        each = [[r.map_call] if isinstance(r, BalancedMapResult) else r.calls for r in results]
        named = [c for calls in each for c in calls if not c.done]
        named += [open_calls[msg_id] for msg_id in ids if msg_id in open_calls]
        others = [msg_id for msg_id in ids if msg_id not in open_calls and not session.has_made(msg_id)]
        return list({c.request_id: c for c in named}.values()), others

    def find(self, jobs: Any) -> list[HistoryEntry]:
        """Return the requests, of any client, that are named by ``jobs``; see :func:`find_requests`."""
        # A request that has just been sent, or has just ended, is in the history with the next round of reports.
        deadline = time.monotonic() + NEWS_S
        while True:
            try:
                return find_requests(self._session.controller.history(None, None, None), jobs)
            except ResultUnavailable:
                if time.monotonic() > deadline:
                    raise
            self._session.leaving.wait(LOOK_S)

    def result(self, entries: list[HistoryEntry], *, single: bool) -> AsyncResult:
        """Return the result of requests; with ``single``, its value is the value of the only request, not a list."""
        calls = self._session.calls_for(entries)
        self._apply_output(calls)
        return AsyncResult(self._session, calls, label=label_of(entries), single=single)

    def result_of_tasks(self, msg_ids: list[str], *, single: bool) -> AsyncResult:
        """Return the result of detached tasks; for one map, a result with the list of its items."""
        task_scheduler = self._schedulers.detached
        calls = task_scheduler.calls_for(msg_ids)
        self._apply_output(calls)
        if len(calls) == 1 and isinstance(call := calls[0], MapCall):
            partitioner = Block() if call.joins else None
            return BalancedMapResult(task_scheduler, call, label=call.label, partitioner=partitioner)
        label = calls[0].label if len(calls) == 1 else f"{len(calls)} detached tasks"
        return AsyncResult(task_scheduler, calls, label=label, single=single)

    def _apply_output(self, calls: Iterable[Call]) -> None:
        """Apply the client's choice of output to calls that no view has made."""
        if (goes := self._session.output_goes(None)) is OutputGoes.NOWHERE:
            for call in calls:
                call.output_goes = goes


def select_requests(
    entries: Iterable[HistoryEntry],
    *,
    label: str | None = None,
    state: str | None = None,
    since_s: float | None = None,
    until_s: float | None = None,
) -> list[HistoryEntry]:
    """Return the entries that meet all conditions; see ``Client.history``."""
    return [
        entry
        for entry in entries
        if _has_label(entry.label, label)
        and (state is None or state == _state(entry))
        and (since_s is None or entry.completed is None or entry.completed >= since_s)
        and (until_s is None or entry.started <= until_s)
    ]


def select_tasks(tasks: Iterable[TaskStatus], *, label: str | None, state: str | None) -> list[TaskStatus]:
    """Return the tasks that meet both conditions; see ``Client.tasks``."""
    return [
        task
        for task in tasks
        if _has_label(task.label, label) and (state is None or state == _STATES_OF_TASKS[task.state])
    ]


def _has_label(label: str, wanted: str | None) -> bool:
    return wanted is None or wanted == label or fnmatch.fnmatchcase(label, wanted)


def label_of(entries: Sequence[HistoryEntry]) -> str:
    """Return the label of requests; if it is not the same for all, their number."""
    labels = list(dict.fromkeys(entry.label for entry in entries))
    return labels[0] if len(labels) == 1 else f"{len(entries)} requests"


def _state(entry: HistoryEntry) -> str:
    return "failed" if entry.completed is not None and entry.outcome != "ok" else entry.outcome


def results_and_ids(call: str, jobs: Any) -> tuple[list[AsyncResult], list[str]]:
    """Return the results that are named by the argument ``jobs`` of a call, and the ids of other requests.

    Args:
        call: the call, such as ``"wait"``.
        jobs: a result, a message id, an entry of the history or of ``tasks()``, or several of these.

    Raises:
        InvalidArgument: for anything else, and for the id of a part of a map, which ``split(size)`` makes.
    """
    several = [jobs] if _is_one(jobs) else _listed(call, jobs, JOBS)
    results = [job for job in several if isinstance(job, AsyncResult)]
    ids = [msg_id for job in several if not isinstance(job, AsyncResult) for msg_id in _ids_of(job)]
    for job in several:
        arg.check(call, jobs=None if _is_one(job) else arg.Unfit(job, JOBS, WrongType))
    for msg_id in ids:
        if (whole := map_of_part(msg_id)) is not None:
            raise WrongValue(call, "jobs", msg_id, f"the id of the whole map, {whole!r}")
        if re.fullmatch(r".+:\d+", msg_id, re.DOTALL) is None:
            raise WrongValue(call, "jobs", msg_id, JOBS)
    return results, ids


def check_jobs(call: str, jobs: Any) -> None:
    """Check that jobs can name requests of any client.

    Raises:
        InvalidArgument: if they cannot.
    """
    takes = "a message id, a client's name, a position, an entry of the history, a result, or several of these"
    if isinstance(jobs, bytes | bytearray):  # its bytes would be taken for positions
        raise WrongType(call, "jobs", jobs, takes)
    for job in [jobs] if _is_one(jobs) or arg.whole(jobs) is None else _listed(call, jobs, takes):
        arg.check(call, jobs=None if _is_one(job) or arg.whole(job) is None else arg.Unfit(job, takes, WrongType))


def detached_ids(wanted: Any) -> list[str]:
    """Return the ids of the detached tasks that jobs name; an empty list if they name other requests.

    Raises:
        ResultUnavailable: if some jobs are detached tasks and others are not, or one is a part of a map.
    """
    several = wanted if isinstance(wanted, Iterable) and not _is_one(wanted) else [wanted]
    ids = [msg_id for each in several for msg_id in _ids_of(each)]
    for msg_id in ids:
        if (whole := map_of_part(msg_id)) is not None:
            use = f"get_result({whole!r})" if is_detached(whole) else "the result that map() has returned"
            raise ResultUnavailable(msg_id, f"it is a part of the map {whole}: use {use}, and its split(size)")
    detached = [msg_id for msg_id in ids if is_detached(msg_id)]
    if detached and len(detached) < len(ids):
        other = next(msg_id for msg_id in ids if not is_detached(msg_id))
        raise ResultUnavailable(other, "it is not a detached task, but others of these are: ask for them in two calls")
    return detached


def find_requests(history: Sequence[HistoryEntry], wanted: Any) -> list[HistoryEntry]:
    """Return an entry of the history for each request, in the order of ``wanted``.

    The requests of a client are in the order in which the client sent them.

    Args:
        history: in order; requests that run or wait come last.
        wanted: a message id, a client's name, a position in the history, an entry of it, a result; or several of these.

    Raises:
        ResultUnavailable: if the history has no such request.
    """
    several = wanted if isinstance(wanted, Iterable) and not _is_one(wanted) else [wanted]
    latest = {entry.request: entry for entry in history}
    known = {str(request): request for request in latest}
    return [
        latest[request] for request in dict.fromkeys(r for each in several for r in _requests(history, known, each))
    ]


def left_behind(history: Sequence[HistoryEntry], attached: Iterable[str]) -> list[HistoryEntry]:
    """Return the requests of the client that left last: on each engine its unfinished requests, or else its last.

    Raises:
        ResultUnavailable: if no client in the history has left.
    """
    attached = set(attached)
    gone = [entry for entry in history if entry.request.client not in attached]
    if not gone:
        raise ResultUnavailable("a client that has left", "the history has no request of such a client")
    client = max(gone, key=lambda entry: entry.completed or entry.started).request.client
    engines: dict[int, list[HistoryEntry]] = {}
    for entry in (entry for entry in gone if entry.request.client == client):
        known = engines.setdefault(entry.engine_id, [])
        if known and known[-1].completed is not None:
            known.clear()
        known.append(entry)
    return sorted((entry for known in engines.values() for entry in known), key=lambda entry: entry.request)


def _listed(call: str, jobs: Any, takes: str) -> list[Any]:
    arg.check(call, jobs=arg.iterable(jobs, takes))
    return list(jobs)


def _is_one(wanted: Any) -> bool:
    return isinstance(wanted, str | HistoryEntry | RequestId | AsyncResult | TaskStatus)


def _ids_of(wanted: Any) -> list[str]:
    match wanted:
        case AsyncResult():
            return wanted.msg_ids
        case TaskStatus():
            return [wanted.msg_id]
        case HistoryEntry(request=request):
            return [str(request)]
        case _:
            return [str(wanted)]


def _requests(history: Sequence[HistoryEntry], known: Mapping[str, RequestId], wanted: Any) -> list[RequestId]:
    match wanted:
        case AsyncResult():
            names = wanted.msg_ids
        case HistoryEntry(request=request):
            names = [str(request)]
        case RequestId():
            names = [str(wanted)]
        case _ if arg.whole(wanted) is None:
            try:
                return [history[wanted].request]
            except IndexError:
                raise ResultUnavailable(f"request {wanted}", f"the history has {len(history)}") from None
        case str():
            found = sorted(r for r in known.values() if wanted in (r.client, r.client.rpartition("-")[0]))
            names = [str(request) for request in found] or [wanted]
        case _:
            raise AssertionError("check_jobs() has let it pass")
    try:
        return [known[name] for name in names]
    except KeyError as error:
        raise ResultUnavailable(str(error.args[0]), "the history knows of no such request or client") from None


def names_one(jobs: Any) -> bool:
    """Return whether jobs name one request, rather than several or all requests of a client."""
    return (
        arg.whole(jobs) is None or isinstance(jobs, HistoryEntry | RequestId) or (isinstance(jobs, str) and ":" in jobs)
    )
