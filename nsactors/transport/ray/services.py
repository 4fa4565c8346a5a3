"""The host of services on Ray, and batches of one-way messages to it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import getpass
import os
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from nsactors.errors import SerializationError, ServiceClosed, keyboard_interrupt
from nsactors.protocol.process import OwnProcess
from nsactors.protocol.serialize import Payload, pack, unpack
from nsactors.services.service import Service
from nsactors.services.state_machine import (
    Answer,
    CallId,
    ServiceInboxes,
    StateMachine,
    Unreadable,
    Waiting,
    described,
    name_of,
    withdrawn,
)
from nsactors.transport.base import ClusterEnd
from nsactors.transport.channel import SOCKETS
from nsactors.transport.ray.controller_channel import check_connected
from nsactors.transport.ray.failures import LivenessMonitor, result_of
from nsactors.transport.ray.nodes import on_head_node, once_name_is_free
from nsactors.transport.ray.object_store import RayStore, session_folder
from nsactors.transport.ray.service_lines import SETTLE_S, Item, Line, RayLine, SocketLine, is_connected
from nsactors.transport.service_socket import BY_RAY, DONE, Caller, CallerListener, NotPlain, connect, new_socket_path

T = TypeVar("T")

FULL = 64  # the largest number of items in a message
MOST_POSTED = 8  # the largest number of messages in flight
MOMENT_S = 0.0005  # see OneWayBatcher


class OneWayBatcher:
    """Send one-way items with the next call of the same caller, or by themselves.

    A message costs a third of a call. So a thread sends added items a moment later: by then, the caller has usually
    made its next call, which carries the items. (Without this moment, the thread competes with the caller: a call with
    a one-way item and an acknowledgement takes 1.9 ms instead of 1.3.)

    Items sent before a request to an engine, or before an engine's reply, have been handled when the request or reply
    is sent (see :func:`flush_all`). Items that a call has carried have been handled when the call is answered.

    Args:
        post: sends items; returns a reference that resolves when they have been handled.
        settle: waits until the reference resolves.

    Attributes:
        sent: the number of items and calls that the host should have received.
        process_ends: whether it was closed because the process is about to end.
    """

    def __init__(self, post: Callable[[list[Item]], Any], settle: Callable[[Any], None]) -> None:
        self._post = post
        self._settle = settle
        self._process = OwnProcess()
        self._lock = threading.RLock()  # a garbage collection may call close() within post()
        self._flushing = threading.Lock()
        self._items: list[Item] = []
        self._posted: deque[Any] = deque()
        self._added = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self.sent = 0
        self.process_ends = False

    def add(self, item: Item) -> None:
        """Send an item soon; wait only if many are in flight. Raise the error of earlier items, if there was one."""
        self._raise_failure()
        with self._lock:
            self._items.append(item)
            if isinstance(item, tuple):
                _unflushed.add(self)
            self._thread = self._thread or self._start()
        if len(self._items) < FULL:
            if not self._added.is_set():
                self._added.set()
            return
        self.settle(MOST_POSTED)

    def along(self, send: Callable[[list[Item]], T]) -> T:
        """Send all items with a call; the errors are those of :meth:`add`."""
        self._raise_failure()
        with self._lock:
            sent = self._send(send)
            self.sent += 1  # last, so that an interrupted send does not count
            return sent

    def post(self) -> None:
        """Send all items now."""
        if not self._process.is_here:  # a forked child has copies of items that its parent sends
            return
        with self._lock:
            if self._items:
                self._posted.append(self._send(self._post))

    def settle(self, most_left: int = 0) -> None:
        """Send all items now, and wait until no more than ``most_left`` messages are unhandled."""
        if not self._process.is_here:
            return
        self.post()
        with self._flushing:  # a second caller waits for the messages of the first
            while len(self._posted) > most_left:
                try:
                    self._settle(self._posted[0])
                finally:
                    self._posted.popleft()
        with self._lock:
            if not (self._items or self._posted):
                _unflushed.discard(self)

    def try_to_flush(self, most_left: int = 0) -> None:
        """Flush, and keep an error for the next call or item."""
        try:
            self.settle(most_left)
        except (ServiceClosed, TimeoutError):
            _unflushed.discard(self)  # the next call raises such an error anyway
        except Exception as error:
            _unflushed.discard(self)
            self._failure = error

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _send(self, send: Callable[[list[Item]], T]) -> T:
        # Items are removed after they are sent: an interrupt in between may send them twice, which the host notices,
        # but does not lose them.
        count = len(self._items)
        sent = send(self._items[:count])
        del self._items[:count]
        self.sent += count
        return sent

    def close(self, *, wait: bool = False) -> None:
        """Send the remaining items and end the thread; ``wait`` for their handling if the process is about to end."""
        self.process_ends = wait
        self.post()
        self._closed.set()
        self._added.set()
        if wait:
            self.settle()

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._serve, name="service-batcher", daemon=True)
        thread.start()
        return thread

    def _serve(self) -> None:
        while self._added.wait() and not self._closed.wait(MOMENT_S):
            self._added.clear()
            self.try_to_flush(MOST_POSTED)


_unflushed: set[OneWayBatcher] = set()  # the batchers of this process that may have unhandled items


def flush_all() -> None:
    """Wait until all one-way items of this process have been handled, before a message that may refer to them."""
    for batcher in list(_unflushed):
        batcher.try_to_flush()


def uses_sockets() -> bool:
    """Return whether callers on the host's machine call services by the host's socket."""
    return os.environ.get(SOCKETS, "1") != "0"


_NAME = "services"
ANSWER_S = 2.0
END_S = 5.0
OVERTAKEN_S = 0.001
REMEMBERED = 1_000  # callers that have left
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
MAX_CONCURRENCY = 20_000  # calls at the same time, including those that wait


class ServiceHost:
    """The actor class of the host. Its methods are coroutines; no code in them blocks.

    A call that waits costs nothing. It ends with its answer, when it is withdrawn, or when its caller's process ends.
    The host itself ends it in the last case, because Ray does not end a call whose caller is dead.

    Args:
        namespace: the cluster's namespace in Ray; the host ends with the cluster.
        ref_types: classes of references that answers may hold.
    """

    def __init__(self, namespace: str, ref_types: tuple[type, ...] = ()) -> None:
        self._namespace = namespace
        self._ref_types = ref_types
        self._following: asyncio.Task[None] | None = None
        self._inboxes = ServiceInboxes()
        self._answers: dict[tuple[str, CallId], _Waiter] = {}
        self._received: dict[tuple[str, str], _ReceivedFrom] = {}
        self._presences = LivenessMonitor()
        self._left: deque[str] = deque(maxlen=REMEMBERED)
        self._listener: CallerListener | None = None
        self._socket_path = ""
        self._by_ray: dict[tuple[str, CallId], Answer] = {}  # answers that cannot take the socket

    async def host(self, name: str, machine: Payload) -> str:
        """Host a state machine, unless a service has this name already; return a key that no later service gets."""
        self._following = self._following or asyncio.get_running_loop().create_task(self._follow_controller())
        try:
            return self._inboxes.open(name, lambda: unpack(machine))
        except BaseException as error:
            raise error if isinstance(error, Exception) else described(error) from None  # SystemExit would end the host

    async def call(
        self, key: str, caller: str, number: int, after: int, request: Any, items: Sequence[Item] = ()
    ) -> Answer:
        """Answer a call, after the items that its caller has sent before it; see ``ServiceInbox``."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._submit(key, CallId(caller, number), after, request, items, answer)
        return self._sendable(key, await answer)

    async def answer(self, key: str, caller: str, number: int) -> Answer:
        """Return an answer that could not go by the caller's socket."""
        ticket = CallId(caller, number)
        return self._sendable(key, self._by_ray.pop((key, ticket), withdrawn(ticket)))

    async def socket_path(self) -> str:
        """Return the path of the socket for callers on this machine; empty if there is none."""
        if self._listener is None:
            with contextlib.suppress(OSError):  # such as a path that is too long
                self._socket_path = new_socket_path(os.path.join(session_folder(), "sockets"))
                self._listener = CallerListener(self._socket_path, partial(_SocketCaller, self))
        return self._socket_path if self._listener is not None else ""

    async def post(self, key: str, caller: str, items: Sequence[Item]) -> None:
        """Handle one-way items of a caller."""
        self._receive_items(key, caller, items)

    async def flush(self, key: str, caller: str, items: Sequence[Item], sent: int) -> Exception | None:
        """Return when all items and calls of a caller have been handled; the value is an item's error, or None."""
        if key not in self._inboxes:
            return ServiceClosed(name_of(key))
        received = self._receive_items(key, caller, items)
        give_up = time.monotonic() + SETTLE_S
        # Messages may overtake each other.
        while received.count < sent and key in self._inboxes and time.monotonic() < give_up:
            await asyncio.sleep(OVERTAKEN_S)
        if received.count < sent and key in self._inboxes:
            return TimeoutError(f"the service {name_of(key)!r} has not received all messages in {SETTLE_S:g} s")
        failure, received.failure = received.failure, None
        return failure if failure is None else _sendable_error(failure)

    async def withdraw(self, key: str, caller: str, number: int) -> None:
        """Withdraw a call that its caller does not wait for any more."""
        self._withdraw(key, CallId(caller, number))

    async def presence(self, caller: str) -> None:
        """Return when the caller has left; a caller calls this, and may have left before the call arrives."""
        if caller not in self._left:
            await self._presences.until_gone(caller)

    async def stand_by(self, key: str, caller: str, presence: Sequence[Any]) -> None:
        """Watch the process of a caller through a reference to its call to :meth:`presence`."""
        if await self._presences.died(presence):
            self._leave(key, caller, died=True)

    async def leave(self, key: str, caller: str, items: Sequence[Item], sent: int) -> None:
        """End the calls of a caller that leaves."""
        await self.flush(key, caller, items, sent)
        self._leave(key, caller, died=False)

    async def close(self, key: str) -> None:
        """Close a service."""
        if inbox := self._inboxes.pop(key, None):
            self._deliver(key, inbox.close(partial(ServiceClosed, name_of(key))))
            for kept in [kept for kept in self._by_ray if kept[0] == key]:
                del self._by_ray[kept]
            for caller in inbox.callers:
                self._presences.end(caller)

    async def waiting(self) -> list[Waiting]:
        """Return the calls that wait, with the seconds that they have waited."""
        now = time.monotonic()
        calls = [waiting for inbox in self._inboxes.values() for waiting in inbox.waiting()]
        return [waiting._replace(since=now - waiting.since) for waiting in calls]

    async def _follow_controller(self) -> None:
        import ray

        # The controller may have ended already, or may die with the process that owns the cluster.
        with contextlib.suppress(ValueError, ray.exceptions.RayError):
            controller = ray.get_actor("controller", self._namespace)
            await controller.never.options(max_task_retries=-1).remote()
        # The process that stops a cluster also kills this process; if this process exited first, Ray would report it.
        await asyncio.sleep(END_S)
        if self._socket_path:
            shutil.rmtree(os.path.dirname(self._socket_path), ignore_errors=True)
        os._exit(0)

    def _submit(
        self, key: str, ticket: CallId, after: int, request: Any, items: Sequence[Item], waiter: _Waiter
    ) -> None:
        inbox = self._inboxes.get(key)
        if inbox is None:
            waiter.set_result(Answer(ticket, error=ServiceClosed(name_of(key))))
            return
        if self._has_died(key, ticket.caller):
            waiter.set_result(withdrawn(ticket))
            return
        self._answers[key, ticket] = waiter
        self._receive_items(key, ticket.caller, items).count += 1
        # ``after`` orders the calls of a caller, because Ray's asynchronous actors let calls overtake each other.
        self._deliver(key, inbox.call(ticket, after, _read(request), time.monotonic()))

    def _has_died(self, key: str, caller: str) -> bool:
        """Return whether a message through Ray comes from a caller whose socket has already reported its death."""
        return (key, caller) not in self._received and caller in self._left

    def _withdraw(self, key: str, ticket: CallId) -> None:
        self._by_ray.pop((key, ticket), None)
        if inbox := self._inboxes.get(key):
            self._deliver(key, inbox.withdraw(ticket))

    def _sendable(self, key: str, answer: Answer) -> Answer:
        """Return an answer that Ray can send: an error in place of a value that cannot be pickled."""
        if answer.error is not None:
            return answer._replace(error=_sendable_error(answer.error))
        if not _is_plain(answer.value, self._ref_types):
            try:
                pack(answer.value, what=f"the answer of the service {name_of(key)!r}", ref_types=self._ref_types)
            except SerializationError as error:
                self._withdraw(key, answer.ticket)  # gives back a value that was taken
                return Answer(answer.ticket, error=error)
        return answer

    def _receive_items(self, key: str, caller: str, items: Sequence[Item]) -> _ReceivedFrom:
        if self._has_died(key, caller):
            return _ReceivedFrom()
        received, inbox = self._received.setdefault((key, caller), _ReceivedFrom()), self._inboxes.get(key)
        for item in items:
            if inbox is None:
                break
            if isinstance(item, int):
                inbox.acknowledge(CallId(caller, item))
            elif item[0] not in received.recent:
                number, after, request = item
                received.recent.append(number)
                self._deliver(key, inbox.call(CallId(caller, number), after, _read(request), time.monotonic()))
            received.count += 1
        return received

    def _leave(self, key: str, caller: str, *, died: bool) -> None:
        self._received.pop((key, caller), None)
        for kept in [kept for kept in self._by_ray if kept[0] == key and kept[1].caller == caller]:
            del self._by_ray[kept]
        self._left.append(caller)
        self._presences.end(caller)
        if inbox := self._inboxes.get(key):
            self._deliver(key, inbox.leave(caller, died=died))

    def _deliver(self, key: str, answers: Iterable[Answer]) -> None:
        for answer in answers:
            waiting = self._answers.pop((key, answer.ticket), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)
            elif answer.error is not None and (received := self._received.get((key, answer.ticket.caller))):
                received.failure = answer.error  # the error of a one-way item


