"""Requests that a client sends past Ray, to engines on its own host, over UNIX sockets: the client's end.

See :mod:`nsactors.transport.ray.direct_server`. The socket only makes small calls faster; all guarantees come from Ray
and from the engine's stream of requests. Whenever something is wrong with a socket (the engine has died, or Ctrl-C has
struck in the middle of a call), the client closes the socket, and sends requests without a reply again through Ray, in
order. The engine runs each request once: for a request that it has already run, it sends the first reply again. If the
engine has died, Ray reports the reason.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from nsactors.errors import ConnectionLost
from nsactors.errors.reporting import report_errors
from nsactors.protocol.engine_info import EngineInfo
from nsactors.protocol.wire import INLINE_LIMIT_BYTES, stamp
from nsactors.transport.base import ClusterEnd, Envelope
from nsactors.transport.channel import SOCKETS, ChannelClosed, connected
from nsactors.transport.packets import PACKET_BYTES, MessageSocket
from nsactors.transport.ray.direct_server import (
    ASK_RAY,
    AT_ONCE,
    BODY,
    CAN_SERVE,
    LEAVE,
    LEAVES,
    MESSAGE_BYTES,
    NAME,
    NUMBER,
    REQUEST,
    ROUND_S,
    knock_at,
    socket_path,
)
from nsactors.transport.ray.object_store import require_room
from nsactors.transport.ray.relays import Promise

# A client must ask for a large result through Ray. After a large result, FIRST_DETOUR requests therefore go through Ray
# from the start. Each further large result doubles this number, up to LONGEST_DETOUR.
FIRST_DETOUR, LONGEST_DETOUR = 8, 256
RECENT_S = 0.05  # after a reply, requests are expected to follow each other quickly


class DirectReply(Promise):
    """The future reply to a request that was sent over a socket.

    Attributes:
        header: the request, to be sent again through Ray.
        is_on_line: the reply is expected on the socket, not through Ray.
    """

    __slots__ = ("header", "is_on_line", "line")

    def __init__(self, line: DirectLine, header: bytes) -> None:
        super().__init__(threading.Lock())
        self.line = line
        self.header = header
        self.is_on_line = True


class DirectLine:
    """The socket to one incarnation of an engine.

    Attributes:
        engine: the incarnation.
        lock: held while the state of the line changes; no listener is called while it is held.
        is_broken: requests go through Ray from now on.
    """

    def __init__(
        self, engine: EngineInfo, connection: socket.socket, stopped: ClusterEnd, reader: _LineReader, client: bytes
    ) -> None:
        self.engine = engine
        self.socket = MessageSocket(connection)
        self.lock = threading.RLock()
        self.is_broken = False
        self._stopped = stopped
        self._reader = reader
        self._name = b"%b:%d" % (client, next(_numbers))
        self._unanswered: dict[int, DirectReply] = {}
        self._deferred: deque[Callable[[], object]] = deque()
        self._epoch = 0
        self._is_called = self._is_leaving = False
        self._read_by: int | None = None
        self._detour = self._last_detour = 0
        self._buffer = memoryview(bytearray(PACKET_BYTES))
        with self.lock:
            self._write(NAME + self._name)
        reader.watch(self)

    @property
    def is_served(self) -> bool:
        """True if the engine reads this line, or has been asked to."""
        return self._is_called and not self._is_leaving and not self.is_broken

    @property
    def is_avoided(self) -> bool:
        """True if requests should go through Ray, because large results have arrived recently."""
        return self._detour > 1

    def takes_detour(self) -> bool:
        """Return whether to send the next request through Ray; see :attr:`is_avoided`."""
        is_avoided = self.is_avoided
        self._detour = max(0, self._detour - 1)
        return is_avoided

    def send(self, requests: Sequence[Envelope], prepared: tuple[bytes, Any]) -> list[DirectReply]:
        """Send requests to the engine; see ``Lane``."""
        return [self._send(seq, stamp(seq, stops_seen, prepared[0])) for _, seq, stops_seen in requests]

    def _send(self, seq: int, header: bytes) -> DirectReply:
        reply = DirectReply(self, header)
        try:
            with self.lock:
                self._unanswered[seq] = reply
                if self.is_broken:
                    self._break_off()  # sends this request last, even if Ctrl-C has left earlier requests unsent
                    return reply
                try:
                    self._write(REQUEST + header)
                    self._call()
                except BaseException:  # Ctrl-C, perhaps in the middle of the message
                    self._break_off()
                    raise
        finally:
            self._call_deferred()
        return reply

    def ask_to_leave(self) -> None:
        """Let the engine turn to calls through Ray, because this client is about to make one."""
        with self.lock:
            if self.is_served and not self._unanswered:
                self._is_leaving = True
                self._write(LEAVE)
        self._call_deferred()

    def receive(self) -> None:
        """Read what has arrived, and deliver replies. Several threads may do so."""
        try:
            for _ in range(AT_ONCE):
                if not self._receive_one() or not self._unanswered:
                    break
        except BaseException:  # Ctrl-C: a message that has been read may be lost
            self.break_off()
            raise
        finally:
            self._call_deferred()

    def flush(self) -> None:
        """Send the messages that the socket has not taken yet."""
        with self.lock:
            if not self.is_broken:
                try:
                    self.socket.flush()
                except ChannelClosed:
                    self._break_off()
                self._reader.watch(self)
        self._call_deferred()

    def break_off(self) -> None:
        """Close the socket, and send requests without a reply through Ray.

        A second call completes a call that was interrupted.
        """
        try:
            with self.lock:
                self._break_off()
        finally:
            self._call_deferred()

    def begin_reading(self) -> bool:
        """Keep other threads from reading this line; return False if another caller reads the line already.

        A caller that waits for a packet would not notice that another thread has read the packet.
        """
        own = threading.get_ident()
        with self.lock:
            if self._read_by is None:
                self._read_by = own
        if self._read_by != own:
            return False
        self._reader.forget(self)
        return True

    def end_reading(self) -> None:
        """Let other threads read this line, if the present thread is its reader."""
        if self._read_by == threading.get_ident():
            self._read_by = None
            self.listen()

    def listen(self) -> None:
        """Let replies be delivered, even if Ctrl-C has stopped a caller that was reading this line."""
        if self.is_broken:
            self.break_off()
        elif self._read_by is None:  # otherwise the caller that reads the line delivers replies, and then calls this
            self._reader.watch(self)

    def _receive_one(self) -> bool:
        """Take a message if one has arrived; return whether one had."""
        with self.lock:
            if self.is_broken:
                self._break_off()  # Ctrl-C may have stopped another thread in the middle of this call
                return False
            try:
                message = self.socket.receive(self._buffer)
            except ChannelClosed:
                self._break_off()
                return False
            if message is None:
                return False
            kind, (number,) = message[:1], NUMBER.unpack_from(message, 1)
            if kind == LEAVES:
                self._take_leave(number)
                return True
            if kind == ASK_RAY:
                self._detour = self._last_detour = min(max(FIRST_DETOUR, 2 * self._last_detour), LONGEST_DETOUR)
                self._send_through_ray(number)
                return True
            self._last_detour -= bool(self._last_detour)
            reply, content = self._unanswered.get(number), bytes(message[BODY:])
        if reply is not None:
            reply.keep(content)
            self._unanswered.pop(number, None)  # only now, because Ctrl-C could have kept the reply from being set
        return True

    def _take_leave(self, epoch: int) -> None:
        self._epoch = epoch
        self._is_called = False
        if self._unanswered:
            self._call()

    def _call(self) -> None:
        """Ask the engine to read this line, unless it still reads the line since the last time it was asked."""
        if self._is_called:
            return
        if self._stopped.is_set():  # the call would make Ray start another cluster
            self._break_off()
            return
        self._is_called, self._is_leaving = True, False
        ended = self.engine.address.serve.remote(self._epoch, self._name).future()
        self._defer(partial(ended.add_done_callback, self._take_end))

    def _take_end(self, ended: Any) -> None:
        # An error may be the only sign of a death, because a child of the engine may have a copy of the socket.
        if ended.exception() is not None or not ended.result():
            self.break_off()

    def _write(self, message: bytes) -> None:
        try:
            self.socket.send(message)
        except ChannelClosed:
            self._break_off()
        else:
            if self.socket.has_unsent:
                self._reader.watch(self)

    def _break_off(self) -> None:
        self.socket.shut_down()  # first, so that the thread that reads lines finishes this if Ctrl-C strikes
        self.is_broken = True
        while self._unanswered:
            self._send_through_ray(next(iter(self._unanswered)))
        self._reader.forget(self)
        self.socket.close()

    def _send_through_ray(self, seq: int) -> None:
        reply = self._unanswered.get(seq)
        if reply is None:
            return
        reply.is_on_line = False
        if not self._stopped.is_set():
            try:
                again = call_engine(self.engine, reply.header).future()
            except Exception as error:
                self._defer(partial(reply.keep, error))
            else:
                self._defer(partial(again.add_done_callback, partial(_keep_outcome, reply)))
        # Only now, because Ctrl-C could have kept the request from being sent. Another thread, which has just received
        # the reply, may have removed it.
        self._unanswered.pop(seq, None)

    def _defer(self, call: Callable[[], object]) -> None:
        """Call a function as soon as the lock has been released; the function may call listeners."""
        self._deferred.append(call)

    def _call_deferred(self) -> None:
        while True:
            try:
                call = self._deferred[0]
            except IndexError:
                return
            call()  # two threads may call it at the same time, which does no harm
            with contextlib.suppress(ValueError):
                self._deferred.remove(call)  # only now, because Ctrl-C could have prevented the call


def call_engine(engine: EngineInfo, header: bytes) -> Any:
    """Send a request through Ray; return Ray's reference to the reply.

    Raises:
        StoreFull: if Ray would put the request into the object store, and there is no room.
    """
    if len(header) > INLINE_LIMIT_BYTES:
        require_room("the request", len(header))
    return engine.address.handle.remote(header)


_numbers = itertools.count()  # the numbers of lines


def _keep_outcome(reply: DirectReply, ended: Any) -> None:
    reply.keep(ended.exception() or ended.result())


class _LineReader:
    """The thread that reads each line that no waiting caller reads."""

    def __init__(self) -> None:
        self._lines: dict[int, tuple[DirectLine, int]] = {}  # each with the events that the thread waits for
        self._lock = threading.Lock()
        self._ended = False
        with contextlib.ExitStack() as opened:  # the process may have too many descriptors or threads
            self._poll = opened.enter_context(select.epoll())
            self._wakes, self._wake = os.pipe()
            opened.callback(os.close, self._wakes)
            opened.callback(os.close, self._wake)
            self._poll.register(self._wakes, select.EPOLLIN)
            threading.Thread(target=self._run, name="nsactors-direct", daemon=True).start()
            opened.pop_all()

    def watch(self, line: DirectLine) -> None:
        """Read a line from now on, and send its messages that the socket has not taken yet."""
        events = select.EPOLLIN | (select.EPOLLOUT if line.socket.has_unsent else 0)
        with self._lock:
            descriptor = line.socket.fileno()
            if self._ended or descriptor < 0:
                return
            if self._lines.get(descriptor) == (line, events):
                return  # the usual case; a system call would also let another thread have the interpreter
            try:
                self._poll.register(descriptor, events)
            except FileExistsError:  # it is watched for other events, or Ctrl-C struck just after the registration
                self._poll.modify(descriptor, events)
            self._lines[descriptor] = line, events

    def forget(self, line: DirectLine) -> None:
        """Stop reading a line."""
        with self._lock:
            descriptor = line.socket.fileno()
            if not self._ended and self._lines.get(descriptor, (None, 0))[0] is line:
                del self._lines[descriptor]
                self._poll.unregister(descriptor)

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            self._ended = True
        os.close(self._wake)

    def _run(self) -> None:
        while True:
            ready = self._poll.poll()
            if self._ended:
                break
            for descriptor, events in ready:
                line, _ = self._lines.get(descriptor, (None, 0))
                if line is None:
                    continue
                with report_errors():
                    if events & select.EPOLLOUT:
                        line.flush()
                    if events & ~select.EPOLLOUT:
                        line.receive()
        self._poll.close()
        os.close(self._wakes)


class DirectLines:
    """A client's lines to the engines on its host.

    Args:
        stopped: set when the cluster has ended for this process.

    Attributes:
        client: the client's name.
    """

    def __init__(self, stopped: ClusterEnd) -> None:
        self.client = os.urandom(8).hex()  # used until the client's name is known
        self._stopped = stopped
        self._is_off = os.environ.get(SOCKETS) == "0" or not CAN_SERVE
        self._here = socket.gethostname()
        self._heard: dict[int, float] = {}
        self._heard_last = -ROUND_S  # when a reply of any engine arrived last
        self._lines: dict[int, DirectLine] = {}
        self._without: dict[int, int] = {}  # by engine: the incarnation to which no connection can be made
        self._reader: _LineReader | None = None
        self._lock = threading.Lock()
        # A forked child would keep the lines open, and engines would not notice this client's death.
        own = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _close_copies(own()))

    def heard(self, engine: EngineInfo) -> None:
        """Keep the time of an engine's reply."""
        self._heard[engine.engine_id] = self._heard_last = time.monotonic()

    def has_sockets(self, engines: Sequence[EngineInfo]) -> bool:
        """Return whether requests to all of these engines can be sent by sockets."""
        return not self._is_off and all(map(self._has_socket, engines))

    def _has_socket(self, engine: EngineInfo) -> bool:
        line = self._line_of(engine)
        if line is not None:
            return not line.is_avoided
        is_here = engine.host == self._here and engine.output_path is not None
        return is_here and self._without.get(engine.engine_id) != engine.incarnation

    def line_for(self, engine: EngineInfo, body: bytes) -> DirectLine | None:
        """Return the line by which to send a small request; None if the request should go through Ray."""
        if self._is_off or len(body) > MESSAGE_BYTES or engine.host != self._here:
            return None
        line = self._line_of(engine)
        if line is not None and line.takes_detour():
            return None
        if line is not None and line.is_served:
            return line
        if len(body) > INLINE_LIMIT_BYTES:
            return line or self._connect(engine)  # through Ray, it would take longer than the call that lets it be read
        # A single request is answered sooner through Ray, because a socket would be served only after a call through
        # Ray. But a client that calls many engines in turn should use the socket if any engine has just replied.
        now = time.monotonic()
        pause_s = now - self._heard.get(engine.engine_id, 0.0)
        if pause_s > RECENT_S and (pause_s > ROUND_S or now - self._heard_last > RECENT_S):
            return None
        return line or self._connect(engine)

    def before_ray(self, engine: EngineInfo) -> None:
        """Let an engine turn to a call through Ray, which is about to be made for this client."""
        line = self._lines.get(engine.engine_id)
        if line is not None and line.is_served:
            line.ask_to_leave()
        elif not self._is_off and engine.host == self._here and engine.output_path is not None:
            knock_at(engine.output_path, self.client.encode())  # the engine may be serving other clients

    def take(self, replies: Sequence[DirectReply], timeout_s: float) -> list[Any] | None:
        """Wait for replies and read their lines here, so that no thread has to be woken. See ``Transport.take``."""
        give_up = time.monotonic() + timeout_s
        for reply in replies:
            if reply.answer is None and not self._take_one(reply, give_up):
                return None
        answers = [reply.answer for reply in replies]
        return None if any(isinstance(answer, Exception) for answer in answers) else answers

    def make_safe(self) -> None:
        """Send requests without a reply through Ray; see ``Transport.make_safe``."""
        for line in list(self._lines.values()):
            try:
                line.break_off()
            except BaseException:  # Ctrl-C
                line.break_off()
                raise

    def close(self) -> None:
        """Close all lines."""
        with self._lock:
            lines, self._lines = list(self._lines.values()), {}
            reader, self._reader = self._reader, None
            self._is_off = True
        for line in lines:
            line.break_off()
        if reader is not None:
            reader.close()

    def _take_one(self, reply: DirectReply, give_up: float) -> bool:
        """Read the line of a reply until the reply has arrived or the time is over; return whether it has arrived."""
        line = reply.line
        try:
            is_free, poll = line.begin_reading(), select.poll()
            with line.lock:
                if not line.is_broken:
                    poll.register(line.socket.fileno(), select.POLLIN)
            while is_free and reply.answer is None and reply.is_on_line and not line.socket.has_unsent:
                left_ms = (give_up - time.monotonic()) * 1000
                if left_ms <= 0 or not poll.poll(left_ms):
                    break
                line.receive()
        finally:
            line.end_reading()
        return reply.answer is not None

    def _line_of(self, engine: EngineInfo) -> DirectLine | None:
        line = self._lines.get(engine.engine_id)
        if line is None or line.is_broken or line.engine.incarnation != engine.incarnation:
            return None
        return line

    def _connect(self, engine: EngineInfo) -> DirectLine | None:
        with self._lock:
            path = engine.output_path
            if self._is_off or path is None or self._without.get(engine.engine_id) == engine.incarnation:
                return None
            if (known := self._line_of(engine)) is not None:
                return known
            try:
                connection = connected(socket_path(path), f"engine {engine.engine_id}", socket.SOCK_SEQPACKET)
            except ConnectionLost:
                self._without[engine.engine_id] = engine.incarnation
                return None
            except OSError:  # the process may have too many descriptors at the moment
                return None
            try:
                self._reader = self._reader or _LineReader()
                line = DirectLine(engine, connection, self._stopped, self._reader, self.client.encode())
                self._lines[engine.engine_id] = line
            except (OSError, RuntimeError):  # too many descriptors or threads
                connection.close()
                return None
            return line


def _close_copies(lines: DirectLines | None) -> None:
    for line in () if lines is None else list(lines._lines.values()):
        line.socket.close()
