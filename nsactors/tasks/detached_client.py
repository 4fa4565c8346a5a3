"""The client's side of a detached scheduler."""

from __future__ import annotations

import contextlib
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsactors.errors import ClientClosed, ClusterUnreachable, ConnectionLost, ResultUnavailable, SchedulerLost
from nsactors.protocol.client_modules import ClientModules
from nsactors.protocol.messages import RequestId
from nsactors.protocol.salvage import Salvage
from nsactors.protocol.serialize import ObjectGone, Payload
from nsactors.protocol.tasks import RangeOutcome, RangeStatus
from nsactors.results import Call, MapCall, TaskCall
from nsactors.results.outcome import error_here
from nsactors.session.session import Schedulers
from nsactors.tasks.detached_results import Description, Piece, StoredValue, TaskProgress, TaskSubmission
from nsactors.tasks.messages import Fail, TaskStatus
from nsactors.tasks.results import MapFunction, ToCaller, take_apart
from nsactors.tasks.scheduler import SchedulerClient, TaskPlan, TaskScheduler
from nsactors.transport.base import NamedActorClient, NamedActorGone

if TYPE_CHECKING:
    from nsactors.session.session import Session

COLLECT_S = 10.0
AGAIN_S = 0.5
CLOSE_S = 2.0

Collect = Callable[[dict[int, int], float], dict[int, TaskProgress]]
"""Polls for pieces of tasks. The arguments are the number of pieces that each task already has, and seconds to wait."""


@dataclass(slots=True)
class _WantedTask:
    """A task that has more pieces to come, and the number of its pieces that have arrived."""

    call: TaskCall
    known: int = 0


