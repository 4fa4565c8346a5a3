"""The scheduler of detached tasks, which is itself a client of the cluster.

This scheduler lives in a process of the cluster (see ``transport.base``). It takes the tasks of all clients, runs them
as a client runs its own tasks, and stores their results.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from nsactors.errors import ConnectionLost, SerializationError
from nsactors.namespace.module_versions import ModuleVersions
from nsactors.protocol.client_modules import ClientModules
from nsactors.protocol.control import EngineLeft
from nsactors.protocol.engine_info import EngineInfo
from nsactors.protocol.messages import Capability, RequestId
from nsactors.protocol.serialize import unpack
from nsactors.protocol.tasks import unnest
from nsactors.results import NOWHERE
from nsactors.session.session import Session
from nsactors.tasks.detached_results import (
    Description,
    ResultStore,
    StoredTask,
    TaskProgress,
    TaskSubmission,
)
from nsactors.tasks.messages import Fail, TaskState, TaskStatus
from nsactors.tasks.results import MapFunction, TaskSpec
from nsactors.tasks.scheduler import TaskPlan, TaskScheduler
from nsactors.transport.base import Transport

T = TypeVar("T")

REMEMBERED = 1_000  # the limit for clients that have left, and for clients whose modules are known
GATHER_S = 0.005  # results that arrive within this time are sent together


class DetachedTasks:
    """Takes and runs tasks, and returns their results to clients; a named actor of the cluster.

    Args:
        transport: the connection to the engines.
        end: called when the cluster is gone.
    """

    def __init__(self, transport: Transport, end: Callable[[], None]) -> None:
        self._transport = transport
        self._end = end
        self._task_scheduler: TaskScheduler | None = None
        self._opening = threading.Lock()
        self._submitting = threading.Lock()  # held while a task is in the store, but has not been submitted
        self._keeping = ResultStore(transport, self._changed)
        self._modules = _ModulesOfClients(transport)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._announcing = False
        self._called_back: set[str] = set()  # clients that must poll again
        self._released: deque[str] = deque(maxlen=REMEMBERED)

    async def reserve(self, count: int) -> tuple[str, range]:
        """Return the name with which the ids of a client's tasks must begin, and numbers for these tasks."""
        task_scheduler = await asyncio.to_thread(self._open)
        numbers = [task_scheduler.next_number() for _ in range(count)]
        return task_scheduler.name, range(numbers[0], numbers[-1] + 1)

    async def submit(self, client: str, order: TaskSubmission) -> None:
        """Take a task. Once this has returned, the task will be run, even if the client ends.

        Raises:
            SerializationError: if this process cannot unpickle the items of a map.
            SchedulerOverloaded: if the arguments of tasks that have not ended leave no room for more.
            ConnectionLost: if the cluster is ending.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._submit, client, order)
        self._call_back(client)

    async def collect(self, client: str, wanted: dict[int, int], wait_s: float) -> dict[int, TaskProgress]:
        """Return new results of tasks, by number.

        Args:
            client: the client that polls. If it submits a task during the poll, this returns, so that the client can
                poll for that task as well.
            wanted: how many pieces of each task the client has.
            wait_s: seconds to wait for a new result.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while client not in self._called_back and client not in self._released:
                    news = self._news
                    if found := self._keeping.progress(wanted):
                        return found
                    await news.wait()
                    await asyncio.sleep(GATHER_S)
        self._called_back.discard(client)
        return {}

    async def release(self, client: str) -> None:
        """Forget a client that has ended. Its polls return immediately, even polls that arrive later."""
        self._called_back.discard(client)
        self._released.append(client)
        self._announce()

    async def describe(self, client: str, requests: Iterable[RequestId]) -> dict[RequestId, Description]:
        """Return the descriptions of those of these tasks whose results are kept."""
        self._call_back(client)
        task_scheduler = await asyncio.to_thread(self._open)
        known = ((r, self._keeping.get(r.seq)) for r in requests if r.client == task_scheduler.name)
        return {request: Description.of(task) for request, task in known if task is not None}

    async def statuses(self) -> list[TaskStatus]:
        """Return the statuses of all tasks, in the order of submission."""
        task_scheduler = await asyncio.to_thread(self._open)
        running = {status.msg_id: status for status in await asyncio.to_thread(task_scheduler.statuses)}
        listed = []
        for task in self._keeping.tasks():
            msg_id = str(RequestId(task_scheduler.name, task.number))
            listed.append(_status(msg_id, task, running.get(msg_id)))
        return listed

    async def assigned(self) -> tuple[int, dict[int, int]]:
        """Count the items that wait for an engine, and the items that each engine has."""
        task_scheduler = await asyncio.to_thread(self._open)
        return await asyncio.to_thread(task_scheduler.assigned)

    async def abort(self, numbers: frozenset[int], interrupt: bool) -> None:
        """Cancel tasks that have not begun; with ``interrupt``, interrupt tasks that run."""
        calls = [task.call for number in numbers if (task := self._keeping.get(number)) is not None]
        task_scheduler = await asyncio.to_thread(self._open)

        def abort() -> None:
            with self._submitting:
                pass  # wait until the scheduler has the tasks, because it cannot abort a task that it gets later
            task_scheduler.abort(calls, interrupt=interrupt)

        await asyncio.to_thread(abort)

    # These methods are called on other threads, where they may wait.

    def _open(self) -> TaskScheduler:
        with self._opening:
            if self._task_scheduler is None:
                session = Session(self._transport, f"detached-{uuid.uuid4().hex[:12]}", self._modules)
                session.directory.watch(_EndListener(partial(self._leave, session)))
                self._task_scheduler = TaskScheduler(session, self._keeping)
            return self._task_scheduler

    def _submit(self, client: str, order: TaskSubmission) -> None:
        task_scheduler = self._open()
        self._modules.take(client, order.modules)
        request = RequestId(task_scheduler.name, int(str(order.task.task_id)))
        function, columns = None, ()
        if order.function is None or (nested_columns := order.columns) is None:
            call = task_scheduler.new_call(order.label, copies=order.copies, request=request)
        else:
            call = task_scheduler.new_map(order.label, order.task.size, copies=order.copies, request=request)
            number, nested = order.function
            function = MapFunction(number, unnest(nested)).stored_if_large(self._transport, order.label, "function")
            try:
                columns = self._modules.reading(client, lambda: unpack(unnest(nested_columns)))
            except BaseException as error:  # unpickling an object may raise anything, even SystemExit
                reason = f"unpickling them for the detached scheduler raises {type(error).__name__}: {error}"
                raise SerializationError("items", reason) from None
        call.submitted = order.submitted
        payload = None if order.call is None else unnest(order.call)
        with self._submitting:
            self._keeping.enter(call, joins=order.joins, input_bytes=order.input_bytes)
            try:
                TaskPlan(task_scheduler, TaskSpec(order.task, call, payload, function, columns, order.limit_s)).submit()
            except BaseException:
                self._keeping.withdraw(call)
                raise

    def _leave(self, session: Session) -> None:
        session.close()
        self._end()

    # How polls learn of new results.

    def _call_back(self, client: str) -> None:
        self._called_back.add(client)
        self._announce()

    def _changed(self) -> None:
        if self._loop is not None and not self._announcing:
            self._announcing = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it all polls
                self._loop.call_soon_threadsafe(self._announce)

    def _announce(self) -> None:
        self._announcing = False
        self._news.set()
        self._news = asyncio.Event()


