"""Requests that clients on the engine's own host send past Ray, over a UNIX socket: the engine's end.

Ray takes 0.7 ms for a call, whatever is called; the socket takes a tenth of that. An engine's code must run on the main
thread of its process, where Ray's calls run as well, one after the other. So a client that has written a request calls
:meth:`DirectServer.serve` through Ray. That call runs the requests that the socket brings. It returns soon after the
last of them, so that other calls have their turn. There is no further thread, and so no hand-over between threads.

The engine cannot see whether calls wait in Ray's queue. So a client that calls through Ray *knocks* first: it sends a
datagram to the engine, which then returns from :meth:`DirectServer.serve` immediately. Clients on other hosts cannot
knock.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import struct
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from nsactors.system.processes import is_alive
from nsactors.transport.channel import (
    ChannelClosed,
    accepted,
    listen,
    peer_process_of,
    receive_datagrams,
    within_limit,
)
from nsactors.transport.packets import PACKET_BYTES, ROOM_BYTES, SEQPACKET, MessageSocket

LINGER_S = 0.02  # the wait for a further request, before other calls through Ray have their turn
LEASE_S = 0.05  # the limit for one call to `serve` while requests keep arriving, if other calls may wait
# The limit if no other client has called through Ray recently: an engine waits up to 5 ms for the next call to `serve`.
LONE_LEASE_S = 0.25
# A client with many engines calls each of them after a pause, in which it calls the others.
LINGER_PAUSES, LEASE_PAUSES = 2, 8  # the engine waits for twice the last pause, and serves for eight times the pause
LONGEST_S = 0.5  # the limit for both times, because calls from other hosts may have to wait that long
ROUND_S = 1.0  # the longest pause; for this time after a call by another client through Ray, pauses do not count
FLUSH_S = 1.0  # the wait for a client that does not read its replies
UNSENT_BYTES = 1_000_000  # the replies that a client may leave unread before more of its requests run
EXIT_S = 0.05  # a process that has closed its sockets because it exits ends within this time
AT_ONCE = 64  # packets to read from one client before the others have their turn

# A packet is a byte for its kind, and further bytes.
NAME, REQUEST, LEAVE = b"n", b"q", b"l"  # from clients; after NAME the line's name follows, after REQUEST the header
REPLY, ASK_RAY = b"r", b"a"  # from the engine; then the number of the request, and after REPLY the encoded reply
LEAVES = b"L"  # from the engine, to the line whose call to `serve` returns; the engine's epoch follows
NUMBER = struct.Struct("<Q")
MESSAGE_BYTES = ROOM_BYTES  # the limit for an encoded request or reply; Ray takes as long for larger ones
BODY = 1 + NUMBER.size


CAN_SERVE = SEQPACKET is not None and hasattr(select, "epoll")
"""True if this system has all that sockets to engines need."""


def socket_path(output_path: str) -> str:
    """Return the path of an engine's socket, which is beside its files of output."""
    return f"{output_path}.socket"


def knock_at(output_path: str, client: bytes) -> None:
    """Let an engine of this host turn to Ray's calls, because ``client`` is about to make one."""
    # A datagram needs no connection. If the queue of unread datagrams is full, one more would make no difference.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        with within_limit(_knock_path(output_path)) as path:
            sender.sendto(client, path)


def _knock_path(output_path: str) -> str:
    return f"{output_path}.knock"


class _ClientLine(MessageSocket):
    """A client's line.

    Attributes:
        process: the id of the client's process.
        name: the name of the line: the name of its client, and a number.
        large: the headers of the requests whose replies the client must ask for through Ray.
    """

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self.process = peer_process_of(connection)
        self.name = b""
        self.large: list[bytes] = []