class ResultPoller:
    """Polls for results, on a thread that exists only while results are awaited.

    Args:
        session: the connection to the cluster.
        collect: polls for results.
        sending: a lock that is held while a task is submitted and its call is added here.
    """

    def __init__(self, session: Session, collect: Collect, sending: threading.Lock) -> None:
        self._session = session
        self._collect = collect
        self._sending = sending
        self._delivery = ToCaller(session.unretrieved)
        self._lock = threading.Lock()
        self._wanted: dict[int, _WantedTask] = {}
        self._thread: threading.Thread | None = None

    @property
    def calls(self) -> list[TaskCall]:
        """The calls that have not ended, in the order in which they were added."""
        with self._lock:
            return [wanted.call for wanted in self._wanted.values()]

    def find(self, number: int) -> TaskCall | None:
        """Return the call for a task that has not ended; None if it is not awaited."""
        wanted = self._wanted.get(number)
        return None if wanted is None else wanted.call

    def want(self, calls: Iterable[TaskCall]) -> None:
        """Poll for the results of these calls."""
        with self._lock:
            self._wanted.update((call.request_id.seq, _WantedTask(call)) for call in calls)
            if self._wanted and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="nsactors-detached", daemon=True)
                self._thread.start()

    def give_up(self, error_of: Callable[[TaskCall], Exception]) -> None:
        """Fail all calls that have not ended."""
        for call in self.calls:
            self._end(call, error_of(call))

    def join(self) -> None:
        """Wait for the end of the thread, which comes when no result is awaited and the last poll has returned."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_S)

    def _run(self) -> None:
        while True:
            with self._sending, self._lock:
                wanted = {number: each.known for number, each in self._wanted.items()}
                if not wanted:
                    self._thread = None
                    return
            try:
                self._take(self._collect(wanted, COLLECT_S))
            except ClusterUnreachable:
                self._session.leaving.wait(AGAIN_S)  # the scheduler's machine is busy, or was suspended
            except BaseException as raised:  # after any error, no result will arrive, so the waiting calls must fail
                for call in self.calls:
                    error = raised if isinstance(raised, Exception) else error_here(raised, call.label, call.engine_id)
                    self._end(call, error)

    def _take(self, news: dict[int, TaskProgress]) -> None:
        opened: dict[bool, dict[int, Any]] = {False: {}, True: {}}  # unpickled lists, by whether arrays are copied
        for number, progress in news.items():
            wanted = self._wanted.get(number)
            if wanted is None:
                continue  # the call has been given up by now
            call = wanted.call
            if progress.lost is not None:
                self._end(call, ResultUnavailable(str(call.request_id), progress.lost))
                continue
            call.tried_on = progress.tried_on
            wanted.known += len(progress.pieces)
            for piece in progress.pieces:
                if self._deliver(call, piece, opened[call.copies]):
                    with self._lock:
                        self._wanted.pop(number, None)
                    self._delivery.settle(call)

    def _deliver(self, call: TaskCall, piece: Piece, opened: dict[int, Any]) -> bool:
        """Deliver the outcomes of some items of a task; return whether these were its last."""
        if isinstance(piece, Fail):
            return self._delivery.give_up(call, piece)
        outcome, engine_id = piece
        stored: StoredValue = outcome.value
        try:
            value = stored.load(opened, copy=call.copies)
        except ObjectGone as gone:
            parts = [_failed(outcome, ResultUnavailable(str(call.request_id), str(gone)))]
        except BaseException as error:
            parts = [_failed(outcome, error_here(error, call.label, engine_id))]
        else:
            if isinstance(value, Salvage):
                parts = take_apart(outcome, value, stored.place, call, engine_id)
            else:
                parts = [outcome._replace(value=value)]
        return [self._deliver_part(call, part, engine_id) for part in parts][-1]

    def _deliver_part(self, call: TaskCall, outcome: RangeOutcome, engine_id: int) -> bool:
        call.add_output(engine_id, None, outcome.output)
        try:
            return self._delivery.deliver(call, outcome, engine_id)
        except BaseException as raised:  # the user's class may raise anything when its error is made here
            error = error_here(raised, call.label, engine_id)
            return self._delivery.deliver(call, _failed(outcome, error), engine_id)

    def _end(self, call: TaskCall, error: Exception) -> None:
        with self._lock:
            self._wanted.pop(call.request_id.seq, None)
        self._delivery.fail(call, error)


def _failed(outcome: RangeOutcome, error: Exception) -> RangeOutcome:
    return outcome._replace(status=RangeStatus.FAILED, value=error)


NAME = "tasks"
NUMBERS = 1_000  # task numbers that are reserved at a time
ANSWER_S = 30.0


def is_detached(msg_id: str) -> bool:
    """Return whether this is the id of a detached task."""
    return re.fullmatch(r"detached-[0-9a-f]{12}/tasks:\d+", msg_id) is not None


class DetachedSchedulerClient(SchedulerClient):
    """Submits tasks to the scheduler in the cluster, and collects their outcomes.

    The scheduler is started when it is needed.

    Args:
        session: the connection to the cluster.
    """

    detached = True

    def __init__(self, session: Session) -> None:
        super().__init__(session, deque(maxlen=0))  # the scheduler decides when a task is forgotten
        self._lock = threading.RLock()
        self._sending = threading.Lock()
        self._line: NamedActorClient | None = None
        self._name = ""
        self._numbers: deque[int] = deque()
        self._modules_told: ClientModules | None = None
        self._poller = ResultPoller(session, self._collect, self._sending)

    @property
    def name(self) -> str:
        """See :class:`SchedulerClient`."""
        with self._lock:
            if not self._name:
                self._reserve()
            return self._name

    def next_number(self) -> int:
        """See :class:`SchedulerClient`."""
        with self._lock:
            if not self._numbers:
                self._reserve()
            return self._numbers.popleft()

    def new_call(self, label: str, *, copies: bool, request: RequestId | None = None) -> TaskCall:
        """See :class:`SchedulerClient`."""
        with self._lock:  # the name and the number must come from the same scheduler
            return super().new_call(label, copies=copies, request=request)

    def new_map(
        self, label: str, size: int, *, copies: bool, joins: bool = False, request: RequestId | None = None
    ) -> MapCall:
        """See :class:`SchedulerClient`."""
        with self._lock:
            return super().new_map(label, size, copies=copies, joins=joins, request=request)

    def map_function(self, payload: Payload, label: str, type_name: str) -> MapFunction:
        """See :class:`SchedulerClient`. The scheduler stores a large function, so that it outlives this process."""
        return MapFunction(self.next_number(), payload)

    def submit(self, plan: TaskPlan) -> None:
        """Submit a task. Once this has returned, the task will be run, even if this process ends.

        The tasks on which this one depends are not forgotten during the submission, because the scheduler holds the
        tasks whose results it keeps.

        Raises:
            SerializationError: if the items of a map cannot be pickled, or cannot be unpickled by the scheduler.
            SchedulerLost: if the scheduler's process has died.
            ConnectionLost: if the cluster cannot be reached.
        """
        self.session.check()
        call = plan.spec.call
        submission = TaskSubmission.of(plan.spec, self.session.ref_types)
        with self._sending:
            modules = self.session.modules_now()
            if modules is not self._modules_told:
                submission = submission._replace(modules=modules)
            self._ask("submit", self.session.name, submission, what=call.label)
            self._modules_told = modules
            if plan.spec.task.size:  # a map without items has ended already
                self._poller.want([call])

    def open_calls(self) -> list[TaskCall]:
        """See :class:`SchedulerClient`."""
        return self._poller.calls

    def statuses(self) -> list[TaskStatus]:
        """See :class:`SchedulerClient`: the statuses of the detached tasks of all clients."""
        statuses: list[TaskStatus] = self._look("statuses") or []
        return statuses

    def assigned(self) -> tuple[int, dict[int, int]]:
        """See :class:`SchedulerClient`: the items of all clients."""
        assigned: tuple[int, dict[int, int]] = self._look("assigned") or (0, {})
        return assigned

    def calls_for(self, msg_ids: Iterable[str]) -> list[TaskCall]:
        """Return the calls of tasks of any client, by their ids.

        Raises:
            ResultUnavailable: if the results of one of these tasks are not kept, or there was no such task.
        """
        requests = _requests(msg_ids)
        with self._sending:
            known = self._describe(requests)
            for request in requests:
                if request not in known:
                    raise ResultUnavailable(str(request), "its results are not kept, or there was no such task")
            calls = {r: self._poller.find(r.seq) or self._call_of(r, known[r]) for r in known}
            self._poller.want(call for r, call in calls.items() if not call.done and self._poller.find(r.seq) is None)
        return [calls[request] for request in requests]

    def cancel(self, msg_ids: Iterable[str]) -> None:
        """Cancel tasks of any client, by their ids; tasks that have begun go on."""
        requests = _requests(msg_ids)
        known = self._describe(requests)
        if known:
            self._ask("abort", frozenset(request.seq for request in known), False, what="abort()")

    def close(self) -> None:
        """See :class:`SchedulerClient`. The tasks go on."""
        self._poller.give_up(lambda call: ClientClosed())
        if self._line is not None:
            with contextlib.suppress(ConnectionLost, NamedActorGone):  # the cluster may be gone
                self._line.call("release", self.session.name, timeout_s=CLOSE_S)
        self._poller.join()

    def owns(self, call: Call) -> bool:
        """See :class:`SchedulerClient`."""
        return is_detached(str(call.request_id))

    def interrupt(self, calls: Iterable[Call]) -> bool:
        """See ``CallController``. Detached tasks go on when a wait for them ends."""
        return False

    def _abort(self, numbers: frozenset[int], *, interrupt: bool) -> None:
        self._ask("abort", numbers, interrupt, what="abort()")

    # The connection to the scheduler.

    def _reserve(self) -> None:
        name, numbers = self._ask("reserve", NUMBERS, what="a task")
        self._name = name
        self._numbers.extend(numbers)

    def _describe(self, requests: list[RequestId]) -> dict[RequestId, Description]:
        line = self._line or self.session.transport.named_actor(NAME)
        if line is None:
            return {}
        self._line = line
        described: dict[RequestId, Description] = self._ask("describe", self.session.name, requests, what="a task")
        return described

    def _call_of(self, request: RequestId, task: Description) -> TaskCall:
        if task.size is None:
            call = self.new_call(task.label, copies=task.copies, request=request)
        else:
            call = self.new_map(task.label, task.size, copies=task.copies, joins=task.joins, request=request)
        call.submitted = task.submitted
        if task.size == 0:
            call.settle([], None)
        return call

    def _collect(self, wanted: dict[int, int], wait_s: float) -> dict[int, TaskProgress]:
        news: dict[int, TaskProgress] = self._ask(
            "collect", self.session.name, wanted, wait_s, what="a task", wait_s=wait_s
        )
        return news

    def _ask(self, method: str, *args: Any, what: str, wait_s: float = 0.0) -> Any:
        from nsactors.tasks.detached_scheduler import DetachedTasks  # imported here: that module imports sessions

        with self._lock:
            if self._line is None:
                self._line = self.session.transport.named_actor(NAME, DetachedTasks)
        line = self._line
        assert line is not None, "it has been made"
        try:
            return line.call(method, *args, timeout_s=wait_s + ANSWER_S)
        except NamedActorGone as gone:
            self._lose(line, str(gone))
            raise SchedulerLost(what, str(gone)) from None

    def _look(self, method: str) -> Any:
        """Ask the scheduler; return None if there is none, or if it has died."""
        line = self.session.transport.named_actor(NAME)
        with contextlib.suppress(NamedActorGone):
            return None if line is None else line.call(method, timeout_s=ANSWER_S)
        return None

    def _lose(self, line: NamedActorClient, reason: str) -> None:
        """Give up a scheduler that has died, with all that it kept. The next task starts another scheduler."""
        self.session.check()
        self.session.controller.clients()  # if the whole cluster has gone, this raises an error that explains the loss
        with self._lock:
            if self._line is line:
                self._line, self._name, self._modules_told = None, "", None
                self._numbers.clear()
        self._poller.give_up(lambda call: SchedulerLost(call.label, reason))


def _requests(msg_ids: Iterable[str]) -> list[RequestId]:
    return [RequestId(owner, int(number)) for owner, _, number in (msg_id.rpartition(":") for msg_id in msg_ids)]


class TaskSchedulers(Schedulers):
    """A client's two schedulers, each made when it is needed.

    Args:
        session: the connection to the cluster.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._own: TaskScheduler | None = None
        self._detached: DetachedSchedulerClient | None = None
        self._lock = threading.Lock()

    @property
    def own(self) -> TaskScheduler:
        """The scheduler of tasks that end with the client."""
        with self._lock:
            if self._own is None:
                self._session.check()
                self._own = TaskScheduler(self._session)
            return self._own

    @property
    def detached(self) -> DetachedSchedulerClient:
        """The scheduler of tasks that outlive the client."""
        with self._lock:
            if self._detached is None:
                self._session.check()
                self._detached = DetachedSchedulerClient(self._session)
            return self._detached

    def has_submitted(self, request: RequestId) -> bool:
        """Return whether this is the id of a task of this client that is not detached."""
        task_scheduler = self._own
        return (
            task_scheduler is not None
            and request.client == task_scheduler.name
            and task_scheduler.has_submitted(request.seq)
        )

    def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None:
        """Cancel those of ``calls`` that are tasks and have not begun; with ``interrupt``, interrupt those that run."""
        calls = list(calls)
        for task_scheduler in self._made():
            if tasks := [call for call in calls if task_scheduler.owns(call)]:
                task_scheduler.abort(tasks, interrupt=interrupt)

    def interrupt(self, calls: Iterable[Call]) -> None:
        """Interrupt those of ``calls`` that are tasks of this client and not detached; detached tasks go on."""
        if self._own is not None and (tasks := [call for call in calls if self._own.owns(call)]):
            self._own.abort(tasks, interrupt=True)

    def open_calls(self) -> list[TaskCall]:
        """Return the tasks whose end the client awaits, in the order of submission; detached tasks come last."""
        return [call for task_scheduler in self._made() for call in task_scheduler.open_calls()]

    def assigned(self) -> tuple[int, dict[int, int]]:
        """Count the items that wait, and the items that each engine has: of this client, and of all detached tasks."""
        waiting, own = (0, {}) if self._own is None else self._own.assigned()
        more, detached = self.detached.assigned()
        return waiting + more, {i: own.get(i, 0) + detached.get(i, 0) for i in own.keys() | detached.keys()}

    def close(self) -> None:
        """End the work for this client: open calls fail with ``ClientClosed``, and detached tasks go on."""
        for task_scheduler in self._made():
            task_scheduler.close()

    def _made(self) -> list[SchedulerClient]:
        return [task_scheduler for task_scheduler in (self._own, self._detached) if task_scheduler is not None]
