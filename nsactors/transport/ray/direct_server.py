"""Requests that clients on the engine's own host send past Ray, over a UNIX socket: the engine's end.

Ray takes 0.7 ms for a call, whatever is called; the socket takes a tenth of that. An engine's code must run on the main
thread of its process, which Ray's calls take as well, one after the other. So a client that has written a request calls
:meth:`DirectServer.serve` through Ray. That call runs what the socket brings for as long as more comes, and returns
soon after, so that other calls have their turn. There is no further thread, and so no hand-over between threads.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import struct
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator

from nsactors.transport.channel import ChannelClosed, accepted, listen
from nsactors.transport.packets import PACKET_BYTES, SEQPACKET, PacketSocket

LINGER_S = 0.02  # wait for a further request, before other calls through Ray have their turn
LEASE_S = 0.05  # the limit for one call of `serve` when requests keep coming
FLUSH_S = 1.0  # patience with a client that does not read its replies
AT_ONCE = 64  # packets to read from one client before the others have their turn

# A packet is a byte for its kind, and further bytes.
REQUEST, LEAVE = b"q", b"l"  # from clients; the header of a request follows
REPLY, ASK_RAY = b"r", b"a"  # from the engine; the number of the request follows, and the encoded reply
LEAVES = b"L"  # from the engine; its epoch follows
NUMBER = struct.Struct("<Q")
MESSAGE_BYTES = PACKET_BYTES - 64  # the limit for an encoded request or reply
BODY = 1 + NUMBER.size


CAN_SERVE = SEQPACKET is not None and hasattr(select, "epoll")
"""True if this system has all that sockets to engines need."""


def socket_path(output_path: str) -> str:
    """Return the path of an engine's socket, which is beside its files of output."""
    return f"{output_path}.socket"


class DirectServer:
    """The socket of an engine, and the clients that are connected to it.

    Args:
        path: the path of the socket, in a private folder.
        run: called with the header of a request; runs the request and returns the encoded reply, or None if the client
            is to ask for the reply through Ray.

    Raises:
        OSError: if there can be no such socket.
    """

    def __init__(self, path: str, run: Callable[[bytes], bytes | None]) -> None:
        self._run = run
        if not CAN_SERVE:
            raise OSError("this system has no sockets for packets")
        self._listener = listen(path, socket.SOCK_SEQPACKET)
        self._listener.setblocking(False)
        self._poll = select.epoll()
        self._poll.register(self._listener.fileno(), select.EPOLLIN)
        self._connections: dict[int, PacketSocket] = {}
        self._requests: deque[tuple[PacketSocket, bytes]] = deque()
        self._is_to_leave = False
        self._epoch = 0
        self._buffer = memoryview(bytearray(PACKET_BYTES))
        # A child that a request forks would keep the connections open, and clients would miss the engine's death.
        own = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _close(own()))

    def fence(self) -> None:
        """Let requests that arrive by sockets from now on run after the calls that Ray already has. Thread-safe.

        A new epoch begins, which clients learn when :meth:`serve` returns. Only calls that they make after that are
        behind the others in Ray's queue, so calls of :meth:`serve` with an earlier epoch run nothing more.
        """
        self._epoch += 1

    def serve(self, epoch: int) -> None:
        """Run requests until none comes any more, or other calls are to have their turn.

        Args:
            epoch: the latest epoch that the client knew of when it made this call.
        """
        try:
            self._serve(epoch)
        except BaseException:
            # Messages may have been lost. The clients send requests without a reply again through Ray.
            for connection in list(self._connections.values()):
                self._disconnect(connection)
            raise

    def _serve(self, epoch: int) -> None:
        now = time.monotonic()
        leave_at = now + LEASE_S
        self._is_to_leave = False
        wait_s = 0.0  # the request that this was called for has arrived before the call
        while epoch == self._epoch:
            if not self._requests:
                self._receive(wait_s)
                wait_s = LINGER_S
                if not self._requests or epoch != self._epoch:
                    break
            self._answer(*self._requests.popleft())
            now = time.monotonic()
            if self._is_to_leave or now >= leave_at:
                break
        self._receive(0.0)
        for connection in list(self._connections.values()):
            with self._forgetting(connection):
                self._flush(connection, now + FLUSH_S)
                connection.send(LEAVES + NUMBER.pack(self._epoch))
        # Requests of clients that have gone, and cannot call again.
        gone = [header for connection, header in self._requests if connection.is_closed]
        self._requests = deque(entry for entry in self._requests if not entry[0].is_closed)
        for header in gone:
            self._run(header)

    def _answer(self, connection: PacketSocket, header: bytes) -> None:
        reply = self._run(header)
        number = header[: NUMBER.size]
        if reply is None:
            self._is_to_leave = True  # the client calls through Ray
        if not connection.is_closed:
            with self._forgetting(connection):
                connection.send(ASK_RAY + number if reply is None else REPLY + number + reply)

    @staticmethod
    def _flush(connection: PacketSocket, give_up: float) -> None:
        """Wait until a client has taken its replies, until a time by the monotonic clock."""
        while connection.has_unsent:
            _, writable, _ = select.select([], [connection], [], max(0.0, give_up - time.monotonic()))
            if not writable:
                raise ChannelClosed("the client does not read its replies")
            connection.flush()

    def _receive(self, wait_s: float) -> None:
        for descriptor, events in self._poll.poll(wait_s):
            connection = self._connections.get(descriptor) or self._accept()
            if connection is not None:
                self._read(connection, everything=bool(events & select.EPOLLHUP))

    def _read(self, connection: PacketSocket, *, everything: bool) -> None:
        """Take the packets of a client: some of them, or everything that has arrived."""
        try:
            for _ in itertools.count() if everything else range(AT_ONCE):
                packet = connection.receive(self._buffer)
                if packet is None:
                    break
                if packet[:1] == REQUEST:
                    self._requests.append((connection, bytes(packet[1:])))
                else:
                    self._is_to_leave = True
        except ChannelClosed:
            self._disconnect(connection)

    def _accept(self) -> PacketSocket | None:
        with contextlib.suppress(OSError):  # the client has gone again
            accepted_socket = accepted(self._listener)
            if accepted_socket is not None:
                connection = self._connections[accepted_socket.fileno()] = PacketSocket(accepted_socket)
                self._poll.register(connection, select.EPOLLIN)
                return connection
        return None

    @contextlib.contextmanager
    def _forgetting(self, connection: PacketSocket) -> Iterator[None]:
        try:
            yield
        except ChannelClosed:
            self._read(connection, everything=True)  # it may have sent more before it went
            self._disconnect(connection)

    def _disconnect(self, connection: PacketSocket) -> None:
        """Close the connection of a client. Its requests still run: it may have been killed since it sent them."""
        if self._connections.pop(connection.fileno(), None) is not None:
            connection.close()

    def close(self) -> None:
        """Close the socket and the connections; in a forked child, only the child's copies."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._listener.close()
        self._poll.close()


def _close(server: DirectServer | None) -> None:
    if server is not None:
        server.close()
