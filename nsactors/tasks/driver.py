"""The driver of a scheduler: carries out its decisions on engines.

A client knows its own requests, because it has sent them. The controller reports those requests of other clients that
take long. It learns of them from engines. It also learns of them from the clients that wait for the replies, because an
engine cannot report a request whose code holds the interpreter. Short requests cost no such messages.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from nsactors._frozen import frozen
from nsactors.errors import EngineLost, NsactorsError, TaskAborted, printable
from nsactors.membership.history import Occupancy
from nsactors.protocol.control import HistoryEntry, InterruptTasks, MeasureIdle, PeekTasks, StealTasks
from nsactors.protocol.messages import Capability, OutputChunk, RequestId, RunTasks, TaskMark
from nsactors.protocol.serialize import ObjectGone, Payload, pack, unpack
from nsactors.protocol.tasks import BatchPart, RangeOutcome, TaskId, TaskRange, write_parts
from nsactors.results import Call, MapCall, RequestOptions, TaskCall
from nsactors.results.outcome import error_here
from nsactors.tasks.messages import (
    AbortRequested,
    Alarm,
    Deliver,
    Effect,
    EngineBusy,
    EngineFree,
    EngineProgressed,
    Event,
    Fail,
    InterruptRanges,
    PeekBatch,
    PolicyFailed,
    Replied,
    Retry,
    SendBatch,
    Steal,
    Stolen,
    Submitted,
    TaskStatus,
    Tick,
)
from nsactors.tasks.results import Delivery, TaskSpec, failed
from nsactors.tasks.scheduler_state import SchedulerState
from nsactors.transport.base import Transport

if TYPE_CHECKING:
    from nsactors.session.session import Session

REPLY_S = 0.5  # an engine that does not reply for this time runs C code, and until that ends it begins nothing
UNHURRIED_S = 10.0  # the limit if no caller waits for the reply


class EngineQueries:
    """Queries to engines, each on a thread of its own, since an engine may be slow to reply.

    Args:
        transport: the connection to the controller.
        client: the name of the client that has sent the batches.
    """

    def __init__(self, transport: Transport, client: str) -> None:
        self._transport = transport
        self._client = client

    def steal(self, effect: Steal, then: Callable[[tuple[TaskRange, ...]], None], *, hurry: bool = False) -> None:
        """Steal the items that have not begun; call ``then`` with the stolen ranges, or none if there is no reply.

        If this reply is too late, only the reply to the batch shows which items were stolen. That may be hours later if
        an item takes hours. So this waits longer than a loaded machine needs, except in a ``hurry``.
        """
        key = (self._client, effect.batch_id)
        timeout_s = REPLY_S if hurry else UNHURRIED_S

        def send() -> None:
            given: tuple[TaskRange, ...] = ()
            try:
                query = StealTasks(((key, effect.spans),))
                replies = self._transport.controller.query([effect.engine_id], query, timeout_s)
                reply = replies.get(effect.engine_id)
                if reply is not None and reply.error is None:
                    given = reply.value[key]
            except NsactorsError:  # the controller cannot be reached; the reply to the batch will show what was stolen
                given = ()
            finally:
                then(given)

        self._start(send)

    def peek(self, effect: PeekBatch, then: Callable[[Payload], None]) -> None:
        """Query the results that a batch has so far; call ``then`` with them, if there are any.

        The results come through the controller, or through the object store if they are large.
        """
        batch = (self._client, effect.batch_id)

        def send() -> None:
            with contextlib.suppress(NsactorsError, ObjectGone):  # the batch's reply will bring the results
                replies = self._transport.controller.query([effect.engine_id], PeekTasks(batch), UNHURRIED_S)
                reply = replies.get(effect.engine_id)
                if reply is not None and reply.value is not None:
                    then(reply.value if isinstance(reply.value, Payload) else reply.value.load())

        self._start(send)

    def find_idle(self, engine_ids: list[int], then: Callable[[list[int]], None]) -> None:
        """Query which of these engines are idle; call ``then`` with the idle ones, if there are any."""

        def send() -> None:
            with contextlib.suppress(NsactorsError):  # the query will be repeated
                replies = self._transport.controller.query(engine_ids, MeasureIdle(), REPLY_S)
                if idle := [i for i, reply in replies.items() if reply.error is None and reply.value > 0]:
                    then(idle)

        if engine_ids:
            self._start(send)

    def interrupt(self, effect: InterruptRanges) -> None:
        """Interrupt an engine if it runs one of these items, unless engines cannot be interrupted."""
        if Capability.SIGNALS not in self._transport.capabilities:
            return
        command = InterruptTasks(self._client, effect.spans)

        def tell() -> None:
            try:
                self._transport.controller.command([effect.engine_id], command)
            except NsactorsError:  # the controller cannot be reached
                return

        self._start(tell)

    @staticmethod
    def _start(function: Callable[[], None]) -> None:
        threading.Thread(target=function, name="nsactors-asking", daemon=True).start()


class _OtherTask(NamedTuple):
    """Work of an engine that does not come from this scheduler, and whether the engine's batches wait for it."""

    text: str
    before: bool


