"""Failures of Ray's actors and servers as errors of this package, and waits that end with them.

A thread inside ``ray.get`` keeps Ray's code in use. A disconnection from a Ray whose GCS had died crashed the process
in 4 of 8 runs while other threads waited inside it, and in no run without such threads. So a wait that may be
long is on a future of this package, which :func:`end_waits` can end.

So that the controller notices its death, a client calls a method of the controller that does not return, and passes the
reference to the result to the controller. The client's process owns the reference: 2.0 s after the process has ended,
waiting for the reference fails.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import tempfile
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from nsactors.errors import ClusterLost, ProtocolError, StoreFull
from nsactors.namespace.last_request import last_begun
from nsactors.namespace.startup import StartupFailed
from nsactors.transport.base import EngineGone, tail_of
from nsactors.transport.ray.object_store import is_full

NODE_DIED = "its node died"


def failure_of(error: BaseException, engine_id: int, output_path: str | None, host: str) -> BaseException:
    """Return the error for a client whose call to an engine has failed; errors that are not Ray's are unchanged.

    Args:
        error: the error of the call.
        engine_id: the engine.
        output_path: see :func:`death_of`.
        host: see :func:`death_of`.
    """
    import ray

    match error:
        case ray.exceptions.RayActorError():
            return death_of(error, output_path, host)
        case ray.exceptions.RayTaskError(cause=StoreFull() as full):
            return StoreFull(f"the reply of engine {engine_id}: {full.what}", full.why)
        case ray.exceptions.RayTaskError(cause=EngineGone() as gone):
            return gone
        case ray.exceptions.RayTaskError(cause=cause) if is_full(cause):
            return StoreFull(f"the reply of engine {engine_id}")
        case ray.exceptions.RayTaskError():
            failure = ProtocolError(f"engine {engine_id} could not answer: {error.cause}")
            failure.__cause__ = error
            return failure
        case _:
            return error


def death_of(error: BaseException, output_path: str | None, host: str = "") -> EngineGone:
    """Return Ray's reason for the death of an actor, in words.

    Args:
        error: the error of a call to the actor.
        output_path: the path of its output files, if it is known.
        host: the machine of those files, if it is known; files on another machine cannot be read.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    request, position = last_begun(output_path) if output_path else (None, 0)
    tail = tail_of(f"{output_path}.stderr", position) if output_path else ""
    if "creation task" in text:
        if (failed := StartupFailed.found_in(text)) is not None:
            return EngineGone(failed.reason, failed.output)
        lines = text.strip().splitlines()
        return EngineGone(lines[-1].strip(), text.strip())
    is_elsewhere = host not in ("", socket.gethostname())
    there = f"; its last output is in {output_path}.stderr on {host}" if is_elsewhere and not tail else ""
    if fatal := re.search(r"^Fatal Python error: (.+)$", tail, re.MULTILINE):
        return EngineGone(f"it crashed: {fatal.group(1)}", _user_part(tail[fatal.start() :]), request)
    if "ray.kill" in text:
        return EngineGone("it was asked to end, and killed", tail, request, wanted=True)
    if "not schedulable" in text or ("node" in text and "died" in text and "worker process" not in text):
        return EngineGone(NODE_DIED, tail, request)
    if "memory" in text and "OutOfMemory" in type(error).__name__:
        return EngineGone(f"it was killed because the machine ran out of memory{there}", tail, request)
    return EngineGone(f"its process ended unexpectedly (killed, or os._exit was called){there}", tail, request)


def _user_part(crash: str) -> str:
    """Return the lines of the interpreter's crash report above the frames of this package."""
    lines = crash.splitlines()
    machinery = next((i for i, line in enumerate(lines) if "nsactors/namespace/" in line), len(lines))
    return "\n".join(lines[:machinery])