class _Waiter(Protocol):
    """Takes the answer to a call: a future, or a caller by a socket."""

    def done(self) -> bool: ...

    def set_result(self, answer: Answer, /) -> None: ...


class _SocketAnswer(NamedTuple):
    """The answer to a call by a socket."""

    calls: _SocketCaller
    reply: int

    def done(self) -> bool:
        return False

    def set_result(self, answer: Answer, /) -> None:
        self.calls.answer(self.reply, answer)


class _SocketCaller:
    """Handles the messages of a caller by its socket. Their methods are those of :class:`SocketLine`.

    Args:
        host: the host.
        caller: the connection.
        hello: the key of the service, and the name of the caller.
    """

    def __init__(self, host: ServiceHost, caller: Caller, hello: tuple[str, str]) -> None:
        self._host = host
        self._caller = caller
        self._key, self._name = hello
        self._has_left = False
        self._tasks: set[asyncio.Task[None]] = set()

    def receive(self, reply: int, method: str, terms: tuple[Any, ...]) -> None:
        """Carry out a message; see ``CallsOfCaller``."""
        match method, *terms:
            case "call", number, after, request, items:
                ticket = CallId(self._name, number)
                self._host._submit(self._key, ticket, after, request, items, _SocketAnswer(self, reply))
            case "post", items:
                self._host._receive_items(self._key, self._name, items)
                self._caller.reply(reply, DONE, None)
            case "flush", sent:
                self._start(self._flush(reply, sent))
            case "withdraw", number:
                self._host._withdraw(self._key, CallId(self._name, number))
            case "leave", sent:
                self._has_left = True
                self._start(self._host.leave(self._key, self._name, (), sent))

    def answer(self, reply: int, answer: Answer) -> None:
        """Send the answer to a call."""
        try:
            self._caller.reply(reply, DONE, answer[1:])
        except NotPlain:
            self._host._by_ray[self._key, answer.ticket] = answer
            self._caller.reply(reply, BY_RAY, None)

    def end(self) -> None:
        """Handle the end of the connection."""
        if not self._has_left:
            self._host._leave(self._key, self._name, died=True)

    async def _flush(self, reply: int, sent: int) -> None:
        failure = await self._host.flush(self._key, self._name, (), sent)
        try:
            self._caller.reply(reply, DONE, failure)
        except NotPlain:
            assert failure is not None, "None is plain"
            self._caller.reply(reply, DONE, described(failure))

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _PackedCall(NamedTuple):
    payload: Payload


