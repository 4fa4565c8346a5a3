"""A caller's connections to the host of services on Ray: calls to its actor, and messages by its socket.

A caller has one of the two. A line by the socket has its own line through Ray, for messages that cannot take the
socket.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from nsactors.errors import ClusterLost, ServiceClosed
from nsactors.services.state_machine import Answer, CallId
from nsactors.transport.channel import ChannelClosed
from nsactors.transport.ray.failures import result_of
from nsactors.transport.service_socket import BY_RAY, FAILED, HostConnection, NotPlain

SETTLE_S = 30.0

Item = int | tuple[int, int, Any]
"""The number of a call whose answer has arrived; or a one-way call: number, number of the call before it, request."""


class Line(Protocol):
    """A caller's connection to the host. Each method that sends returns a handle, or None if no answer is needed."""

    def call(self, number: int, after: int, request: Any, items: list[Item]) -> Any:
        """Send a call, and before it one-way items; return a handle on its answer."""
        ...

    def post(self, items: list[Item]) -> Any:
        """Send one-way items; return a handle for :meth:`settle`."""
        ...

    def flush(self, sent: int) -> Any:
        """Ask for a reply when the host has handled everything; return a handle for :meth:`settle`.

        Args:
            sent: the number of calls and items that have been sent.
        """
        ...

    def withdraw(self, number: int) -> None:
        """Report that no thread waits for a call any more."""
        ...

    def leave(self, sent: int) -> None:
        """Report that the caller leaves, and that it has sent this number of calls and items."""
        ...

    def close(self) -> None:
        """Close the line when everything has been sent."""
        ...

    def is_answered(self, handle: Any) -> bool:
        """Return whether the answer to a call has arrived."""
        ...

    def receive(self, handle: Any, timeout_s: float | None) -> Answer:
        """Wait for the answer to a call. Errors are those of Ray, or those of ``ServiceChannel.receive``."""
        ...

    def settle(self, handle: Any) -> Any:
        """Wait for a reply and return it.

        Raises:
            ServiceClosed: if the host has ended.
            TimeoutError: if no reply arrives in time.
        """
        ...


class RayLine:
    """Calls to the host's actor; handles are Ray's references.

    Args:
        host: the actor.
        name: the name of the service.
        key: its key.
        caller: the name of the caller.
        packed: packs a request that the host may be unable to read. Without this, Ray would fail the call, and the host
            would never know of it, although it must run the caller's later calls after it.
    """

    def __init__(self, host: Any, name: str, key: str, caller: str, packed: Callable[[Any], Any]) -> None:
        self.name = name
        self._packed = packed
        self.caller = caller
        self._host = host
        self._address = key, caller

    def call(self, number: int, after: int, request: Any, items: list[Item]) -> Any:
        """Send a call; see :class:`Line`."""
        self._check()
        return self._host.call.remote(*self._address, number, after, self._packed(request), items)

    def post(self, items: list[Item]) -> Any:
        """Send one-way items; see :class:`Line`."""
        return self._host.post.remote(*self._address, items) if is_connected() else None

    def flush(self, sent: int) -> Any:
        """Ask for a reply when everything is handled; see :class:`Line`."""
        self._check()
        return self._host.flush.remote(*self._address, (), sent)

    def withdraw(self, number: int) -> None:
        """Withdraw a call; see :class:`Line`."""
        if is_connected():
            self._host.withdraw.remote(*self._address, number)

    def leave(self, sent: int) -> None:
        """Leave the service; see :class:`Line`."""
        if is_connected():
            self._host.leave.remote(*self._address, (), sent)

    def close(self) -> None:
        """Do nothing."""

    def is_answered(self, handle: Any) -> bool:
        """Return whether there is an answer; see :class:`Line`."""
        import ray

        return bool(ray.wait([handle], timeout=0)[0])

    def receive(self, handle: Any, timeout_s: float | None) -> Answer:
        """Wait for an answer; see :class:`Line`."""
        answer: Answer = result_of(handle, timeout_s)
        return answer

    def settle(self, handle: Any) -> Any:
        """Wait for a reply; see :class:`Line`."""
        import ray

        if handle is None or not is_connected():
            return None
        try:
            return result_of(handle, SETTLE_S)
        except ray.exceptions.GetTimeoutError:
            raise _unsettled(self.name) from None
        except ray.exceptions.RayActorError:
            raise ServiceClosed(self.name) from None

    def answer(self, number: int) -> Any:
        """Ask for an answer that could not go by the socket."""
        self._check()
        return self._host.answer.remote(*self._address, number)

    def _check(self) -> None:
        """Raise ServiceClosed if this process is no longer connected to Ray."""
        if not is_connected():
            raise ServiceClosed(self.name)

    def why_closed(self) -> Exception:
        """Return the reason why the host's end of a socket was closed."""
        if not is_connected():
            return ServiceClosed(self.name)
        try:
            result_of(self._host.waiting.remote(), SETTLE_S)
        except ClusterLost as lost:  # Ray's servers have died, and the host with them
            return lost
        except Exception:  # errors of many kinds, if Ray is ending
            return ServiceClosed(self.name)
        return ServiceClosed(self.name)


