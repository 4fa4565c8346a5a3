"""The records of requests, and ipyparallel's queries over them.

There is no hub: a client records its own requests, and reads those of others from the cluster's history.
"""

from __future__ import annotations

import fnmatch
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import nsactors
from nsactors.ipyparallel.client.asyncresult import AsyncMapResult, AsyncResult, submitted_at
from nsactors.ipyparallel.client.chunks import ChunkTable, task_id_of
from nsactors.ipyparallel.client.metadata import KEPT, Metadata, engine_uuid
from nsactors.ipyparallel.error import RemoteError, TaskAborted, engine_info_of

__all__ = ["Records", "SendAgain", "matches"]

TEXT_LIMIT = 10_000  # characters of each output stream of a request
AGAIN_KEPT = 200  # calls whose arguments are held for resubmit()

_DATES = ("submitted", "started", "completed", "received")
_KEYS = ("msg_id", *_DATES, "engine_uuid", "execute_input", "execute_result", "error", "stdout", "stderr", "label")


class _Chunk(NamedTuple):
    """A chunk of a balanced map, whose record is made when it is asked for.

    Attributes:
        source: the result of the map; after its end, the table of its chunks.
        number: the number of the chunk.
    """

    source: AsyncMapResult | ChunkTable
    number: int


_Record = dict[str, Any] | _Chunk

SendAgain = Callable[[str], nsactors.AsyncResult]
"""Sends the request of an id again, and returns its result."""


class Records:
    """Records of requests, limited in number; the oldest are dropped first.

    Args:
        client: the client of nsactors, for the cluster's history.
    """

    def __init__(self, client: nsactors.Client) -> None:
        self._core = client
        self._lock = threading.Lock()
        self._own: OrderedDict[str, _Record] = OrderedDict()
        self._again: OrderedDict[str, SendAgain] = OrderedDict()  # for all chunks of a map, by its id
        self._purged: set[str] = set()
        self._purged_until: float | None = None

    def add(self, result: AsyncResult, again: SendAgain | None) -> None:
        """Record requests that have been sent, and their outcome when they end.

        Args:
            result: the result of the requests.
            again: sends one of the requests again; None if that is not possible.
        """
        records = self._records(result, ended=False)
        with self._lock:
            self._own.update(records)
            if again is not None:
                self._again.update(dict.fromkeys(map(task_id_of, records), again))
            while len(self._own) > KEPT:
                self._own.popitem(last=False)
            while len(self._again) > AGAIN_KEPT:
                self._again.popitem(last=False)

        def note_end(_: Future[Any]) -> None:
            self._note_end(result)

        # Use Future's own method: nsactors' method runs callbacks on a thread that a waiting callback may hold up.
        Future.add_done_callback(result.core, note_end)

    def _note_end(self, result: AsyncResult) -> None:
        records = self._records(result, ended=True)
        with self._lock:
            self._own.update({msg_id: record for msg_id, record in records.items() if msg_id in self._own})

    def _records(self, result: AsyncResult, *, ended: bool) -> dict[str, _Record]:
        """Return the record of each request; for a balanced map, the last chunks, whose records are made later."""
        ids = result.chunk_ids if isinstance(result, AsyncMapResult) else None
        if ids is None or not isinstance(result, AsyncMapResult):
            record = partial(self._record, queue="task" if result.is_balanced else "mux")
            return dict(zip(result.msg_ids, map(record, _one_each(result)), strict=False))
        # The result holds all values and output, so the records of a map that has ended do not refer to the result.
        table = result.chunk_table() if ended else None
        source = result if table is None else table.shortened(TEXT_LIMIT, KEPT)
        return {ids[number]: _Chunk(source, number) for number in range(len(ids))[-KEPT:]}

    def _record(self, metadata: Mapping[str, Any], queue: str) -> dict[str, Any]:
        record = {key: metadata[key] for key in _KEYS}
        record["error"] = None if metadata["error"] is None else _content_of(metadata["error"])
        record["stdout"], record["stderr"] = record["stdout"][:TEXT_LIMIT], record["stderr"][:TEXT_LIMIT]
        kind = "apply_request" if record["execute_input"] is None else "execute_request"
        record["header"] = {"msg_id": record["msg_id"], "msg_type": kind, "date": record["submitted"]}
        record["header"] |= {"username": self._core.name.rpartition("-")[0], "label": record["label"]}
        record["metadata"] = {key: metadata[key] for key in ("follow", "after") if metadata[key]}
        record["content"] = {} if record["execute_input"] is None else {"code": record["execute_input"]}
        record["client_uuid"] = self._core.name
        record["queue"] = queue
        record["resubmitted"] = None
        status = metadata["status"]
        done = status is not None
        record["result_header"] = {"date": record["completed"], "status": status} if done else None
        record["result_metadata"] = {"status": status, "engine": record["engine_uuid"]} if done else None
        record["result_content"] = (record["error"] or {"status": status}) if done else None
        return record

    def all(self) -> list[dict[str, Any]]:
        """Return the records of all clients' requests, in the order of submission."""
        self._core.flush()
        with self._lock:
            known = [record if isinstance(record, _Chunk) else dict(record) for record in self._own.values()]
        own = self._made(known)  # without the lock, because requests that end need it
        mine = self._core.name
        others = [_of_history(entry) for entry in self._core.history() if entry.request.client != mine]
        records = [record for record in [*own, *others] if record["msg_id"] not in self._purged]
        if self._purged_until is not None:
            limit = datetime.fromtimestamp(self._purged_until, UTC)
            records = [record for record in records if record["submitted"] > limit]
        return sorted(records, key=lambda record: record["submitted"])

    def _made(self, records: Iterable[_Record]) -> list[dict[str, Any]]:
        """Return records; make the records of the chunks of a map from one table."""
        tables: dict[int, ChunkTable | None] = {}
        made = []
        for record in records:
            if isinstance(record, _Chunk):
                source, number = record
                if id(source) not in tables:
                    tables[id(source)] = source if isinstance(source, ChunkTable) else source.chunk_table()
                table = tables[id(source)]
                assert table is not None, "a result of chunks has a table"
                made.append(self._record(table[number], "task"))
            else:
                made.append(record)
        return made

    def again(self, msg_id: str) -> SendAgain:
        """Return the function that sends a call again.

        Raises:
            KeyError: if the call is unknown, or has been dropped.
        """
        with self._lock:
            return self._again[task_id_of(msg_id)]

    def resubmitted(self, msg_id: str, new_id: str) -> None:
        """Record that a request was sent again."""
        with self._lock:
            if isinstance(record := self._own.get(msg_id), dict):  # not of a chunk, whose record is made each time
                record["resubmitted"] = new_id

    def purge(self, msg_ids: Iterable[str]) -> None:
        """Forget requests."""
        ids = set(msg_ids)
        self._purged |= ids
        with self._lock:
            for msg_id in ids:
                self._own.pop(msg_id, None)
                self._again.pop(task_id_of(msg_id), None)

    def purge_all(self) -> None:
        """Forget all requests that have been submitted so far."""
        records = self.all()
        if records:
            self._purged_until = max(record["submitted"].timestamp() for record in records)
        self._purged.clear()
        with self._lock:
            self._own.clear()
            self._again.clear()