def _packed(ref_types: tuple[type, ...], request: Any) -> Any:
    """Return a request; packed, unless the host can certainly read it."""
    if _is_plain(request, ref_types):
        return request
    return _PackedCall(pack(request, what="the request", ref_types=ref_types))


def _read(request: Any) -> Any:
    if not isinstance(request, _PackedCall):
        return request
    try:
        return unpack(request.payload)
    except BaseException as error:  # the user's class may exit when it is rebuilt
        reason = f"where services are hosted, it raises {type(error).__name__}: {error}"
        return Unreadable(SerializationError("the request", reason))


def _is_plain(request: Any, ref_types: tuple[type, ...]) -> bool:
    """Return whether a request consists of types that can certainly be sent."""
    if isinstance(request, tuple) and (type(request) is tuple or type(request).__module__.startswith("nsactors.")):
        return all(_is_plain(part, ref_types) for part in request)
    return type(request) in _PLAIN or type(request) in ref_types


def _sendable_error(error: Exception) -> Exception:
    """Return the error; if callers could not unpickle it, return an error with the same text."""
    try:
        unpack(pack(error))
    except Exception:
        return described(error)
    return error


class _ReceivedFrom:
    """A count of the messages received from one caller, by which ``flush`` knows whether some are still in flight.

    Attributes:
        count: the number of calls and items.
        recent: numbers of recent one-way items, since some may arrive twice.
        failure: the error of the last one-way item that failed.
    """

    def __init__(self) -> None:
        self.count = 0
        self.recent: deque[int] = deque(maxlen=2 * FULL)
        self.failure: Exception | None = None


