"""The interface by which views submit tasks, and a client's own scheduler on a thread of its process.

Other threads put commands into a queue and go on. The commands submit tasks, take an engine's reply, or report that
engines join or leave. The scheduler's thread takes the commands in order, passes events to the scheduler state, and
carries out the effects. It never waits for an engine.
"""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeVar

from nsactors.errors import ClientClosed, ClusterUnreachable, ConnectionLost, SchedulerLost
from nsactors.errors.reporting import print_traceback
from nsactors.protocol.control import EngineLeft, HistoryEntry
from nsactors.protocol.engine_info import EngineInfo
from nsactors.protocol.messages import Capability, RequestId
from nsactors.protocol.serialize import Payload
from nsactors.results import NOWHERE, Call, MapCall, TaskCall
from nsactors.tasks.driver import REPLY_S, Driver
from nsactors.tasks.messages import Engine, EngineAdded, EngineClosing, EngineRemoved, Release, TaskStatus, Tick
from nsactors.tasks.results import Delivery, MapFunction, TaskSpec, ToCaller

if TYPE_CHECKING:
    from nsactors.session.session import Session

STATUS_S = 5.0
FORGOTTEN_AT_ONCE = 100
FAILURES, FAILURES_S = 5, 10.0  # after this number of failures of drivers in this time, no other driver is started

T = TypeVar("T")

_Command = Callable[[], object]


class SchedulerClient(ABC):
    """The submitting side of a scheduler, and the ``CallController`` of its tasks.

    Methods may be called on any thread.

    Args:
        session: the connection to the cluster.
        dropped: collects the numbers of tasks whose calls have been collected as garbage.
    """

    detached: ClassVar[bool]
    """True if tasks go on when their client is closed, or when a wait for them is interrupted."""

    def __init__(self, session: Session, dropped: deque[int]) -> None:
        self.session = session
        self._dropped = dropped
        self.check_process = session.check_process
        self.run_callback = session.run_callback
        self.mark_retrieved = session.mark_retrieved

    @property
    @abstractmethod
    def name(self) -> str:
        """The name with which the ids of its tasks begin."""

    @abstractmethod
    def next_number(self) -> int:
        """Return a new number for a task, or for a function of a map."""

    @abstractmethod
    def map_function(self, payload: Payload, label: str, type_name: str) -> MapFunction:
        """Return the function of a map that is about to be submitted."""

    @abstractmethod
    def submit(self, plan: TaskPlan) -> None:
        """Submit a task.

        Raises:
            ClientClosed: if the client has been closed.
            ConnectionLost: if the cluster cannot be reached.
        """

    @abstractmethod
    def open_calls(self) -> list[TaskCall]:
        """Return the tasks whose end this client awaits, in the order in which it began to wait for them."""

    @abstractmethod
    def statuses(self) -> list[TaskStatus]:
        """Return the statuses of tasks, in the order of submission."""

    @abstractmethod
    def assigned(self) -> tuple[int, dict[int, int]]:
        """Count the items that wait for an engine, and those that each engine has."""

    @abstractmethod
    def close(self) -> None:
        """End the work for this client. Calls that have not ended fail with ``ClientClosed``."""

    @abstractmethod
    def owns(self, call: Call) -> bool:
        """Return whether a call is a task of this scheduler."""

    @abstractmethod
    def interrupt(self, calls: Iterable[Call]) -> bool:
        """See ``CallController``."""

    @abstractmethod
    def _abort(self, numbers: frozenset[int], *, interrupt: bool) -> None:
        """Cancel tasks; with ``interrupt``, interrupt those that run."""

    def new_call(self, label: str, *, copies: bool, request: RequestId | None = None) -> TaskCall:
        """Make a call for a task that is about to be submitted; ``request`` is the task's id if it already has one."""
        request = request or RequestId(self.name, self.next_number())
        return TaskCall(request, NOWHERE, label, False, copies, dropped=self._dropped)

    def new_map(
        self, label: str, size: int, *, copies: bool, joins: bool = False, request: RequestId | None = None
    ) -> MapCall:
        """Make a call for a map of ``size`` items that is about to be submitted; see :meth:`new_call`."""
        request = request or RequestId(self.name, self.next_number())
        return MapCall(request, NOWHERE, label, False, copies, dropped=self._dropped, size=size, left=size, joins=joins)

    def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None:
        """See ``CallController``.

        Raises:
            CapabilityError: if ``interrupt`` is true, tasks are running, and this transport cannot interrupt them.
        """
        self.check_process()
        calls = list(calls)
        if numbers := frozenset(call.request_id.seq for call in calls if self.owns(call)):
            self._abort(numbers, interrupt=interrupt)
        if others := [call for call in calls if not self.owns(call)]:  # a result may join tasks and other calls
            self.session.abort(others, interrupt=interrupt)
        if interrupt:
            self.session.require_interrupts(calls)

    def obstacles(self, calls: Iterable[Call]) -> dict[int, str]:
        """See ``CallController``. No reason is known: engines know only batches, and may run another task by now."""
        return {}

    @property
    def has_stops(self) -> bool:
        """See ``CallController``."""
        return self.session.has_stops

    def debug_stops(self, settle: Callable[[], object]) -> None:
        """See ``CallController``."""
        self.session.debug_stops(settle)

    def debug(self, calls: Iterable[Call]) -> None:
        """See ``CallController``."""
        self.session.debug(calls)

    def restart(self, engine_ids: Iterable[int]) -> None:
        """See ``CallController``."""
        self.session.restart(set(engine_ids) - {NOWHERE})