class EngineWork:
    """Knows which engines are busy with other work. All methods are called on the scheduler's thread.

    Args:
        session: the connection to the cluster.
        later: calls a function soon on the scheduler's thread; may itself be called on any thread.
        dispatch: handles an event that comes from other work.
    """

    def __init__(
        self,
        session: Session,
        later: Callable[[Callable[[], object]], object],
        dispatch: Callable[[Callable[[float], Event]], object],
    ) -> None:
        self._session = session
        self._later = later
        self._dispatch = dispatch
        self._others = Occupancy()
        self._told: dict[int, _OtherTask] = {}
        self._awaited: set[int] = set()
        self._lacking: dict[
            int, int
        ] = {}  # engines that lack names, with the number of requests sent to each when the lack became known

    @property
    def suspects(self) -> list[int]:
        """The engines that were reported as busy only with work of other clients; the reports may be out of date."""
        return [engine_id for engine_id in self._others.engine_ids if engine_id not in self._session.busy_engines]

    def changes(self, at: float, lacking: Iterable[int] = ()) -> Iterator[Event]:
        """Yield the events that the scheduler has not handled yet.

        Args:
            at: the time.
            lacking: engines that lack names which tasks need, in case a request has bound these names.
        """
        own, others, told = self._session.busy_engines, self._others.engine_ids, self._told
        if lacking or self._lacking:
            yield from self._refilled(at, list(lacking))
        if not (own or others or told):  # this is nearly always so
            return
        for engine_id in {*list(own), *others, *told}:
            work = self._work_of(engine_id)
            if work is None:
                if told.pop(engine_id, None) is not None:
                    yield EngineFree(engine_id, at)
            else:
                if told.get(engine_id) != work:
                    told[engine_id] = work
                    yield EngineBusy(engine_id, work.text, at, work.before)
                if engine_id in own and engine_id not in self._awaited:
                    self._awaited.add(engine_id)
                    self._session.when_passed(engine_id, partial(self._later, partial(self._passed, engine_id)))

    def _refilled(self, at: float, lacking: list[int]) -> Iterator[Event]:
        """Yield an event for each engine that has run other requests since it was found to lack names."""
        counts = {engine_id: self._session.other_requests(engine_id) for engine_id in lacking}
        before, self._lacking = self._lacking, counts
        for engine_id, count in counts.items():
            if before.get(engine_id, count) != count and self._work_of(engine_id) is None:
                self._told.pop(engine_id, None)
                yield EngineFree(engine_id, at)

    def learn(self, entries: Sequence[HistoryEntry], *, afresh: bool = False) -> None:
        """Take the controller's entries for requests of other clients; with ``afresh``, they replace earlier ones."""
        if afresh:
            self._others = Occupancy()
        changed = [entry for entry in entries if self._others.record(entry)]
        for engine_id in {entry.engine_id for entry in changed if entry.completed is not None}:
            if self._others.busy_with(engine_id) is not None:
                self._dispatch(partial(EngineProgressed, engine_id))

    def forget(self, engine_ids: Iterable[int]) -> None:
        """Forget work of other clients on engines that have new processes, or that are found to have no such work."""
        for engine_id in engine_ids:
            self._others.engine_gone(engine_id)

    def _passed(self, engine_id: int) -> None:
        """Update an engine that has replied to all requests of this client without tasks."""
        self._awaited.discard(engine_id)
        self._dispatch(Tick if self._work_of(engine_id) is None else partial(EngineProgressed, engine_id))

    def _work_of(self, engine_id: int) -> _OtherTask | None:
        own = self._session.other_work(engine_id) if engine_id in self._session.busy_engines else None
        if own is not None and own.is_first:
            return _OtherTask(f"{own.label} of client {self._session.name}", True)
        if (others := self._others.busy_with(engine_id)) is not None:
            return _OtherTask(f"{others.label} of client {others.request.client}", True)
        return None if own is None else _OtherTask(f"{own.label} of client {self._session.name}", False)