class DirectServer:
    """The socket of an engine, and the clients that are connected to it.

    Args:
        output_path: the path of the engine's files of output, without their endings; the folder is private.
        run: called with the header of a request; runs the request and returns the encoded reply, or None if the client
            must ask for the reply through Ray.
        large: the replies that have not been asked for yet, by the headers of their requests. Replies to a client
            that has died are removed.

    Raises:
        OSError: if the socket cannot be made.
    """

    def __init__(
        self, output_path: str, run: Callable[[bytes], bytes | None], large: MutableMapping[bytes, Any]
    ) -> None:
        self._run = run
        self._large = large
        if not CAN_SERVE:
            raise OSError("this system has no sockets for packets")
        self._listener = listen(socket_path(output_path), socket.SOCK_SEQPACKET)
        self._knocks = receive_datagrams(_knock_path(output_path))
        self._poll = select.epoll()
        for own_socket in (self._listener, self._knocks):
            own_socket.setblocking(False)
            self._poll.register(own_socket.fileno(), select.EPOLLIN)
        self._through_ray: dict[bytes, float] = {}  # when clients last called through Ray, or knocked
        self._ended: dict[bytes, float] = {}  # when a request of each client last ended
        self._connections: dict[int, _ClientLine] = {}
        self._requests: deque[tuple[_ClientLine, bytes]] = deque()
        self._is_to_leave = False
        self._epoch = 0
        self._buffer = memoryview(bytearray(PACKET_BYTES))
        # A child that a request forks would keep the connections open, and clients would miss the engine's death.
        own = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _close(own()))

    def fence(self) -> None:
        """Let requests that arrive by sockets from now on run after the calls that Ray already has. Thread-safe.

        A new epoch begins, and clients learn its number when :meth:`serve` returns. Only the calls to :meth:`serve`
        that clients make after that are behind the others in Ray's queue. So a call with an earlier epoch runs no more
        requests.
        """
        self._epoch += 1

    def called_through_ray(self, client: bytes) -> None:
        """Keep the time at which a call by a client through Ray ended."""
        self._through_ray[client] = self._ended[client] = time.monotonic()

    def serve(self, epoch: int, name: bytes) -> bool:
        """Run requests until no more arrive, or until it is the turn of other calls.

        Args:
            epoch: the latest epoch that the client knew of when it made this call.
            name: the name of the client's line.

        Returns:
            Whether this engine has sent ``LEAVES`` to the line. If not, the line has no connection here.
        """
        try:
            return self._serve(epoch, name)
        except BaseException:
            # Messages may have been lost. The clients send requests without a reply again through Ray.
            for connection in list(self._connections.values()):
                self._disconnect(connection)
            raise

    def _serve(self, epoch: int, name: bytes) -> bool:
        now = time.monotonic()
        self._take_knocks()
        linger_s, lease_s = self._limits_for(client_of(name), now)
        look_at, leave_at = now + LEASE_S, now + lease_s
        self._is_to_leave = False
        self._accept()
        wait_s = linger_s if self._requests else 0.0  # the request of this call has arrived before the call
        while epoch == self._epoch:
            if not self._requests:
                self._flush_all()  # the client may wait for the rest of a reply
                self._receive(wait_s)
                wait_s = linger_s
                if not self._requests or epoch != self._epoch:
                    break
            self._answer(*self._requests.popleft())
            if (now := time.monotonic()) >= look_at:  # requests may arrive so fast that the engine never waits for one
                self._receive(0.0)
                look_at = now + LEASE_S
            if self._is_to_leave or now >= leave_at:
                break
        self._receive(0.0)
        is_told = False
        for connection in list(self._connections.values()):
            with self._forgetting(connection):
                if connection.name == name:
                    connection.send(LEAVES + NUMBER.pack(self._epoch))
                    is_told = True
                self._flush(connection)  # no later code does this
        while orphan := next((entry for entry in self._requests if entry[0].is_closed), None):
            self._requests.remove(orphan)
            self._answer(*orphan)
        return is_told

    def _answer(self, connection: _ClientLine, header: bytes) -> None:
        reply = self._run(header)
        self._ended[client_of(connection.name)] = time.monotonic()
        number = header[: NUMBER.size]
        if reply is None:
            self._is_to_leave = True  # the client will call through Ray
            connection.large = [*filter(self._large.__contains__, connection.large), header]
        if connection.is_closed:
            self._drop_large(connection)
            return
        with self._forgetting(connection):
            connection.send(ASK_RAY + number if reply is None else REPLY + number + reply)
            if connection.unsent_bytes > UNSENT_BYTES:
                self._flush(connection)

    def _flush_all(self) -> None:
        for connection in [line for line in self._connections.values() if line.has_unsent]:
            with self._forgetting(connection):
                self._flush(connection)

    @staticmethod
    def _flush(connection: _ClientLine) -> None:
        """Wait until a client has taken its replies.

        Raises:
            ChannelClosed: if the client has not taken them within ``FLUSH_S``.
        """
        give_up = time.monotonic() + FLUSH_S
        poll = select.poll()
        poll.register(connection, select.POLLOUT)
        while connection.has_unsent:
            if not poll.poll(max(0.0, give_up - time.monotonic()) * 1000):
                raise ChannelClosed("the client does not read its replies")
            connection.flush()

    def _receive(self, wait_s: float) -> None:
        for descriptor, events in self._poll.poll(wait_s):
            connection = self._connections.get(descriptor)
            if descriptor == self._knocks.fileno():
                self._take_knocks()
            elif connection is None:
                self._accept()
            else:
                self._read(connection, everything=bool(events & select.EPOLLHUP))

    def _read(self, connection: _ClientLine, *, everything: bool) -> None:
        """Take the packets of a client: some of them, or everything that has arrived."""
        try:
            for _ in itertools.count() if everything else range(AT_ONCE):
                packet = connection.receive(self._buffer)
                if packet is None:
                    break
                kind = packet[:1]
                if kind == REQUEST:
                    self._requests.append((connection, bytes(packet[1:])))
                elif kind == NAME:
                    connection.name = bytes(packet[1:])
                else:
                    self._through_ray[client_of(connection.name)] = time.monotonic()
                    self._is_to_leave = True
        except ChannelClosed:
            self._disconnect(connection)

    def _take_knocks(self) -> None:
        """Take the names of clients that call through Ray."""
        with contextlib.suppress(OSError):  # no further datagram has arrived
            for _ in range(AT_ONCE):
                self._through_ray[self._knocks.recv(PACKET_BYTES)] = time.monotonic()
                self._is_to_leave = True

    def _limits_for(self, client: bytes, now: float) -> tuple[float, float]:
        """Return the seconds to wait for further requests of a client, and the seconds to serve in all.

        Both are short if another client has called through Ray recently.
        """
        for times in self._through_ray, self._ended:
            for name in [name for name, at in times.items() if at < now - ROUND_S]:
                del times[name]
        if self._through_ray.keys() - {client}:
            return LINGER_S, LEASE_S
        pause_s = now - self._ended.get(client, now)
        linger_s, lease_s = min(LINGER_PAUSES * pause_s, LONGEST_S), min(LEASE_PAUSES * pause_s, LONGEST_S)
        return max(LINGER_S, linger_s), max(LONE_LEASE_S, lease_s)

    def _accept(self) -> None:
        """Accept all connections that clients have made, and read from each."""
        while True:
            try:
                taken = accepted(self._listener)
            except BlockingIOError:
                return
            if taken is not None:
                connection = self._connections[taken.fileno()] = _ClientLine(taken)
                self._poll.register(connection, select.EPOLLIN)
                self._read(connection, everything=False)

    @contextlib.contextmanager
    def _forgetting(self, connection: _ClientLine) -> Iterator[None]:
        try:
            yield
        except ChannelClosed:
            self._read(connection, everything=True)  # the client may have sent more before it left
            self._disconnect(connection)

    def _disconnect(self, connection: _ClientLine) -> None:
        """Close a connection. The requests of a client that has died run; a living client sends them through Ray."""
        if self._connections.pop(connection.fileno(), None) is None:
            return
        connection.shut_down()
        connection.close()
        others = deque(entry for entry in self._requests if entry[0] is not connection)
        if len(others) == len(self._requests) and not any(header in self._large for header in connection.large):
            return
        if _has_ended(connection.process):
            self._drop_large(connection)
        else:
            self._requests = others

    def _drop_large(self, connection: _ClientLine) -> None:
        for header in connection.large:
            self._large.pop(header, None)

    def close(self) -> None:
        """Close the socket and the connections; in a forked child, only the child's copies."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._listener.close()
        self._knocks.close()
        self._poll.close()


def client_of(line: bytes) -> bytes:
    """Return the client whose line has this name."""
    return line.rpartition(b":")[0]


def _has_ended(process: int) -> bool:
    """Return whether a process whose connection has been closed has ended, or ends now."""
    give_up, pause = time.monotonic() + EXIT_S, threading.Event()
    while is_alive(process):
        if time.monotonic() > give_up:
            return False
        pause.wait(EXIT_S / 20)
    return True


def _close(server: DirectServer | None) -> None:
    if server is not None:
        server.close()
