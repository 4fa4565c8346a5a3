"""The process of an engine: a Ray actor that runs requests."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import Any, ClassVar

from nsactors.engine_actor import EngineActor, EngineEnds
from nsactors.namespace.host import ProcessHost
from nsactors.protocol.engine_info import EngineSpec, with_labels
from nsactors.protocol.messages import Reply, StreamText
from nsactors.protocol.wire import decode_request, encode_reply, seal
from nsactors.system.processes import keep_sockets_from_children
from nsactors.transport.base import ConnectionInfo, ControllerClient, EngineGone
from nsactors.transport.ray.controller_channel import RayControllerChannel, connection_info, namespace_of
from nsactors.transport.ray.direct_server import MESSAGE_BYTES, DirectServer
from nsactors.transport.ray.failures import output_folder
from nsactors.transport.ray.journal_replica import replica_for
from nsactors.transport.ray.nodes import labels_here
from nsactors.transport.ray.object_store import RayStore, SpillCheck, as_array, require_room
from nsactors.transport.ray.services import flush_all


class RayEngine:
    """The actor class of engines: an :class:`EngineActor` that Ray calls.

    The actor is synchronous: its methods run on the process's main thread, one after the other.

    Attributes:
        here: the engine of this process; None in other processes.
    """

    here: ClassVar[EngineSpec | None] = None

    def __init__(self, spec: EngineSpec, controller: Any, replica: tuple[str, Any] | None) -> None:
        os.environ.update(spec.environment)
        keep_sockets_from_children()  # before any user code runs, so all of these sockets belong to Ray
        spec = with_labels(spec, labels_here())
        host = ProcessHost(output_folder(spec.cluster), f"engine-{spec.engine_id}", spec.incarnation)
        line = ControllerClient(RayControllerChannel(controller))
        self._spills = SpillCheck()
        self._large: dict[bytes, Any] = {}
        assert host.output_path is not None, "a process has files of output"
        self._direct: DirectServer | None = None
        with contextlib.suppress(OSError):  # clients call through Ray
            self._direct = DirectServer(host.output_path, self._handle_direct, self._large)
        fence = (lambda: None) if self._direct is None else self._direct.fence
        self._engine = EngineActor(spec, line, host, RayStore(), replica_for(replica), fence)
        _skip_debugger()
        RayEngine.here = spec

    def handle(self, header: bytes) -> Any:
        """Run a request."""
        return self.handle_large(header)

    def handle_large(self, header: bytes, buffers: tuple[Any, ...] = (), refs: tuple[Any, ...] = ()) -> Any:
        """Run a request with a large payload beside it."""
        return self._handle(header, buffers, refs, past_ray=False)

    def _handle(self, header: bytes, buffers: tuple[Any, ...], refs: tuple[Any, ...], *, past_ray: bool) -> Any:
        if self._large:
            if header in self._large:  # the client asks for a large reply again through Ray, which must own it
                kept = self._large.pop(header)
                if isinstance(kept, Exception):
                    raise kept
                return kept
            self._keep_large()
        request, payload = decode_request(header, buffers, refs)
        try:
            reply, result = self._engine.handle(request, payload)
        except EngineEnds as ends:
            raise EngineGone(str(ends), last_begun=ends.last_begun, wanted=True) from None
        if not past_ray and self._direct is not None:
            self._direct.called_through_ray(request.id.client.encode())
        flush_all()
        sealed = seal(result, MESSAGE_BYTES if past_ray else None)
        if sealed.buffers:
            require_room("the result", sum(memoryview(buffer).nbytes for buffer in sealed.buffers))
        if sealed.buffers and (warning := self._spills.before_put(sealed.buffers)):
            reply = _with_remark(reply, f"{type(warning).__name__}: {warning}\n")
        header = encode_reply(reply, sealed)
        self._engine.replies.store(reply, header, result, sealed)
        return (header, [as_array(b) for b in sealed.buffers], list(sealed.refs)) if sealed.buffers else header

    def serve(self, epoch: int, line: bytes) -> bool:
        """Run the requests that clients of this host have sent past Ray; see :class:`DirectServer`."""
        return self._direct is not None and self._direct.serve(epoch, line)

    def _handle_direct(self, header: bytes) -> bytes | None:
        """Run a request that has come past Ray; return its reply, or None if the reply is too large for the socket."""
        try:
            reply = self._handle(header, (), (), past_ray=True)
        except EngineGone:
            raise
        except Exception as error:  # no room for the result; the client must get this error through Ray
            reply = error
        if isinstance(reply, bytes) and len(reply) <= MESSAGE_BYTES:
            return reply
        self._large[header] = reply
        return None

    def _keep_large(self) -> None:
        """Copy the large replies that nobody has asked for yet, because the next request may change their arrays."""
        for header, reply in self._large.items():
            if isinstance(reply, tuple) and reply[1][0].base is not None:
                head, arrays, refs = reply
                try:
                    self._large[header] = head, [array.copy() for array in arrays], refs
                except MemoryError as error:
                    self._large[header] = error

    def is_here(self) -> None:
        """Do nothing: if the engine could not be made, Ray ends the process at this first call."""

    def end(self, end_requested: Any) -> None:
        """End the interpreter gracefully.

        The controller calls this early, with an argument that resolves when the engine must end; so the call fails at
        the moment when this process dies. When the call has returned, the controller kills the process. Rejected: an
        exit of the process, which Ray would treat as a failure; and ``exit_actor``, after which Ray would report the
        process as dead 0.4 s before its files are closed.
        """
        _spare_ray_at_exit()
        self._engine.end()


def engine_here() -> tuple[ConnectionInfo, int] | None:
    """Return the connection info and the id of the engine in this process; None if this process is not an engine."""
    spec = RayEngine.here
    if spec is None:
        return None
    import ray

    return connection_info(ray, namespace_of(spec.cluster)), spec.engine_id


def _spare_ray_at_exit() -> None:
    """Remove Ray's own exit handler, which would end this process before some of the user's handlers have run.

    The handler's name is private. If Ray drops the name, this process ends while handlers run; nothing else is lost.
    """
    import ray

    worker: Any = getattr(getattr(ray, "_private", None), "worker", None)
    if hasattr(worker, "shutdown"):
        atexit.unregister(worker.shutdown)


def _skip_debugger() -> None:
    """Let direct calls to Ray's debugger act as ``breakpoint()``, because Ray's debugger would wait at a port."""
    with contextlib.suppress(ImportError):
        from ray.util import rpdb

        rpdb.set_trace = lambda *_: sys.breakpointhook()


def _with_remark(reply: Reply, text: str) -> Reply:
    """Return a reply whose output ends with a line on stderr."""
    tail = reply.tail
    return reply._replace(tail=tail._replace(chunks=(*tail.chunks, StreamText("stderr", text))))
