"""The scheduler of detached tasks: a client of the cluster that nobody sits at.

It lives in a process of the cluster's (see ``transport.residents``), takes tasks of all clients, runs them as any
client runs its own, and keeps what comes of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from nsactors.client.detached.keeping import Keeping
from nsactors.client.detached.messages import Description, Order, Progress, unpack_columns
from nsactors.client.session import Session
from nsactors.client.tasks import Farm, Job, MapFunction, TaskStatus
from nsactors.core.cluster import EngineInfo, EngineLeft
from nsactors.core.kept_tasks import KeptTask
from nsactors.core.messages import RequestId
from nsactors.core.scheduling import GiveUp, TaskState
from nsactors.core.tasks import unnest
from nsactors.errors import SerializationError
from nsactors.results import TaskCall
from nsactors.transport.base import Transport

__all__ = ["DetachedTasks"]

REMEMBERED = 1_000  # clients that have left
GATHER_S = 0.005  # results that come within this of each other travel together


class DetachedTasks:
    """Takes and runs tasks, and hands out what has come of them; a resident of the cluster.

    Args:
        transport: its way to the engines.
        end: called when the cluster is gone.
    """

    def __init__(self, transport: Transport, end: Callable[[], None]) -> None:
        self._transport = transport
        self._end = end
        self._farm: Farm | None = None
        self._opening = threading.Lock()
        self._keeping = Keeping(transport, self._changed)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._announcing = False
        self._called_back: set[str] = set()  # who is to ask anew
        self._released: deque[str] = deque(maxlen=REMEMBERED)

    async def reserve(self, count: int) -> tuple[str, range]:
        """Numbers for a client's tasks, and the name that their ids begin with."""
        farm = await asyncio.to_thread(self._open)
        numbers = [farm.next_number() for _ in range(count)]
        return farm.name, range(numbers[0], numbers[-1] + 1)

    async def submit(self, client: str, order: Order) -> None:
        """Run a task; when this returns, it will be, whatever becomes of the client.

        Raises:
            SerializationError: if the items of a map cannot be read here.
            SchedulerOverloaded: if the arguments of what waits leave no room for its own.
            ConnectionLost: if the cluster is going.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._submit, order)
        self._call_back(client)

    async def collect(self, client: str, wanted: dict[int, int], wait_s: float) -> dict[int, Progress]:
        """What has come of tasks, by number.

        Args:
            client: who asks. It asks anew when it has submitted something meanwhile: this returns then.
            wanted: how many pieces of each it has.
            wait_s: how long to wait for something new.
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
        """A client asks no more: what it has asked returns, also if it comes after this."""
        self._called_back.discard(client)
        self._released.append(client)
        self._announce()

    async def describe(self, client: str, requests: Iterable[RequestId]) -> dict[RequestId, Description]:
        """Tasks that a client wants to know of; without those of which nothing is kept."""
        self._call_back(client)
        farm = await asyncio.to_thread(self._open)
        known = ((r, self._keeping.get(r.seq)) for r in requests if r.client == farm.name)
        return {request: Description.of(task) for request, task in known if task is not None}

    async def statuses(self) -> list[TaskStatus]:
        """The tasks of which something is known, in the order of submission."""
        farm = await asyncio.to_thread(self._open)
        running = {status.msg_id: status for status in await asyncio.to_thread(farm.statuses)}
        listed = []
        for task in self._keeping.tasks():
            msg_id = str(RequestId(farm.name, task.number))
            listed.append(_status(msg_id, task, running.get(msg_id)))
        return listed

    async def assigned(self) -> tuple[int, dict[int, int]]:
        """How many items wait for an engine, and how many each engine has."""
        farm = await asyncio.to_thread(self._open)
        return await asyncio.to_thread(farm.assigned)

    async def abort(self, numbers: frozenset[int], interrupt: bool) -> None:
        """Take back what has not begun; with ``interrupt``, stop what has."""
        calls = [task.handle for number in numbers if (task := self._keeping.get(number)) is not None]
        farm = await asyncio.to_thread(self._open)
        await asyncio.to_thread(farm.abort, calls, interrupt=interrupt)

    # On other threads: what follows may wait.

    def _open(self) -> Farm:
        with self._opening:
            if self._farm is None:
                session = Session(self._transport, f"detached-{uuid.uuid4().hex[:12]}")
                session.roster.watch(_Mourner(partial(self._leave, session)))
                self._farm = Farm(session, self._keeping)
            return self._farm

    def _submit(self, order: Order) -> None:
        farm = self._open()
        call = self._call_of(order, farm)
        function, columns = None, ()
        if order.function is not None and order.columns is not None:
            number, nested = order.function
            function = MapFunction(number, unnest(nested)).stored_if_large(self._transport, order.label, "function")
            try:
                columns = unpack_columns(order.columns)
            except Exception as error:  # whatever a class of the user's does when it is rebuilt
                reason = f"where detached tasks are scheduled, they raise {type(error).__name__}: {error}"
                raise SerializationError("items", reason) from None
        payload = None if order.call is None else unnest(order.call)
        self._keeping.enter(call, joins=order.joins, input_bytes=order.input_bytes)
        try:
            farm.submit(order.task, Job(call, payload, function, columns, order.limit_s))
        except BaseException:
            self._keeping.withdraw(call)
            raise

    @staticmethod
    def _call_of(order: Order, farm: Farm) -> TaskCall:
        number = int(str(order.task.task_id))
        if order.is_map:
            call: TaskCall = farm.new_map(order.label, order.task.size, copies=order.copies, number=number)
        else:
            call = farm.new_call(order.label, copies=order.copies, number=number)
        call.submitted = order.submitted
        return call

    def _leave(self, session: Session) -> None:
        session.close()
        self._end()

    # News.

    def _call_back(self, client: str) -> None:
        self._called_back.add(client)
        self._announce()

    def _changed(self) -> None:
        if self._loop is not None and not self._announcing:
            self._announcing = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and everybody who waited
                self._loop.call_soon_threadsafe(self._announce)

    def _announce(self) -> None:
        self._announcing = False
        self._news.set()
        self._news = asyncio.Event()


class _Mourner:
    """Waits for the end of the cluster; see ``Watcher``."""

    def __init__(self, cut_off: Callable[[], None]) -> None:
        self._cut_off = cut_off

    def engine_joined(self, engine: EngineInfo) -> None:
        """Nothing to it."""

    def engine_leaving(self, engine_id: int) -> None:
        """Nothing to it."""

    def engine_left(self, left: EngineLeft) -> None:
        """Nothing to it."""

    def cut_off(self) -> None:
        """There is no cluster any more."""
        threading.Thread(target=self._cut_off, name="nsactors-end", daemon=True).start()


def _status(msg_id: str, task: KeptTask, running: TaskStatus | None) -> TaskStatus:
    ran = [piece for piece in task.pieces if not isinstance(piece, GiveUp)]
    started = min((ran.value.started for ran, _ in ran if ran.value.started is not None), default=None)
    if task.ended is not None:
        state, left = TaskState.FAILED if task.failed else TaskState.SUCCEEDED, 0
        engines = tuple(sorted({engine_id for _, engine_id in ran}))
    elif running is not None:
        state, left, engines = running.state, running.items_left, running.engines
    else:  # on its way to the scheduler, or from it
        state, left, engines = TaskState.READY, task.size or 1, ()
    return TaskStatus(msg_id, task.label, state, engines, left, task.submitted, started, task.ended, detached=True)