class _ModulesOfClients:
    """The modules of the clients that submit tasks, for engines and for this process; see ``session.Modules``.

    Engines get the modules of the client that submitted last, because they do not know to which client a task belongs.
    """

    def __init__(self, transport: Transport) -> None:
        self._told: dict[str, ClientModules] = {}
        self._now: ClientModules | None = None
        self._lock = threading.Lock()
        self._versions: ModuleVersions | None = None
        if Capability.PROCESS in transport.capabilities:
            self._versions = ModuleVersions({}, None, transport.controller.sources)

    def now(self) -> ClientModules | None:
        """Return the modules of the client that submitted last."""
        return self._now

    def sources(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Return no sources, because clients send theirs themselves."""
        return {}

    def tell_too_large(self) -> str:
        """Return no message, because clients themselves report modules that are too large."""
        return ""

    def close(self) -> None:
        """Stop finding modules for this process."""
        if self._versions is not None:
            self._versions.close()

    def take(self, client: str, told: ClientModules | None) -> None:
        """Take the modules of a client that submits a task; ``told`` is None if they are already known."""
        with self._lock:
            if told is not None:
                self._told[client] = told
                if len(self._told) > REMEMBERED:
                    del self._told[next(iter(self._told))]
            self._now = self._told.get(client, self._now)

    def reading(self, client: str, read: Callable[[], T]) -> T:
        """Call ``read``, which reads a client's message, while this process has the modules of that client."""
        if self._versions is None:
            return read()
        with self._lock:  # this process can have only one version of a module at a time
            self._versions.select(client, self._told.get(client))
            self._versions.apply()
            try:
                return read()
            finally:
                self._versions.finish()


class _EndListener:
    """Waits for the end of the cluster; see ``EngineListener``."""

    def __init__(self, cut_off: Callable[[], None]) -> None:
        self._cut_off = cut_off

    def engine_joined(self, engine: EngineInfo) -> None:
        """See ``EngineListener``."""

    def engine_leaving(self, engine_id: int) -> None:
        """See ``EngineListener``."""

    def engine_left(self, left: EngineLeft) -> None:
        """See ``EngineListener``."""

    def cut_off(self, reason: ConnectionLost) -> None:
        """The cluster has ended; see ``EngineListener``."""
        threading.Thread(target=self._cut_off, name="nsactors-end", daemon=True).start()


def _status(msg_id: str, task: StoredTask, running: TaskStatus | None) -> TaskStatus:
    ran = [piece for piece in task.pieces if not isinstance(piece, Fail)]
    started = min((outcome.started for outcome, _ in ran if outcome.started is not None), default=None)
    waits = ""
    if task.ended is not None:
        state, left = TaskState.FAILED if task.failed else TaskState.SUCCEEDED, 0
        engines = tuple(sorted({engine_id for _, engine_id in ran} - {NOWHERE}))
    elif running is not None:
        state, left, engines, waits = running.state, running.items_left, running.engines, running.waits
    else:  # the task is on its way to the scheduler, or its end is on the way to the store
        state, left, engines = TaskState.READY, task.size or 1, ()
    status = TaskStatus(msg_id, task.label, state, engines, left, task.submitted, started, task.ended, detached=True)
    return status._replace(waits=waits)
