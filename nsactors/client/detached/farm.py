"""The scheduler of detached tasks, as a client sees it: in the place of a farm of its own."""

from __future__ import annotations

import contextlib
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from nsactors.client.detached.collecting import Collector
from nsactors.client.detached.messages import Description, Order, Progress, pack_columns
from nsactors.client.tasks import Job, MapFunction, TaskStatus
from nsactors.core.messages import RequestId
from nsactors.core.payload import Payload
from nsactors.core.scheduling import Task
from nsactors.core.tasks import nest
from nsactors.errors import ClientClosed, ConnectionLost, ResultUnavailable, SchedulerLost
from nsactors.results import NOWHERE, Call, MapCall, TaskCall
from nsactors.transport.residents import ResidentGone, ResidentLine

if TYPE_CHECKING:
    from nsactors.client.session import Session

__all__ = ["DetachedFarm", "is_detached"]

NAME = "tasks"
NUMBERS = 1_000  # asked for at a time
ANSWER_S = 30.0
CLOSE_S = 2.0
_NO_NUMBERS: deque[int] = deque(maxlen=0)  # what is forgotten when is the scheduler's to say


def is_detached(msg_id: str) -> bool:
    """Whether this is the id of a detached task."""
    return re.fullmatch(r"detached-[0-9a-f]{12}/tasks:\d+", msg_id) is not None