class _SocketCall:
    """The handle of a call by the socket.

    Attributes:
        number: the number of the call.
        reply: a future of its reply.
        by_ray: Ray's reference to the answer, if that could not go by the socket.
    """

    __slots__ = ("by_ray", "number", "reply")

    def __init__(self, number: int, reply: Future[tuple[str, Any]]) -> None:
        self.number = number
        self.reply = reply
        self.by_ray: Any = None


class SocketLine:
    """Messages by a socket, and calls to the host's actor for what cannot take the socket; both kinds have handles."""

    def __init__(self, connection: HostConnection, ray: RayLine) -> None:
        self._connection = connection
        self._ray = ray

    def call(self, number: int, after: int, request: Any, items: list[Item]) -> Any:
        """Send a call; see :class:`Line`."""
        try:
            return _SocketCall(number, self._connection.ask("call", number, after, request, items))
        except NotPlain:
            return self._ray.call(number, after, request, items)

    def post(self, items: list[Item]) -> Any:
        """Send one-way items; see :class:`Line`."""
        if not is_connected():
            return None
        try:
            return _SocketCall(0, self._connection.ask("post", items))
        except NotPlain:
            return self._ray.post(items)

    def flush(self, sent: int) -> Any:
        """Ask for a reply when everything is handled; see :class:`Line`."""
        return _SocketCall(0, self._connection.ask("flush", sent))

    def withdraw(self, number: int) -> None:
        """Withdraw a call; see :class:`Line`."""
        self._connection.tell("withdraw", number)

    def leave(self, sent: int) -> None:
        """Leave the service; see :class:`Line`."""
        self._connection.tell("leave", sent)

    def close(self) -> None:
        """Close the line; see :class:`Line`."""
        self._connection.close()

    def is_answered(self, handle: Any) -> bool:
        """Return whether there is an answer; see :class:`Line`."""
        return handle.reply.done() if isinstance(handle, _SocketCall) else self._ray.is_answered(handle)

    def receive(self, handle: Any, timeout_s: float | None) -> Answer:
        """Wait for an answer; see :class:`Line`."""
        if not isinstance(handle, _SocketCall):
            return self._ray.receive(handle, timeout_s)
        give_up = None if timeout_s is None else time.monotonic() + timeout_s
        outcome, value = self._reply(handle, timeout_s)
        if outcome == BY_RAY:
            handle.by_ray = handle.by_ray or self._ray.answer(handle.number)
            return self._ray.receive(handle.by_ray, None if give_up is None else max(0.0, give_up - time.monotonic()))
        return Answer(CallId(self._ray.caller, handle.number), *value)

    def settle(self, handle: Any) -> Any:
        """Wait for a reply; see :class:`Line`."""
        if not isinstance(handle, _SocketCall):
            return self._ray.settle(handle)
        if not is_connected():
            return None
        try:
            return self._reply(handle, SETTLE_S)[1]
        except TimeoutError:
            raise _unsettled(self._ray.name) from None

    def _reply(self, handle: _SocketCall, timeout_s: float | None) -> tuple[str, Any]:
        try:
            outcome, value = handle.reply.result(timeout_s)
        except ChannelClosed:
            raise self._ray.why_closed() from None
        if outcome == FAILED:
            raise value
        return outcome, value


def is_connected() -> bool:
    """Return whether this process is connected to Ray: otherwise, a call would start another cluster."""
    if sys.is_finalizing():
        return False
    import ray

    return bool(ray.is_initialized())


def _unsettled(name: str) -> TimeoutError:
    return TimeoutError(f"the service {name!r} has not handled its messages in {SETTLE_S:g} s")