FUNCTIONS = 32  # functions of maps that are remembered for each engine
VERIFY_S = 1.0  # the time before the first query to engines that are reported as busy while tasks wait for them
VERIFY_MOST_S = 30.0  # if the engines are really busy, the time is doubled before each further query, up to this
CARRIER = RequestOptions(journalled=False, carries_tasks=True)


@frozen
class _Batch:
    """A batch that an engine has.

    Attributes:
        sent: the effect that has sent it.
        copy: whether arrays in its results are writable copies.
        failures: the outcomes of those of its items that could not be sent.
    """

    sent: SendBatch
    copy: bool
    failures: list[RangeOutcome]


class Driver:
    """Passes events to the scheduler state, and carries out the effects. All methods are called on one thread.

    Args:
        session: the connection to the cluster.
        delivery: takes outcomes.
        put: puts a command into the queue of that thread; may itself be called on any thread.
        last_batch: the number of the last batch that this client has sent to engines.
    """

    def __init__(
        self, session: Session, delivery: Delivery, put: Callable[[Callable[[], object]], object], last_batch: int = 0
    ) -> None:
        self._session = session
        self._delivery = delivery
        self._put = put
        self._is_closed = False
        self._state = SchedulerState(last_batch=last_batch)
        self._queries = EngineQueries(session.transport, session.name)
        self._specs: dict[TaskId, TaskSpec] = {}
        self._batches: dict[int, _Batch] = {}
        # The functions that each engine probably has. If an engine lacks some of them, its replies name these.
        self._functions: defaultdict[int, deque[int]] = defaultdict(lambda: deque(maxlen=FUNCTIONS))
        self._interrupting: set[TaskId] = set()
        self._alarm: float | None = None
        self._verify_at: float | None = None
        self._verify_s = VERIFY_S
        self.engine_work = EngineWork(session, self._later, self._dispatch_now)

    @property
    def alarm(self) -> float | None:
        """The time at which to call :meth:`tick`; None if there is no such time."""
        if self._alarm is None or self._verify_at is None:
            return self._verify_at if self._alarm is None else self._alarm
        return min(self._alarm, self._verify_at)

    def tick(self) -> None:
        """Carry out the actions that are due by now."""
        now = time.monotonic()
        if self._verify_at is not None and now >= self._verify_at:
            self._verify_at = None
            self._verify_s = min(2 * self._verify_s, VERIFY_MOST_S)
            self._queries.find_idle(self.engine_work.suspects, partial(self._later, self._take_idle))
        if self._alarm is not None and now >= self._alarm:
            self._alarm = None
        self.dispatch(Tick(now))

    @property
    def calls(self) -> list[TaskCall]:
        """The calls of the tasks that have not ended, in the order of submission."""
        return [spec.call for spec in self._specs.values()]

    def submit(self, specs: Sequence[TaskSpec]) -> None:
        """Submit tasks to the scheduler."""
        tasks = []
        for spec in specs:
            if spec.task.size:
                self._specs[spec.task.task_id] = spec
            else:  # no effect will end a map without items
                self._delivery.settle(spec.call)
            tasks.append(spec.task)
        self.dispatch(Submitted(tuple(tasks), time.monotonic()))

    def forget_functions(self, engine_id: int) -> None:
        """Forget which functions of maps an engine has, because it has a new process."""
        self._functions.pop(engine_id, None)

    def dispatch(self, event: Event) -> None:
        """Let the scheduler state handle an event, and carry out the effects."""
        for news in list(self.engine_work.changes(event.at, self._state.lacking)):
            self._carry_out(self._state.handle(news))
        self._carry_out(self._state.handle(event))
        if not self._state.unassigned:
            self._verify_s = VERIFY_S
        elif self._verify_at is None and self.engine_work.suspects:
            self._verify_at = event.at + self._verify_s

    def _dispatch_now(self, event_at: Callable[[float], Event]) -> None:
        self.dispatch(event_at(time.monotonic()))

    def _later(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function soon on the scheduler's thread; may be called on any thread."""
        self._put(partial(self._unless_closed, function, *args))

    def _unless_closed(self, function: Callable[..., object], *args: Any) -> None:
        if not self._is_closed:  # otherwise another driver has replaced this one
            function(*args)

    def abort(self, numbers: frozenset[int], interrupt: bool, settled: threading.Event) -> None:
        """Cancel tasks; set ``settled`` when those of their items that have not begun have ended."""
        if interrupt:
            self._interrupting |= numbers & self._specs.keys()
        effects = self._state.handle(AbortRequested(numbers, time.monotonic()))
        asked = [effect for effect in effects if isinstance(effect, Steal)]
        interrupts = {effect.batch_id: effect for effect in effects if isinstance(effect, InterruptRanges)}
        if not asked:
            settled.set()
        latch = itertools.count(1)

        def answered(batch_id: int, spans: tuple[TaskRange, ...]) -> None:
            # Interrupt only after the query: otherwise items that begin after the interrupt and before the query would
            # go on.
            if batch_id in interrupts:
                self._later(self._carry_out, [interrupts[batch_id]])
            self._later(self._take_stolen, batch_id, spans)
            if next(latch) == len(asked):
                self._later(settled.set)

        for effect in effects:
            if isinstance(effect, Steal):
                self._queries.steal(effect, partial(answered, effect.batch_id), hurry=True)
            elif not isinstance(effect, InterruptRanges):
                self._carry_out([effect])

    def statuses(self) -> list[TaskStatus]:
        """Return the statuses of the tasks that have not ended, in the order of submission."""
        statuses = []
        for task_id, status in self._state.statuses().items():
            call = self._specs[task_id].call
            statuses.append(status._replace(msg_id=str(call.request_id), label=call.label, submitted=call.submitted))
        return statuses

    def assigned(self, engine_ids: Iterable[int]) -> tuple[int, dict[int, int]]:
        """Count the items that wait for an engine, and those that each engine has."""
        return self._state.unassigned, {i: self._state.assigned(i) for i in engine_ids}

    def give_up(self, reason_for: Callable[[TaskCall], Exception], late: Iterable[TaskSpec] = ()) -> None:
        """Fail all tasks that have not ended, and the ``late`` tasks, which the scheduler does not know yet."""
        for call in [*self.calls, *(spec.call for spec in late)]:
            self._delivery.fail(call, reason_for(call))
        self._specs.clear()

    def close(self) -> int:
        """Steal all items that engines have not begun, and forget the others; return the number of the last batch."""
        self._is_closed = True
        for batch_id, batch in self._batches.items():
            self._queries.steal(Steal(batch.sent.engine_id, batch_id, batch.sent.spans), _ignore)
        return self._state.last_batch

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendBatch():
                    self._send_batch(effect)
                case Deliver(engine_id, outcomes):
                    for outcome in outcomes:
                        self._deliver(outcome, engine_id)
                case Fail(span):
                    call = self._specs[span.task_id].call
                    if self._delivery.give_up(call, effect):
                        self._settle(call)
                case Steal(_, batch_id):
                    self._queries.steal(effect, partial(self._later, self._take_stolen, batch_id))
                case PeekBatch(_, batch_id):
                    self._queries.peek(effect, partial(self._later, self._take_early, batch_id))
                case InterruptRanges(spans=spans):
                    if any(span.task_id in self._interrupting for span in spans):
                        self._queries.interrupt(effect)
                case Retry(span, engine_id):
                    self._specs[span.task_id].call.tried_on += (engine_id,)
                case Alarm(at):
                    self._alarm = at
                case PolicyFailed(reason):
                    print(f"nsactors: {printable(reason)}. Tasks go on in the usual order.", file=sys.stderr)

    def _deliver(self, outcome: RangeOutcome, engine_id: int) -> None:
        call = self._specs[outcome.task_id].call
        try:
            has_ended = self._delivery.deliver(call, outcome, engine_id)
        except BaseException as raised:  # the user's class may raise anything when its error is made here
            error = error_here(raised, call.label, engine_id)
            has_ended = self._delivery.deliver(call, failed(outcome.span, error), engine_id)
        if has_ended:
            self._settle(call)

    def _task_of(self, task_id: TaskId) -> TaskCall | None:
        spec = self._specs.get(task_id)
        return None if spec is None else spec.call

    def _send_batch(self, batch: SendBatch) -> None:
        engine_id, batch_id = batch.engine_id, batch.batch_id
        ref_types = self._session.ref_types
        functions = self._functions[engine_id]
        copy = False
        calls: list[TaskCall] = []
        parts: list[BatchPart] = []
        failures: list[RangeOutcome] = []
        for span in batch.spans:
            spec = self._specs[span.task_id]
            calls.append(spec.call)
            new = None if spec.function is None or spec.function.number in functions else spec.function.number
            sendable, unsendable = spec.parts(span, with_function=new is not None, ref_types=ref_types)
            if sendable:
                copy |= spec.call.copies
                if new is not None:
                    functions.append(new)
            if not isinstance(spec.call, MapCall):
                spec.call.engine_id = engine_id
            parts += sendable
            failures += unsendable
        self._batches[batch_id] = _Batch(batch, copy, failures)
        if not parts:
            self._later(self._end_batch, batch_id, failures)
            return
        label = parts[0].label if len(parts) == 1 else f"{len(parts)} tasks: {parts[0].label} ..."
        operation = RunTasks(label, batch_id, batch.budget_s)
        payload = pack(write_parts(parts), what="tasks", ref_types=ref_types)
        try:
            (call,) = self._session.submit([engine_id], operation, payload, CARRIER)
        except Exception as error:  # the object store is full, or the cluster has gone: these tasks must fail
            self._later(self._end_batch, batch_id, [failed(span, error) for span in batch.spans])
            return
        call.watch_output(_OutputOfTasks(self._delivery, calls))
        call.when_settled(partial(self._later, self._take_reply, batch_id))

    def _take_reply(self, batch_id: int, call: Call) -> None:
        """Take an engine's reply to a batch, or the error that came in place of a reply."""
        self._session.mark_retrieved([call])
        batch = self._batches[batch_id]
        match call.error:
            case None:
                outcomes, missing = self._delivery.read(call, self._task_of, copy=batch.copy)
                for number in set(missing).intersection(self._functions[call.engine_id]):
                    self._functions[call.engine_id].remove(number)
                self._end_batch(batch_id, [*outcomes, *batch.failures])
            case EngineLost():
                del self._batches[batch_id]  # the engine directory reports the engine's end
            case TaskAborted():
                self._end_batch(batch_id, [])  # an earlier request has failed, and has stopped the requests behind it
            case error:
                self._end_batch(batch_id, [failed(span, error) for span in batch.sent.spans])

    def _end_batch(self, batch_id: int, outcomes: list[RangeOutcome]) -> None:
        del self._batches[batch_id]
        outcomes.sort(key=_BY_ITEM)
        self.dispatch(Replied(batch_id, tuple(outcomes), time.monotonic()))

    def _take_early(self, batch_id: int, report: Payload) -> None:
        """Take the outcomes so far of a batch that an engine is still running."""
        batch = self._batches.get(batch_id)
        if batch is None:
            return  # the reply to the batch has arrived before this report
        so_far = Call(RequestId(self._session.name, 0), batch.sent.engine_id, "tasks", False, value=unpack(report))
        outcomes, _ = self._delivery.read(so_far, self._task_of, copy=batch.copy)
        outcomes.sort(key=_BY_ITEM)
        self.dispatch(Replied(batch_id, tuple(outcomes), time.monotonic(), more=True))

    def _take_stolen(self, batch_id: int, spans: tuple[TaskRange, ...]) -> None:
        self.dispatch(Stolen(batch_id, spans, time.monotonic()))

    def _take_idle(self, engine_ids: list[int]) -> None:
        """Mark engines as idle that were reported as busy."""
        self.engine_work.forget(engine_ids)
        self.dispatch(Tick(time.monotonic()))

    def _settle(self, call: TaskCall) -> None:
        number = call.request_id.seq
        del self._specs[number]
        self._interrupting.discard(number)
        try:
            self._delivery.settle(call)
        except BaseException as error:  # the user's class may raise anything, as above
            self._delivery.fail(call, error_here(error, call.label, call.engine_id))


_BY_ITEM = itemgetter(0, 1)  # the task and the first item of an outcome


class _OutputOfTasks:
    """Passes the output of a batch on to its tasks when the output arrives.

    Args:
        delivery: takes the output.
        calls: the tasks.
    """

    def __init__(self, delivery: Delivery, calls: Sequence[TaskCall]) -> None:
        self._delivery = delivery
        self._calls = calls
        self._call = calls[0]  # the task that wrote the latest output

    def __call__(self, batch: Call, chunks: Sequence[OutputChunk]) -> None:
        start = 0
        for index, chunk in enumerate(chunks):
            if isinstance(chunk, TaskMark):
                self._hand_on(batch, chunks[start:index])
                self._call = next(call for call in self._calls if call.request_id.seq == chunk.task_id)
                start = index + 1
        self._hand_on(batch, chunks[start:])

    def _hand_on(self, batch: Call, chunks: Sequence[OutputChunk]) -> None:
        if chunks:
            self._delivery.take_output(self._call, batch, chunks)


def _ignore(spans: tuple[TaskRange, ...]) -> None:
    """Drop the stolen items of a batch, because their tasks have ended."""