def matches(record: Mapping[str, Any], query: Mapping[str, Any]) -> bool:
    """Return whether a record matches a query.

    Args:
        record: values by key; the key ``"header.date"`` of a query means a nested value.
        query: for each key a value, or a dictionary of operators and operands.

    Raises:
        ValueError: if there is no such operator.
    """
    return all(_meets(_look_up(record, key), wanted) for key, wanted in query.items())


def _look_up(record: Mapping[str, Any], key: str) -> Any:
    value: Any = record
    for part in [key] if key in record else key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _meets(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, Mapping):
        return bool(value == wanted)
    for name, operand in wanted.items():
        if name not in _OPERATORS:
            raise ValueError(f"there is no operator {name!r}: a query takes {', '.join(_OPERATORS)}")
        if not _OPERATORS[name](value, operand):
            return False
    return True


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda value, operand: value is not None and compare(value, operand)


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$lt": _ordered(lambda a, b: a < b),
    "$lte": _ordered(lambda a, b: a <= b),
    "$gt": _ordered(lambda a, b: a > b),
    "$gte": _ordered(lambda a, b: a >= b),
    "$eq": lambda a, b: bool(a == b),
    "$ne": lambda a, b: bool(a != b),
    "$in": lambda a, b: a in b,
    "$nin": lambda a, b: a is not None and a not in b if isinstance(b, str) else a not in b,
    "$all": lambda a, b: a is not None and all(each in a for each in b),
    "$mod": lambda a, b: a is not None and a % b[0] == b[1],
    "$exists": lambda a, b: (a is not None) is bool(b),
    "$glob": lambda a, b: isinstance(a, str) and fnmatch.fnmatchcase(a, b),
    "$regex": lambda a, b: isinstance(a, str) and re.search(b, a) is not None,
}


def _content_of(error: Exception) -> dict[str, Any]:
    """Return an error as a message of ipyparallel has it."""
    made = {"status": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": []}
    if isinstance(error, TaskAborted):
        made["status"] = "aborted"
    if isinstance(error, RemoteError):
        made.update(ename=error.ename, evalue=error.evalue, traceback=(error.traceback or "").splitlines())
    return {**made, "engine_info": engine_info_of(error)}


def _listed(metadata: Any) -> list[Metadata]:
    return [metadata] if isinstance(metadata, Metadata) else list(metadata)


def _one_each(result: AsyncResult) -> list[Metadata]:
    """Return the metadata of each request; a summary for a balanced map, which is one request with several replies."""
    rows, ids = _listed(result.metadata), result.msg_ids
    return rows if [row["msg_id"] for row in rows] == ids else [_summary(result, rows)]


def _summary(result: AsyncResult, parts: list[Metadata]) -> Metadata:
    made = Metadata(
        parts[0] if parts else {**result.how_sent, "submitted": submitted_at(result.core)}, msg_id=result.msg_ids[0]
    )
    if not result.done():
        return made
    for key, choose in (("started", min), ("completed", max), ("received", max)):
        times = [part[key] for part in parts if part[key] is not None]
        made[key] = choose(times) if times else None
    made["status"] = "ok" if result.core.exception() is None else "error"
    return made


def _of_history(entry: Any) -> dict[str, Any]:
    """Return a record of another client's request, with the values that the cluster's history has."""
    done = entry.completed is not None
    record = dict.fromkeys(_KEYS)
    started, completed = _time(entry.started), _time(entry.completed)
    record |= {"msg_id": str(entry.request), "submitted": started, "started": started, "completed": completed}
    record |= {"received": completed, "engine_uuid": engine_uuid(entry.engine_id), "stdout": "", "stderr": ""}
    record |= {"label": entry.label, "client_uuid": entry.request.client, "queue": "mux", "resubmitted": None}
    kind = "execute_request" if entry.label == "execute" else "apply_request"
    header = {"msg_id": str(entry.request), "msg_type": kind, "date": started, "label": entry.label}
    record |= {"header": header, "metadata": {}, "content": {}}
    status = "ok" if entry.outcome == "ok" else "error"
    for key in ("result_header", "result_metadata", "result_content"):
        record[key] = {"status": status} if done else None
    return record


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
