"""Results of detached tasks, kept as they came from engines: whoever collects them opens them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from nsactors.client.detached.messages import Progress
from nsactors.client.tasks.delivery import Outcome, between, failed
from nsactors.core.kept_tasks import KeptTask, KeptTasks, Piece
from nsactors.core.output import size_bytes
from nsactors.core.payload import Payload, pack, unpack
from nsactors.core.remote_value import StoredObject
from nsactors.core.scheduling import GiveUp, Ran, Span, Status
from nsactors.core.tasks import Report
from nsactors.core.wire import INLINE_LIMIT_BYTES
from nsactors.errors import NsactorsError
from nsactors.results import Call, MapCall, TaskCall
from nsactors.transport.base import Transport

__all__ = ["Keeping", "KeptValue"]

PIECE_BYTES = 300  # what one takes beside its value
REPLY_PIECES = 2_000
REPLY_BYTES = 16_000_000


class KeptValue(NamedTuple):
    """What items gave, not opened.

    Attributes:
        values: a list of what has come together, pickled.
        place: which of them.
        nbytes: its share of their size.
    """

    values: Payload | StoredObject
    place: int
    nbytes: int

    def load(self, opened: dict[int, Any], *, copy: bool) -> Any:
        """The value; ``opened`` remembers lists by identity.

        Raises:
            ObjectGone: if the process that kept it has ended.
            Exception: whatever unpickling raises.
        """
        values = opened.get(id(self.values))
        if values is None:
            payload = self.values if isinstance(self.values, Payload) else self.values.load()
            values = opened[id(self.values)] = unpack(payload, copy=copy)
        return values[self.place]


class Keeping:
    """Keeps results; see ``Delivery``.

    Its other methods may be called on any thread.

    Args:
        transport: has an object store for what is large.
        changed: called when there is something new to collect.
        kept: what has been kept before.
    """

    def __init__(self, transport: Transport, changed: Callable[[], object], kept: KeptTasks | None = None) -> None:
        self._transport = transport
        self._changed = changed
        self._kept = kept or KeptTasks()
        self._lock = threading.Lock()

    def enter(self, call: TaskCall, *, joins: bool, input_bytes: int = 0) -> None:
        """A task is about to be submitted, with arguments of this size.

        Raises:
            SchedulerOverloaded: if too much waits already.
        """
        size = call.size if isinstance(call, MapCall) else None
        # While its call is held, others can depend on it.
        number = call.request_id.seq
        task = KeptTask(number, call.label, size, call.copies, joins, call.submitted, input_bytes, handle=call)
        with self._lock:
            self._kept.enter(task)

    def withdraw(self, call: TaskCall) -> None:
        """It has not been submitted after all."""
        with self._lock:
            self._kept.withdraw(call.request_id.seq)

    def tasks(self) -> list[KeptTask]:
        """All of which something is known, in the order of submission."""
        with self._lock:
            return list(self._kept)

    def get(self, number: int) -> KeptTask | None:
        """One of them."""
        with self._lock:
            return self._kept.get(number)

    def progress(self, wanted: dict[int, int]) -> dict[int, Progress]:
        """What has come of tasks, by number, for who has so many pieces of each; without those that have nothing new.

        As much as fits into one answer: the rest is there when it is asked for again.
        """
        found: dict[int, Progress] = {}
        pieces, nbytes = 0, 0
        with self._lock:
            for number, known in wanted.items():
                task = self._kept.get(number)
                if task is None:
                    found[number] = Progress((), lost=self._why_lost(number))
                elif len(task.pieces) > known:
                    if pieces >= REPLY_PIECES or nbytes >= REPLY_BYTES:
                        break
                    fresh = tuple(task.pieces[known : known + REPLY_PIECES])
                    found[number] = Progress(fresh, task.handle.tried_on)
                    pieces += len(fresh)
                    nbytes += task.nbytes * len(fresh) // len(task.pieces)
        return found

    def _why_lost(self, number: int) -> str:
        label = self._kept.dropped_label(number)
        if label is None:
            return "the cluster knows of no such task"
        return f"{label} has ended, but results are kept within limits, and newer ones have taken its place"

    # As a Delivery: on the thread of the scheduler.

    def read(self, call: Call, *, copy: bool) -> tuple[list[Ran], tuple[int, ...]]:
        """See ``Delivery``."""
        report = Report.from_value(call.value)
        try:
            values = self._put(report.values)
        except NsactorsError as error:  # the object store is full
            return [failed(Span(ran.task_id, ran.start, ran.stop), error, ran) for ran in report.ran], report.missing
        share = report.values.nbytes // max(1, len(report.ran))
        results = []
        for index, ran in enumerate(report.ran):
            chunks = between(call.output.chunks, ran.output)
            outcome = Outcome(KeptValue(values, index, share), ran.started, ran.started + ran.elapsed_s, chunks)
            results.append(Ran(ran.task_id, ran.start, ran.stop, ran.status, ran.elapsed_s, outcome))
        return results, report.missing

    def deliver(self, call: TaskCall, ran: Ran, engine_id: int) -> bool:
        """See ``Delivery``."""
        outcome: Outcome = ran.value
        if not isinstance(outcome.value, KeptValue):  # it went wrong here
            payload = pack([outcome.value])
            outcome = outcome._replace(value=KeptValue(payload, 0, payload.nbytes))
        kept: KeptValue = outcome.value
        nbytes = PIECE_BYTES + sum(map(size_bytes, outcome.chunks))
        stored_bytes = 0
        if isinstance(kept.values, Payload):
            nbytes += kept.nbytes
        else:
            stored_bytes = kept.nbytes
        piece = ran._replace(value=outcome), engine_id
        return self._add(call, piece, ran.start, ran.stop, nbytes, stored_bytes, failed=ran.status is not Status.OK)

    def give_up(self, call: TaskCall, effect: GiveUp) -> bool:
        """See ``Delivery``."""
        return self._add(call, effect, effect.span.start, effect.span.stop, PIECE_BYTES, failed=True)

    def settle(self, call: TaskCall) -> None:
        """See ``Delivery``."""
        with self._lock:
            self._kept.end(call.request_id.seq, time.time())
        call.settle(None, None)

    def _add(
        self,
        call: TaskCall,
        piece: Piece,
        start: int,
        stop: int,
        nbytes: int,
        stored_bytes: int = 0,
        *,
        failed: bool,
    ) -> bool:
        with self._lock:
            self._kept.add(call.request_id.seq, piece, nbytes, stored_bytes, failed=failed)
        self._changed()
        if not isinstance(call, MapCall):
            return True
        call.left -= stop - start
        return call.left == 0

    def _put(self, payload: Payload) -> Payload | StoredObject:
        """A payload that is nobody else's: what came from the engine is mapped here for as long as it is looked at."""
        if payload.refs or payload.nbytes > INLINE_LIMIT_BYTES:
            return self._transport.keep(payload)
        return Payload(bytes(payload.data), tuple(bytes(buffer) for buffer in payload.buffers))
