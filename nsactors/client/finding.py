"""Which requests are meant by what people say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nsactors.client.detached import is_detached
from nsactors.client.tasks import TaskStatus
from nsactors.core.cluster import HistoryEntry
from nsactors.core.messages import RequestId
from nsactors.errors import ResultUnavailable
from nsactors.results import AsyncResult

__all__ = ["detached_ids", "find_requests", "left_behind"]


def detached_ids(wanted: Any) -> list[str]:
    """The ids of the detached tasks that are meant; none if something else is.

    Raises:
        ResultUnavailable: if some of several are detached tasks and others are not.
    """
    several = wanted if isinstance(wanted, Iterable) and not _is_one(wanted) else [wanted]
    ids = [msg_id for each in several for msg_id in _ids_of(each)]
    detached = [msg_id for msg_id in ids if is_detached(msg_id)]
    if detached and len(detached) < len(ids):
        other = next(msg_id for msg_id in ids if not is_detached(msg_id))
        raise ResultUnavailable(other, "it is no detached task, and others of these are: ask for them in two calls")
    return detached


def find_requests(history: Sequence[HistoryEntry], wanted: Any) -> list[HistoryEntry]:
    """Entries of the history, one a request: in the order of ``wanted``, those of a client as it has sent them.

    Args:
        history: in order; the last ones are those that run or wait.
        wanted: a message id, a client's name, a position in the history, an entry of it, a result; or several of these.

    Raises:
        ResultUnavailable: if the history has nothing of the kind.
    """
    several = wanted if isinstance(wanted, Iterable) and not _is_one(wanted) else [wanted]
    latest = {entry.request: entry for entry in history}
    known = {str(request): request for request in latest}
    return [
        latest[request] for request in dict.fromkeys(r for each in several for r in _requests(history, known, each))
    ]


def left_behind(history: Sequence[HistoryEntry], attached: Iterable[str]) -> list[HistoryEntry]:
    """What the client that left last has left: on each engine what has not ended, or else what it ran there last.

    Raises:
        ResultUnavailable: if no client of which the history knows has left.
    """
    attached = set(attached)
    gone = [entry for entry in history if entry.request.client not in attached]
    if not gone:
        raise ResultUnavailable("a client that has left", "nothing of one is in the history")
    client = max(gone, key=lambda entry: entry.completed or entry.started).request.client
    engines: dict[int, list[HistoryEntry]] = {}
    for entry in (entry for entry in gone if entry.request.client == client):
        known = engines.setdefault(entry.engine_id, [])
        if known and known[-1].completed is not None:
            known.clear()
        known.append(entry)
    return sorted((entry for known in engines.values() for entry in known), key=lambda entry: entry.request)


def _is_one(wanted: Any) -> bool:
    return isinstance(wanted, str | HistoryEntry | RequestId | AsyncResult | TaskStatus)


def _ids_of(wanted: Any) -> list[str]:
    match wanted:
        case AsyncResult():
            return wanted.msg_ids
        case TaskStatus():
            return [wanted.msg_id]
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
        case int():
            try:
                return [history[wanted].request]
            except IndexError:
                raise ResultUnavailable(f"request {wanted}", f"the history has {len(history)}") from None
        case str():
            found = sorted(r for r in known.values() if wanted in (r.client, r.client.rpartition("-")[0]))
            names = [str(request) for request in found] or [wanted]
        case _:
            raise TypeError(f"{wanted!r} is no message id, client's name, position, history entry or result")
    try:
        return [known[name] for name in names]
    except KeyError as error:
        raise ResultUnavailable(str(error.args[0]), "the history knows of no such request or client") from None
