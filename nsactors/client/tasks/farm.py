"""A client's tasks: a thread that drives their scheduler.

Whoever submits tasks, brings an answer of an engine or hears of engines that come and go leaves a note and goes on.
The thread takes the notes in order, tells the scheduler, and does what that says. It never waits for an engine.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from nsactors.client.tasks.asking import ANSWER_S
from nsactors.client.tasks.delivery import Delivery, ToCaller
from nsactors.client.tasks.driving import Driver, TaskStatus
from nsactors.client.tasks.jobs import Job, MapFunction
from nsactors.core.cluster import EngineInfo, EngineLeft
from nsactors.core.messages import Capability, RequestId
from nsactors.core.payload import Payload
from nsactors.core.scheduling import Engine, EngineAdded, EngineClosing, EngineRemoved, Forgotten, Submitted, Task, Tick
from nsactors.errors import ClientClosed, ClusterStopped, ClusterUnreachable
from nsactors.results import NOWHERE, Call, MapCall, TaskCall

if TYPE_CHECKING:
    from nsactors.client.session import Session

__all__ = ["Farm"]

STATUS_S = 5.0
FORGOTTEN_AT_ONCE = 100

T = TypeVar("T")

_Note = Callable[[], object]


class _Submission(NamedTuple):
    """A task on its way to the scheduler; ``holds`` what it depends on until then."""

    task: Task
    job: Job
    holds: object


class Farm:
    """Finds engines for the tasks of one client, whichever view they come from.

    Args:
        session: the conversation with the cluster.
        delivery: what becomes of results; the default gives them to who waits for them here.
    """

    goes_on = False

    def __init__(self, session: Session, delivery: Delivery | None = None) -> None:
        self.session = session
        self._numbers = itertools.count(1)
        self._notes: SimpleQueue[_Submission | _Note] = SimpleQueue()
        self._dropped: deque[int] = deque()
        self._driver = Driver(session, delivery or ToCaller(session.ledger), self._notes.put)
        self._over: Exception | None = None
        self._has_ended = False
        self._ending = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="nsactors-tasks", daemon=True)
        session.roster.watch(self)
        self._thread.start()

    # What others call, from any thread.

    @property
    def name(self) -> str:
        """What message ids of tasks begin with."""
        return f"{self.session.name}/tasks"

    def new_call(self, label: str, *, copies: bool, number: int | None = None) -> TaskCall:
        """A call for a task that is to be submitted; ``number`` is one that has been taken for it before."""
        request = RequestId(self.name, self.next_number() if number is None else number)
        return TaskCall(request, NOWHERE, label, False, copies, dropped=self._dropped)

    def new_map(
        self, label: str, size: int, *, copies: bool, joins: bool = False, number: int | None = None
    ) -> MapCall:
        """A call for a map of so many items that is to be submitted; see :meth:`new_call`."""
        request = RequestId(self.name, self.next_number() if number is None else number)
        return MapCall(request, NOWHERE, label, False, copies, dropped=self._dropped, size=size, left=size, joins=joins)

    def map_function(self, payload: Payload, label: str, type_name: str) -> MapFunction:
        """A map's function; one that carries much is stored once, not for each engine."""
        return MapFunction(self.next_number(), payload).stored_if_large(self.session.transport, label, type_name)

    def submit(self, task: Task, job: Job, holds: object = None) -> None:
        """Submit a task; its id is the number of the job's call.

        Args:
            task: the task.
            job: its content.
            holds: keeps the tasks that it depends on from being forgotten before this one is known.

        Raises:
            ClientClosed: if the client has been closed.
            ClusterStopped: if the cluster has been.
        """
        self.session.check()
        self._notes.put(_Submission(task, job, holds))
        if self._has_ended:
            self._refuse()

    def next_number(self) -> int:
        """A number for a function of a map."""
        return next(self._numbers)

    def open_calls(self) -> list[TaskCall]:
        """Tasks that have not ended, in the order of submission."""
        return self._ask(lambda: self._driver.calls)

    def statuses(self) -> list[TaskStatus]:
        """What is known of the tasks that have not ended, in the order of submission."""
        return self._ask(self._driver.statuses)

    def assigned(self) -> tuple[int, dict[int, int]]:
        """How many items wait for an engine, and how many each engine has."""
        return self._ask(partial(self._driver.assigned, self.session.roster.ids))

    def close(self) -> None:
        """End: tasks that have not ended fail with ``ClientClosed``."""
        self._notes.put(partial(self._end, ClientClosed()))
        if threading.current_thread() is not self._thread:
            self._thread.join(STATUS_S)

    def engine_joined(self, engine: EngineInfo) -> None:
        """Roster: an engine takes tasks."""
        self._notes.put(partial(self._add_engine, engine))

    def engine_leaving(self, engine_id: int) -> None:
        """Roster: an engine finishes what it has, and takes no more."""
        self._notes.put(lambda: self._driver.tell(EngineClosing(engine_id, time.monotonic())))

    def engine_left(self, left: EngineLeft) -> None:
        """Roster: an engine takes none any more."""
        self._notes.put(lambda: self._driver.tell(EngineRemoved(left.engine_id, time.monotonic(), left.returns)))

    def cut_off(self) -> None:
        """Roster: there is no cluster any more."""
        self._notes.put(partial(self._end, ClusterStopped()))

    def owns(self, call: Call) -> bool:
        """Whether a call is a task of this client's."""
        return call.request_id.client == self.name

    # As the owner of calls: see CallOwner.

    def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None:
        """Take back what has not started; with ``interrupt``, stop what has."""
        calls = list(calls)
        numbers = frozenset(call.request_id.seq for call in calls if self.owns(call))
        if numbers and not self._has_ended:
            settled = threading.Event()
            self._notes.put(partial(self._driver.abort, numbers, interrupt, settled))
            settled.wait(2 * ANSWER_S)
        if others := [call for call in calls if not self.owns(call)]:
            self.session.abort(others, interrupt=interrupt)

    def interrupt(self, calls: Iterable[Call]) -> bool:
        """Raise KeyboardInterrupt in the user code of those that run; False if this transport cannot."""
        if Capability.SIGNALS not in self.session.transport.capabilities:
            return False
        self.abort(calls, interrupt=True)
        return True

    def restart(self, engine_ids: Iterable[int]) -> None:
        """End engines, whatever they are doing, and start new processes under their ids.

        A map is nowhere in particular: if it is among those, all engines that have tasks are meant.
        """
        ids = set(engine_ids)
        if NOWHERE in ids:
            ids.remove(NOWHERE)
            ids.update(engine_id for status in self.statuses() for engine_id in status.engines)
        self.session.restart(ids)

    def call_back(self, function: Callable[[], object]) -> None:
        """Call a function of the user's soon, on a thread where it may wait."""
        self.session.call_back(function)

    def asked(self, calls: Iterable[Call]) -> None:
        """Somebody has seen how these calls ended."""
        self.session.asked(calls)

    # What the thread does.

    def _run(self) -> None:
        try:
            while self._over is None:
                for note in self._take_notes():
                    if isinstance(note, list):
                        self._enter(note)
                    else:
                        note()
                if len(self._dropped) > FORGOTTEN_AT_ONCE:
                    gone = frozenset(self._dropped.popleft() for _ in range(len(self._dropped)))
                    self._driver.tell(Forgotten(gone, time.monotonic()))
        except Exception as error:  # whoever waits for a task must hear that nobody sees to it any more
            self._over = error
            raise
        finally:
            self._has_ended = True
            self._refuse()

    def _take_notes(self) -> Iterable[list[_Submission] | _Note]:
        """All there is to do, submissions that follow each other in one; waits for the first."""
        notes: list[list[_Submission] | _Note] = []
        timeout_s = None if self._driver.alarm is None else max(0.0, self._driver.alarm - time.monotonic())
        try:
            note = self._notes.get(timeout=timeout_s)
            while True:
                if not isinstance(note, _Submission):
                    notes.append(note)
                elif notes and isinstance(notes[-1], list):
                    notes[-1].append(note)
                else:
                    notes.append([note])
                note = self._notes.get_nowait()
        except Empty:
            if not notes:
                notes.append(self._tick)
        return notes

    def _enter(self, submissions: Sequence[_Submission]) -> None:
        for submission in submissions:
            self._driver.add_job(submission.job)
        self._driver.tell(Submitted(tuple(submission.task for submission in submissions), time.monotonic()))

    def _tick(self) -> None:
        self._driver.alarm = None
        self._driver.tell(Tick(time.monotonic()))

    def _add_engine(self, engine: EngineInfo) -> None:
        self._driver.forget_functions(engine.engine_id)
        offer = Engine(engine.engine_id, engine.resources, engine.labels)
        self._driver.tell(EngineAdded(offer, time.monotonic()))

    def _ask(self, question: Callable[[], T]) -> T:
        """Answer a question on the thread that knows."""
        answered = threading.Event()
        answers: list[T] = []

        def answer() -> None:
            answers.append(question())
            answered.set()

        self._notes.put(answer)
        if self._over is not None or not answered.wait(STATUS_S):
            self.session.check()
            raise ClusterUnreachable("the scheduler of tasks", f"no answer in {STATUS_S:g} s")
        return answers[0]

    def _end(self, reason: Exception) -> None:
        self._over = self._over or reason

    def _refuse(self) -> None:
        """Fail what has not ended, and what was submitted too late."""
        with self._ending:
            while True:
                try:
                    note = self._notes.get_nowait()
                except Empty:
                    break
                if isinstance(note, _Submission):
                    self._driver.add_job(note.job)
            self._driver.give_up(self._over or ClientClosed())