class RayServices:
    """The services of a cluster, for one client.

    Args:
        namespace: the cluster's namespace in Ray.
        stopped: set when the cluster has ended for this process.
    """

    def __init__(self, namespace: str, stopped: ClusterEnd) -> None:
        self._namespace = namespace
        self._stopped = stopped
        self._actor_class: Any = None

    def host(self, machine: StateMachine, name: str | None) -> Service:
        """Return the service of this name, made from ``machine`` if there is none; see ``Services``."""
        import ray

        check_connected(ray, self._stopped)
        name = name or f"{type(machine).__name__}-{secrets.token_hex(4)}"
        payload = pack(machine, what="the machine")
        self._actor_class = self._actor_class or ray.remote(ServiceHost)
        actor_class = on_head_node(self._actor_class, _NAME, self._namespace, max_concurrency=MAX_CONCURRENCY)

        def start() -> Service:
            host = actor_class.remote(self._namespace, (ray.ObjectRef,))
            hosting = host.host.remote(name, payload)
            path = ray.get(host.socket_path.remote()) if uses_sockets() else ""
            return Service(_RayChannel(host, name, ray.get(hosting), path))

        return once_name_is_free(start, ray.exceptions.RayActorError)

    def waiting(self) -> list[Waiting]:
        """Return the calls that wait; see ``Services``."""
        import ray

        check_connected(ray, self._stopped)
        try:
            host: Any = ray.get_actor(_NAME, self._namespace)
            calls: list[Waiting] = result_of(host.waiting.remote(), ANSWER_S)
        except (ValueError, ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            # The host does not exist yet, has died, or is starting.
            return []
        return calls


class _RayChannel:
    """A channel to a service on Ray; see ``ServiceChannel``.

    Args:
        host: the host's actor.
        name: the name of the service.
        key: its key.
        path: the path of the host's socket, on the host's machine; empty without a socket.
    """

    def __init__(self, host: Any, name: str, key: str, path: str) -> None:
        import ray

        self.name = name
        self._key = key
        self._path = path
        self.ref_types: tuple[type, ...] = (ray.ObjectRef,)
        self._host = host
        self._process = OwnProcess()
        self._party = ""
        self._line: Line | None = None
        self._batcher: OneWayBatcher | None = None

    def caller(self) -> str:
        if not self._party:
            self._check()
            caller, line = self._connected()
            # Do this also for a caller with a socket, because a child that C code has forked would keep the socket
            # open.
            self._host.stand_by.remote(self._key, caller, [self._host.presence.remote(caller)])
            self._line = line
            self._batcher = OneWayBatcher(line.post, line.settle)
            atexit.register(self._batcher.close, wait=True)
            self._party = caller
        return self._party

    def _connected(self) -> tuple[str, Line]:
        caller = _new_name()
        connection = connect(self._path, self._key, caller)
        if connection is not None:
            return caller, SocketLine(connection, self._ray_line(caller))
        # Use another name: the host may have accepted the connection, and treat its end as the end of the caller.
        caller = _new_name()
        return caller, self._ray_line(caller)

    def _ray_line(self, caller: str) -> RayLine:
        # Pass no bound method: the line must not refer to this channel, which ends when it is dropped.
        return RayLine(self._host, self.name, self._key, caller, partial(_packed, self.ref_types))

    def submit(self, ticket: CallId, after: int, request: Any) -> Any:
        self._check()
        line, batcher = self._opened()
        return batcher.along(lambda items: line.call(ticket.number, after, request, items))

    def tell(self, ticket: CallId, after: int, request: Any) -> None:
        self._check()
        # A request that cannot be pickled must fail here, without an effect on other requests.
        self._opened()[1].add((ticket.number, after, _packed(self.ref_types, request)))

    def flush(self) -> None:
        if self._batcher is None:
            return
        self._check()
        line, batcher = self._opened()
        batcher.post()
        failure = line.settle(line.flush(batcher.sent))
        if failure is not None:
            raise failure

    def is_answered(self, handle: Any) -> bool:
        self._check()
        return self._opened()[0].is_answered(handle)

    def receive(self, handle: Any, timeout_s: float | None) -> Answer:
        import ray

        self._check()
        try:
            return self._opened()[0].receive(handle, timeout_s)
        except ray.exceptions.GetTimeoutError:
            raise TimeoutError(f"the service {self.name!r} has not answered in {timeout_s:g} s") from None
        except ray.exceptions.RayActorError:
            raise ServiceClosed(self.name) from None
        except KeyboardInterrupt:
            raise keyboard_interrupt() from None
        except Exception as error:
            if ray.is_initialized():
                raise
            raise ServiceClosed(self.name) from error  # the end of Ray raises errors of many kinds

    def acknowledge(self, ticket: CallId) -> None:
        self._opened()[1].add(ticket.number)

    def withdraw(self, ticket: CallId) -> None:
        if self._line is not None and self._can_send():
            self._line.withdraw(ticket.number)

    def keep(self, payload: Payload) -> Any:
        return RayStore().put(payload)

    def close(self) -> None:
        import ray

        if ray.is_initialized():
            with contextlib.suppress(ray.exceptions.RayActorError):  # the host has ended
                ray.get(self._host.close.remote(self._key))

    def _opened(self) -> tuple[Line, OneWayBatcher]:
        assert self._line is not None, "a ticket bears the name of its caller"
        assert self._batcher is not None
        return self._line, self._batcher

    def _can_send(self) -> bool:
        return self._process.is_here and is_connected()

    def _check(self) -> None:
        import ray

        if not ray.is_initialized():  # a call would make Ray start another cluster
            raise ServiceClosed(self.name)

    def __del__(self) -> None:
        if self._line is None or self._batcher is None or not self._process.is_here:
            return
        # A process that ends does not send `leave`: other callers must learn that it has died.
        if not self._batcher.process_ends:
            atexit.unregister(self._batcher.close)
            # Acknowledgements must arrive before the departure: otherwise a tuple would go to a second taker.
            self._batcher.close()
            if self._can_send():
                self._line.leave(self._batcher.sent)
            self._line.close()

    def __reduce__(self) -> Any:
        return _RayChannel, (self._host, self.name, self._key, self._path)


def _new_name() -> str:
    return f"{_label()}/{secrets.token_hex(6)}"


def _label() -> str:
    """Return the name of this process for people."""
    import ray

    context = ray.get_runtime_context()
    name = context.get_actor_name() if context.get_actor_id() else ""
    if name and name.startswith("engine-"):
        return f"engine {name.removeprefix('engine-').partition('.')[0]}"
    return getpass.getuser()