class DetachedFarm:
    """Submits tasks to the scheduler in the cluster, and collects what comes of them; see ``Farm``.

    The scheduler is started when it is needed.

    Args:
        session: the conversation with the cluster.
    """

    goes_on = True

    def __init__(self, session: Session) -> None:
        self.session = session
        self._lock = threading.RLock()
        self._sending = threading.Lock()
        self._line: ResidentLine | None = None
        self._name = ""
        self._numbers: deque[int] = deque()
        self._collector = Collector(session, self._collect, self._sending)

    @property
    def name(self) -> str:
        """What message ids of tasks begin with."""
        with self._lock:
            if not self._name:
                self._reserve()
            return self._name

    def new_call(self, label: str, *, copies: bool) -> TaskCall:
        """A call for a task that is to be submitted."""
        return _call_of(self._new_request(), label, copies)

    def new_map(self, label: str, size: int, *, copies: bool, joins: bool = False) -> MapCall:
        """A call for a map of so many items that is to be submitted."""
        return _map_of(self._new_request(), label, copies, size, joins)

    def next_number(self) -> int:
        """A number for a task, or for a function of a map."""
        with self._lock:
            if not self._numbers:
                self._reserve()
            return self._numbers.popleft()

    def map_function(self, payload: Payload, label: str, type_name: str) -> MapFunction:
        """A map's function. One that carries much is stored by the scheduler: it is to outlive this process."""
        return MapFunction(self.next_number(), payload)

    def submit(self, task: Task, job: Job, holds: object = None) -> None:
        """Submit a task. When this returns, it will be run, whatever becomes of this process.

        Args:
            task: the task.
            job: its content.
            holds: not used: the scheduler itself holds the tasks of which it keeps results.

        Raises:
            SerializationError: if the items of a map cannot be pickled, or read where they are scheduled.
            SchedulerLost: if that process has died.
            ConnectionLost: if there is no way to the cluster.
        """
        self.session.check()
        call, function = job.call, job.function
        order = Order(
            task,
            call.label,
            call.copies,
            isinstance(call, MapCall) and call.joins,
            call.submitted,
            job.limit_s,
            None if job.payload is None else nest(job.payload),
            None if function is None else (function.number, nest(function.payload)),
            None if function is None else pack_columns(job.columns, self.session.transport.ref_types),
        )
        with self._sending:
            self._ask("submit", self.session.name, order, what=call.label)
            self._collector.want([call])

    def open_calls(self) -> list[TaskCall]:
        """Tasks of which this client awaits the end, in the order in which it asked."""
        return self._collector.calls

    def statuses(self) -> list[TaskStatus]:
        """What is known of the detached tasks of all clients, in the order of submission."""
        statuses: list[TaskStatus] = self._look("statuses") or []
        return statuses

    def assigned(self) -> tuple[int, dict[int, int]]:
        """How many items of all clients wait for an engine, and how many each engine has."""
        assigned: tuple[int, dict[int, int]] = self._look("assigned") or (0, {})
        return assigned

    def calls_for(self, msg_ids: Iterable[str]) -> list[TaskCall]:
        """The calls that tasks of any client are, by their ids.

        Raises:
            ResultUnavailable: if nothing is known of one of them.
        """
        requests = _requests(msg_ids)
        with self._sending:
            known = self._describe(requests)
            for request in requests:
                if request not in known:
                    raise ResultUnavailable(str(request), "no results of such a task are kept, or it never was")
            calls = {request: self._collector.find(request.seq) or _known(request, known[request]) for request in known}
            self._collector.want(call for r, call in calls.items() if self._collector.find(r.seq) is None)
        return [calls[request] for request in requests]

    def take_back(self, msg_ids: Iterable[str]) -> None:
        """Take back tasks of any client that have not started, by their ids; nothing happens to others."""
        requests = _requests(msg_ids)
        known = self._describe(requests)
        if known:
            self._ask("abort", frozenset(request.seq for request in known), False, what="abort()")

    def close(self) -> None:
        """Wait for nothing any more: calls that have not ended fail with ``ClientClosed``, and the tasks go on."""
        self._collector.give_up(lambda call: ClientClosed())
        if self._line is not None:
            with contextlib.suppress(ConnectionLost, ResidentGone):  # the cluster may be gone
                self._line.call("release", self.session.name, timeout_s=CLOSE_S)
        self._collector.join()

    def owns(self, call: Call) -> bool:
        """Whether a call is a detached task."""
        return is_detached(str(call.request_id))

    # As the owner of calls: see CallOwner.

    def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None:
        """Take back what has not started; with ``interrupt``, stop what has."""
        calls = list(calls)
        if numbers := frozenset(call.request_id.seq for call in calls if self.owns(call)):
            self._ask("abort", numbers, interrupt, what="abort()")
        if others := [call for call in calls if not self.owns(call)]:  # of results that have been joined
            self.session.abort(others, interrupt=interrupt)

    def interrupt(self, calls: Iterable[Call]) -> bool:
        """Nothing: they go on when who waits for them goes."""
        return False

    def restart(self, engine_ids: Iterable[int]) -> None:
        """End engines, whatever they are doing, and start new processes under their ids."""
        self.session.restart(set(engine_ids) - {NOWHERE})

    def call_back(self, function: Callable[[], object]) -> None:
        """Call a function of the user's soon, on a thread where it may wait."""
        self.session.call_back(function)

    def asked(self, calls: Iterable[Call]) -> None:
        """Somebody has seen how these calls ended."""
        self.session.asked(calls)

    # The way to the scheduler.

    def _new_request(self) -> RequestId:
        with self._lock:  # of one scheduler
            return RequestId(self.name, self.next_number())

    def _reserve(self) -> None:
        name, numbers = self._ask("reserve", NUMBERS, what="a task")
        self._name = name
        self._numbers.extend(numbers)

    def _describe(self, requests: list[RequestId]) -> dict[RequestId, Description]:
        line = self._line or self.session.transport.resident(NAME)
        if line is None:
            return {}
        self._line = line
        described: dict[RequestId, Description] = self._ask("describe", self.session.name, requests, what="a task")
        return described

    def _collect(self, wanted: dict[int, int], wait_s: float) -> dict[int, Progress]:
        news: dict[int, Progress] = self._ask(
            "collect", self.session.name, wanted, wait_s, what="a task", wait_s=wait_s
        )
        return news

    def _ask(self, method: str, *args: Any, what: str, wait_s: float = 0.0) -> Any:
        from nsactors.client.detached.scheduling import DetachedTasks  # which has a session itself

        with self._lock:
            if self._line is None:
                self._line = self.session.transport.resident(NAME, DetachedTasks)
        line = self._line
        assert line is not None, "it has been made"
        try:
            return line.call(method, *args, timeout_s=wait_s + ANSWER_S)
        except ResidentGone as gone:
            self._lose(line, str(gone))
            raise SchedulerLost(what, str(gone)) from None

    def _look(self, method: str) -> Any:
        """Ask the scheduler, if there is one; None if there is none, or not any more."""
        line = self.session.transport.resident(NAME)
        with contextlib.suppress(ResidentGone):
            return None if line is None else line.call(method, timeout_s=ANSWER_S)
        return None

    def _lose(self, line: ResidentLine, reason: str) -> None:
        """The scheduler has died, and all that it kept has gone with it; the next task starts another one."""
        self.session.check()
        self.session.transport.controller.clients()  # which fails if the whole cluster has gone, and that explains it
        with self._lock:
            if self._line is line:
                self._line, self._name = None, ""
                self._numbers.clear()
        self._collector.give_up(lambda call: SchedulerLost(call.label, reason))


def _requests(msg_ids: Iterable[str]) -> list[RequestId]:
    return [RequestId(owner, int(number)) for owner, _, number in (msg_id.rpartition(":") for msg_id in msg_ids)]


def _call_of(request: RequestId, label: str, copies: bool) -> TaskCall:
    return TaskCall(request, NOWHERE, label, False, copies, dropped=_NO_NUMBERS)


def _map_of(request: RequestId, label: str, copies: bool, size: int, joins: bool) -> MapCall:
    return MapCall(request, NOWHERE, label, False, copies, dropped=_NO_NUMBERS, size=size, left=size, joins=joins)


def _known(request: RequestId, description: Description) -> TaskCall:
    label, size, copies, joins, submitted = description
    call = _call_of(request, label, copies) if size is None else _map_of(request, label, copies, size, joins)
    call.submitted = submitted
    return call