class TaskPlan(NamedTuple):
    """A task that is ready to be submitted.

    Attributes:
        scheduler: takes the task.
        spec: the task.
        holds: references to the tasks on which this one depends, so that they are not forgotten before the scheduler
            knows this one.
    """

    scheduler: SchedulerClient
    spec: TaskSpec
    holds: object = None

    @property
    def map_call(self) -> MapCall:
        """The call for a map."""
        assert isinstance(self.spec.call, MapCall), "it is a map"
        return self.spec.call

    def submit(self) -> None:
        """Submit the task; see :meth:`SchedulerClient.submit` for the errors. A map without items ends immediately."""
        self.scheduler.submit(self)  # submit even a map without items, because other tasks may depend on it
        if not self.spec.task.size:
            self.spec.call.settle([], None)


class TaskScheduler(SchedulerClient):
    """Finds engines for the tasks of all views of one client.

    Args:
        session: the connection to the cluster.
        delivery: takes outcomes; the default gives them to the calls that wait for them in this process.
    """

    detached = False

    def __init__(self, session: Session, delivery: Delivery | None = None) -> None:
        super().__init__(session, deque())
        self._name = f"{session.name}/tasks"
        self._numbering = threading.Lock()
        self._last_number = 0
        self._commands: SimpleQueue[TaskPlan | _Command] = SimpleQueue()
        self._taken: deque[list[TaskPlan] | _Command] = deque()
        self._delivery = delivery or ToCaller(session.unretrieved)
        self._driver = Driver(session, self._delivery, self._commands.put)
        self._incarnations: dict[int, int] = {}  # the incarnations of present and former engines
        self._failures: deque[float] = deque(maxlen=FAILURES)
        self._over: Exception | None = None
        self._has_ended = False
        self._ending = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="nsactors-tasks", daemon=True)
        session.directory.watch(self)
        self._thread.start()

    @property
    def name(self) -> str:
        """See :class:`SchedulerClient`."""
        return self._name

    def next_number(self) -> int:
        """See :class:`SchedulerClient`."""
        with self._numbering:
            self._last_number += 1
            return self._last_number

    def map_function(self, payload: Payload, label: str, type_name: str) -> MapFunction:
        """See :class:`SchedulerClient`. A large function is stored once, and not for each engine."""
        return MapFunction(self.next_number(), payload).stored_if_large(self.session.transport, label, type_name)

    def submit(self, plan: TaskPlan) -> None:
        """See :class:`SchedulerClient`."""
        self.session.check()
        self._commands.put(plan)
        if self._has_ended:
            self._refuse()

    def has_submitted(self, number: int) -> bool:
        """Return whether a task, or a function of a map, has had this number."""
        return 0 < number <= self._last_number

    def open_calls(self) -> list[TaskCall]:
        """See :class:`SchedulerClient`."""
        return self._ask(lambda: self._driver.calls)

    def statuses(self) -> list[TaskStatus]:
        """See :class:`SchedulerClient`: the statuses of the tasks that have not ended."""
        return self._ask(self._driver.statuses)

    def assigned(self) -> tuple[int, dict[int, int]]:
        """See :class:`SchedulerClient`."""
        return self._ask(lambda: self._driver.assigned(self.session.directory.ids))

    def close(self) -> None:
        """See :class:`SchedulerClient`."""
        self._commands.put(partial(self._end, ClientClosed()))
        if threading.current_thread() is not self._thread:
            self._thread.join(STATUS_S)

    def owns(self, call: Call) -> bool:
        """See :class:`SchedulerClient`."""
        return call.request_id.client == self._name

    def interrupt(self, calls: Iterable[Call]) -> bool:
        """See ``CallController``."""
        if Capability.SIGNALS not in self.session.transport.capabilities:
            return False
        self.abort(calls, interrupt=True)
        return True

    def restart(self, engine_ids: Iterable[int]) -> None:
        """See ``CallController``. A map has no engine of its own, so ``NOWHERE`` means all engines that have tasks."""
        ids = set(engine_ids)
        if NOWHERE in ids:
            ids.update(engine_id for status in self.statuses() for engine_id in status.engines)
        super().restart(ids)

    def _abort(self, numbers: frozenset[int], *, interrupt: bool) -> None:
        if not self._has_ended:
            settled = threading.Event()
            self._commands.put(lambda: self._driver.abort(numbers, interrupt, settled))
            settled.wait(2 * REPLY_S)

    # Methods that the engine directory and the session call, as this listens to both.

    def engine_joined(self, engine: EngineInfo) -> None:
        """EngineListener: an engine takes tasks."""
        self._commands.put(partial(self._add_engine, engine))

    def engine_leaving(self, engine_id: int) -> None:
        """EngineListener: an engine finishes its tasks, and takes no more."""
        self._commands.put(lambda: self._driver.dispatch(EngineClosing(engine_id, time.monotonic())))

    def engine_left(self, left: EngineLeft) -> None:
        """EngineListener: an engine takes no tasks any more."""
        self._commands.put(partial(self._remove_engine, left))

    def work_told(self, entries: Sequence[HistoryEntry], *, afresh: bool = False) -> None:
        """Session: engines have work of other clients. With ``afresh``, these entries replace all earlier ones."""
        self._commands.put(partial(self._learn, entries, afresh=afresh))

    def cut_off(self, reason: ConnectionLost) -> None:
        """EngineListener: the cluster has ended."""
        self._commands.put(partial(self._end, reason))

    # Methods that run on the scheduler's thread.

    def _run(self) -> None:
        while self._over is None:
            try:
                self._work()
            except BaseException as error:
                # No error of user code arrives here. The error is a fault of nsactors, and must not make other tasks
                # hang.
                print_traceback()
                self._start_again(error)
        self._has_ended = True
        self._refuse()

    def _work(self) -> None:
        with contextlib.suppress(ConnectionLost):  # the session catches up when the cluster is reached again
            self._learn(self.session.watch_work(self.work_told), afresh=True)
        while self._over is None:
            self._taken.extend(self._take_commands())
            while self._taken:
                taken = self._taken.popleft()  # removed before it is carried out, so that no error repeats it
                if isinstance(taken, list):
                    self._driver.submit([plan.spec for plan in taken])
                else:
                    taken()
            if len(self._dropped) > FORGOTTEN_AT_ONCE:
                gone = frozenset(self._dropped.popleft() for _ in range(len(self._dropped)))
                self._driver.dispatch(Release(gone, time.monotonic()))

    def _start_again(self, error: BaseException) -> None:
        """Replace a driver that has failed, because its records cannot be trusted any more.

        The tasks of the failed driver end with ``SchedulerLost``, and items that have not begun are stolen. Submissions
        that wait go to the new driver, and all engines are reported to it again.
        """
        reason = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else type(error).__name__
        failed = self._driver
        self._driver = Driver(self.session, self._delivery, self._commands.put, failed.close())
        failed.give_up(lambda call: SchedulerLost(call.label, reason, process=False))
        self._failures.append(time.monotonic())
        if len(self._failures) == FAILURES and self._failures[-1] - self._failures[0] < FAILURES_S:
            self._over = SchedulerLost("a task", f"{reason}, {FAILURES} times in a row", process=False)
            return
        self.session.directory.unwatch(self)
        self.session.directory.watch(self)

    def _take_commands(self) -> Iterable[list[TaskPlan] | _Command]:
        """Wait for a command, and take all that are queued. Consecutive submissions are joined into one."""
        taken: list[list[TaskPlan] | _Command] = []
        alarm = self._driver.alarm
        timeout_s = None if alarm is None else max(0.0, alarm - time.monotonic())
        try:
            command = self._commands.get(timeout=timeout_s)
            while True:
                if not isinstance(command, TaskPlan):
                    taken.append(command)
                elif taken and isinstance(taken[-1], list):
                    taken[-1].append(command)
                else:
                    taken.append([command])
                command = self._commands.get_nowait()
        except Empty:
            return taken or [self._driver.tick]

    def _add_engine(self, engine: EngineInfo) -> None:
        known = self._incarnations.get(engine.engine_id, engine.incarnation)
        self._incarnations[engine.engine_id] = engine.incarnation
        if engine.incarnation != known:  # for an engine's first process, the controller's entries stay valid
            self._driver.forget_functions(engine.engine_id)
            self._driver.engine_work.forget([engine.engine_id])
        is_new = engine.incarnation > 0 and engine.recovered is None
        offer = Engine(engine.engine_id, engine.resources, engine.labels, is_new)
        self._driver.dispatch(EngineAdded(offer, time.monotonic()))

    def _remove_engine(self, left: EngineLeft) -> None:
        self._driver.engine_work.forget([left.engine_id])
        self._driver.dispatch(EngineRemoved(left.engine_id, time.monotonic(), left.returns))

    def _learn(self, entries: Sequence[HistoryEntry], *, afresh: bool) -> None:
        self._driver.engine_work.learn(entries, afresh=afresh)
        self._driver.dispatch(Tick(time.monotonic()))

    def _ask(self, question: Callable[[], T]) -> T:
        """Call a function on the scheduler's thread and return its value."""
        self.check_process()
        answered = threading.Event()
        answers: list[T] = []

        def answer() -> None:
            answers.append(question())
            answered.set()

        self._commands.put(answer)
        if self._over is not None or not answered.wait(STATUS_S):
            self.session.check()
            raise ClusterUnreachable("the scheduler of tasks", f"no answer in {STATUS_S:g} s")
        return answers[0]

    def _end(self, reason: Exception) -> None:
        self._over = self._over or reason

    def _refuse(self) -> None:
        """Fail the tasks that have not ended, and those that were submitted after the end."""
        with self._ending:
            late: list[TaskPlan] = []
            with contextlib.suppress(Empty):
                while True:
                    command = self._commands.get_nowait()
                    if isinstance(command, TaskPlan):
                        late.append(command)
            for taken in self._taken:
                if isinstance(taken, list):
                    late += taken
            self._taken.clear()
            self._driver.give_up(lambda call: self._over or ClientClosed(), [plan.spec for plan in late])
