"""What a client does as the scheduler of its tasks says, on one thread."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from nsactors.client.tasks.asking import Asker
from nsactors.client.tasks.delivery import Delivery, failed
from nsactors.client.tasks.jobs import Job
from nsactors.core.messages import RequestId, RunTasks
from nsactors.core.payload import Payload, pack, unpack
from nsactors.core.scheduling import (
    AbortRequested,
    Alarm,
    Deliver,
    Dispatch,
    Effect,
    Event,
    GiveUp,
    Interrupt,
    Peek,
    Ran,
    Replied,
    Retry,
    Scheduler,
    Span,
    TakeBack,
    TakenBack,
    TaskId,
    TaskState,
)
from nsactors.core.tasks import Part, write_parts
from nsactors.errors import EngineLost, TaskAborted
from nsactors.results import Call, MapCall, TaskCall, Terms

if TYPE_CHECKING:
    from nsactors.client.session import Session

__all__ = ["Driver", "TaskStatus"]

FUNCTIONS = 32  # of maps, for each engine
CARRIER = Terms(journalled=False, carries_tasks=True)


class TaskStatus(NamedTuple):
    """A task that has not ended, or a detached one of which results are kept.

    Attributes:
        msg_id: its id, as its result has it.
        label: what people call it.
        state: waiting for other tasks, ready, stranded (no engine that there is may run it), assigned to engines,
            succeeded or failed.
        engines: the ids of those that have some of it; when it has ended, of those that ran it.
        items_left: how many of its items have not ended.
        submitted: when, in seconds since the epoch.
        started: when the first of its items began that have ended, on the clock of its engine; None if that is not
            known.
        ended: when it ended; None if it has not.
        detached: whether it outlives its client.
    """

    msg_id: str
    label: str
    state: TaskState
    engines: tuple[int, ...]
    items_left: int
    submitted: float
    started: float | None = None
    ended: float | None = None
    detached: bool = False


@dataclass(frozen=True, slots=True)
class _Batch:
    """What has been sent to an engine in one message."""

    dispatch: Dispatch
    copy: bool
    unsendable: tuple[Ran, ...]


class Driver:
    """Tells the scheduler what happens, and does what it says. All methods are called on one thread.

    Args:
        session: the conversation with the cluster.
        delivery: what becomes of results.
        later: has a function called on that thread soon; itself it may be called on any.
    """

    def __init__(self, session: Session, delivery: Delivery, later: Callable[[Callable[[], object]], object]) -> None:
        self._session = session
        self._delivery = delivery
        self._later = later
        self._scheduler = Scheduler()
        self._asker = Asker(session.transport, session.name)
        self._jobs: dict[TaskId, Job] = {}
        self._batches: dict[int, _Batch] = {}
        # That an engine has, as far as is known: it tells which it misses.
        self._functions: defaultdict[int, deque[int]] = defaultdict(lambda: deque(maxlen=FUNCTIONS))
        self._interrupting: set[TaskId] = set()
        self.alarm: float | None = None

    @property
    def calls(self) -> list[TaskCall]:
        """Of the tasks that have not ended, in the order of submission."""
        return [job.call for job in self._jobs.values()]

    def add_job(self, job: Job) -> None:
        """This is what a task consists of that the scheduler will be told of."""
        self._jobs[job.call.request_id.seq] = job

    def forget_functions(self, engine_id: int) -> None:
        """An engine has another process, which has none of the functions of maps."""
        self._functions.pop(engine_id, None)

    def tell(self, event: Event) -> None:
        """Something has happened."""
        for effect in self._scheduler.handle(event):
            self._carry_out(effect)

    def abort(self, numbers: frozenset[int], interrupt: bool, settled: threading.Event) -> None:
        """Take tasks back; ``settled`` is set when all that has not begun has ended."""
        if interrupt:
            self._interrupting |= numbers & self._jobs.keys()
        effects = self._scheduler.handle(AbortRequested(numbers, time.monotonic()))
        asked = [effect for effect in effects if isinstance(effect, TakeBack)]
        interrupts = {effect.batch_id: effect for effect in effects if isinstance(effect, Interrupt)}
        if not asked:
            settled.set()
        latch = itertools.count(1)

        def answered(batch_id: int, spans: tuple[Span, ...]) -> None:
            # Only now: what begins between an interrupt and the question would go on undisturbed.
            if batch_id in interrupts:
                self._later(partial(self._carry_out, interrupts[batch_id]))
            self._note_taken_back(batch_id, spans)
            if next(latch) == len(asked):
                self._later(settled.set)

        for effect in effects:
            if isinstance(effect, TakeBack):
                self._asker.take_back(effect, partial(answered, effect.batch_id), hurry=True)
            elif not isinstance(effect, Interrupt):
                self._carry_out(effect)

    def statuses(self) -> list[TaskStatus]:
        """What is known of the tasks that have not ended, in the order of submission."""
        statuses = []
        for info in self._scheduler.tasks():
            call = self._jobs[info.task_id].call
            statuses.append(
                TaskStatus(
                    str(call.request_id), call.label, info.state, info.engine_ids, info.items_left, call.submitted
                )
            )
        return statuses

    def assigned(self, engine_ids: Iterable[int]) -> tuple[int, dict[int, int]]:
        """How many items wait for an engine, and how many each engine has."""
        return self._scheduler.unassigned, {i: self._scheduler.assigned(i) for i in engine_ids}

    def give_up(self, reason: Exception) -> None:
        """Fail all tasks that have not ended."""
        for call in self.calls:
            call.settle(None, reason)
        self._jobs.clear()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Dispatch():
                self._dispatch(effect)
            case Deliver(engine_id, results):
                for ran in results:
                    call = self._jobs[ran.task_id].call
                    if self._delivery.deliver(call, ran, engine_id):
                        self._settle(call)
            case GiveUp(span):
                call = self._jobs[span.task_id].call
                if self._delivery.give_up(call, effect):
                    self._settle(call)
            case TakeBack(_, batch_id):
                self._asker.take_back(effect, partial(self._note_taken_back, batch_id))
            case Peek(_, batch_id):
                self._asker.peek(effect, partial(self._note_results, batch_id))
            case Interrupt(spans=spans):
                if any(span.task_id in self._interrupting for span in spans):
                    self._asker.interrupt(effect)
            case Retry(span, engine_id):
                self._jobs[span.task_id].call.tried_on += (engine_id,)
            case Alarm(at):
                self.alarm = at

    def _dispatch(self, dispatch: Dispatch) -> None:
        engine_id = dispatch.engine_id
        ref_types = self._session.transport.ref_types
        parts: list[Part] = []
        lost: list[Ran] = []
        for span in dispatch.spans:
            job = self._jobs[span.task_id]
            known = self._functions[engine_id]
            new = job.function is not None and job.function.number not in known
            sendable, unsendable = job.parts(span, with_function=new, ref_types=ref_types)
            if new and sendable and job.function is not None:
                known.append(job.function.number)
            if not isinstance(job.call, MapCall):
                job.call.engine_id = engine_id
            parts += sendable
            lost += [failed(item.span, item.error) for item in unsendable]
        copy = any(part.copy for part in parts)
        self._batches[dispatch.batch_id] = _Batch(dispatch, copy, tuple(lost))
        if not parts:
            self._later(partial(self._reply, dispatch.batch_id, lost))
            return
        label = parts[0].label if len(parts) == 1 else f"{len(parts)} tasks: {parts[0].label} ..."
        operation = RunTasks(label, dispatch.batch_id, dispatch.budget_s)
        payload = pack(write_parts(parts), what="tasks", ref_types=ref_types)
        try:
            (call,) = self._session.submit([engine_id], operation, payload, CARRIER)
        except Exception as error:  # an object store that is full, a cluster that has gone: these tasks must hear of it
            self._later(partial(self._reply, dispatch.batch_id, [failed(s, error) for s in dispatch.spans]))
            return
        call.when_settled(partial(self._note_answer, dispatch.batch_id))

    def _note_answer(self, batch_id: int, call: Call) -> None:
        self._later(partial(self._take_answer, batch_id, call))

    def _take_answer(self, batch_id: int, call: Call) -> None:
        """An engine has answered, or never will."""
        self._session.asked([call])
        batch = self._batches[batch_id]
        spans = batch.dispatch.spans
        match call.error:
            case None:
                results, missing = self._delivery.read(call, copy=batch.copy)
                for number in set(missing).intersection(self._functions[call.engine_id]):
                    self._functions[call.engine_id].remove(number)
                self._reply(batch_id, [*results, *batch.unsendable])
            case EngineLost():
                del self._batches[batch_id]  # the roster tells of its end
            case TaskAborted():
                self._reply(batch_id, [])  # taken along by a failure that stops what follows
            case error:
                self._reply(batch_id, [failed(span, error) for span in spans])

    def _note_results(self, batch_id: int, report: Payload) -> None:
        self._later(partial(self._take_results, batch_id, report))

    def _take_results(self, batch_id: int, report: Payload) -> None:
        """An engine has told some results of a batch, which it goes on with."""
        batch = self._batches.get(batch_id)
        if batch is None:
            return  # its reply was quicker
        so_far = Call(RequestId(self._session.name, 0), batch.dispatch.engine_id, "tasks", False, value=unpack(report))
        results, _ = self._delivery.read(so_far, copy=batch.copy)
        results.sort(key=lambda ran: (ran.task_id, ran.start))
        self.tell(Replied(batch_id, tuple(results), time.monotonic(), more=True))

    def _reply(self, batch_id: int, results: list[Ran]) -> None:
        del self._batches[batch_id]
        results.sort(key=lambda ran: (ran.task_id, ran.start))
        self.tell(Replied(batch_id, tuple(results), time.monotonic()))

    def _note_taken_back(self, batch_id: int, spans: tuple[Span, ...]) -> None:
        self._later(lambda: self.tell(TakenBack(batch_id, spans, time.monotonic())))

    def _settle(self, call: TaskCall) -> None:
        number = call.request_id.seq
        del self._jobs[number]
        self._interrupting.discard(number)
        self._delivery.settle(call)