def output_folder(cluster: str) -> str:
    """Return the folder of a cluster's files on this machine: in Ray's session folder, which is removed with Ray.

    An actor must call this before it redirects its output.
    """
    log = os.readlink(f"/proc/{os.getpid()}/fd/1") if os.path.exists("/proc/self/fd/1") else ""
    folder = os.path.dirname(log) if log.endswith(".out") else tempfile.gettempdir()
    return os.path.join(folder, f"nsactors-{cluster}")


QUICK_S = 0.05  # a shorter wait is faster in ray.get itself, because a future costs a switch of threads

_lock = threading.Lock()
_driver = threading.Event()  # set in a process that watches Ray's servers
_waits: weakref.WeakSet[Future[Any]] = weakref.WeakSet()
_lost: list[ClusterLost] = []  # the reason for ending waits, for waits that begin later


def result_of(reference: Any, timeout_s: float | None) -> Any:
    """Return the result of a call as ``ray.get`` does, or raise its error.

    Args:
        reference: the reference to the result.
        timeout_s: seconds; None waits forever.

    Raises:
        GetTimeoutError: (Ray's) if the result has not arrived in time.
        ClusterLost: if Ray's servers die during the wait.
    """
    import ray

    if not _driver.is_set() and threading.current_thread() is threading.main_thread():
        # A worker ends with its raylet. While its main thread waits in ray.get, other workers may use its CPUs; in
        # other threads, ray.get would only wake up twenty times a second.
        return ray.get(reference, timeout=timeout_s)
    quick_s = QUICK_S if timeout_s is None else min(QUICK_S, timeout_s)
    try:
        return ray.get(reference, timeout=quick_s)
    except ray.exceptions.GetTimeoutError:
        if timeout_s is not None and timeout_s <= quick_s:
            raise
    result: Future[Any] = Future()
    with _lock:
        if _lost:
            raise _lost[0].again()
        _waits.add(result)
    reference.future().add_done_callback(lambda answered: _pass_on(answered, result))
    try:
        return result.result(None if timeout_s is None else timeout_s - quick_s)
    except TimeoutError:
        if result.done():  # the call itself has raised a TimeoutError
            raise
        raise ray.exceptions.GetTimeoutError("Get timed out: some object(s) not ready.") from None


def can_be_ended() -> None:
    """Let :func:`end_waits` end the waits of this process from now on; call this after connecting to Ray."""
    with _lock:
        _lost.clear()
    _driver.set()


def end_waits(lost: ClusterLost) -> None:
    """End every wait with an error, including waits that begin from now on."""
    with _lock:
        _lost[:] = [lost]
        waits = list(_waits)
    for wait in waits:
        with suppress(InvalidStateError):
            wait.set_exception(lost.again())


def _pass_on(answered: Future[Any], result: Future[Any]) -> None:
    error = answered.exception()
    if error is not None and not isinstance(error, Exception):
        return  # Ray raises SystemExit as it disconnects, and the wait is about to be ended
    with suppress(InvalidStateError):  # the wait has already been ended
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(answered.result())


class LivenessMonitor:
    """Watch the processes of clients."""

    def __init__(self) -> None:
        self._left: dict[str, asyncio.Event] = {}

    async def until_gone(self, client: str) -> None:
        """Return when the client has left. A client calls this; Ray does not end a call whose caller is dead."""
        await self._left.setdefault(client, asyncio.Event()).wait()

    def end(self, client: str) -> None:
        """Let the call to :meth:`until_gone` of a client return, because the client has left."""
        left = self._left.pop(client, None)
        if left is not None:
            left.set()

    async def died(self, presence: Sequence[Any]) -> bool:
        """Wait until the owner of the only reference in this list has died, or the client has left.

        Returns:
            Whether the owner has died.
        """
        import ray

        try:
            await presence[0]
        except ray.exceptions.OwnerDiedError:
            return True
        except ray.exceptions.RayError:  # the call went to an earlier incarnation of the controller
            return False
        return False
