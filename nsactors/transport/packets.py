"""Packets over UNIX sockets between processes of one user: each arrives as it was sent, or not at all.

A message of :mod:`nsactors.transport.channel` may be of any length, and is written by a thread, so that Ctrl-C cannot
leave it half written. The kernel takes a packet as a whole, so any thread may send one, and need not wait.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque

from nsactors.transport.channel import ChannelClosed

PACKET_BYTES = 128 * 1024
ROOM_BYTES = 4 * PACKET_BYTES  # most systems give a connection no more room than this
SEQPACKET = getattr(socket, "SOCK_SEQPACKET", None)
"""The kind of sockets for packets; None if the system has none."""

MORE, LAST = b"+", b"."
_PART_BYTES = PACKET_BYTES - 1
_SPARE_BYTES = 4096  # the room in a buffer that the kernel needs


class PacketSocket:
    """One end of a connection, which never blocks. One thread at a time may use it.

    Args:
        connection: a socket whose other end belongs to the same user.

    Attributes:
        unsent_bytes: the size of the packets that the system has not taken.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._unsent: deque[bytes] = deque()
        self.unsent_bytes = 0

    def fileno(self) -> int:
        """Return the descriptor; -1 if this end has been closed."""
        return self._socket.fileno()

    @property
    def is_closed(self) -> bool:
        """True if this end has been closed."""
        return self._socket.fileno() < 0

    @property
    def has_unsent(self) -> bool:
        """True if the system has not taken all packets."""
        return bool(self._unsent)

    def send(self, packet: bytes) -> None:
        """Send a packet; if the system does not take it now, :meth:`flush` sends it later.

        Raises:
            ChannelClosed: if the other end has closed the connection; packets are dropped.
        """
        assert len(packet) <= PACKET_BYTES, "the receiver would get a part of it"
        self._unsent.append(packet)
        self.unsent_bytes += len(packet)
        if len(self._unsent) == 1:
            self.flush()

    def flush(self) -> None:
        """Send the packets that are left, as far as the system takes them.

        Raises:
            ChannelClosed: see :meth:`send`.
        """
        try:
            while self._unsent:
                self._socket.send(self._unsent[0])
                self.unsent_bytes -= len(self._unsent.popleft())
        except BlockingIOError:
            pass
        except OSError as error:
            self._unsent.clear()
            self.unsent_bytes = 0
            raise ChannelClosed(error.strerror or "it was closed") from None

    def receive(self, buffer: memoryview) -> memoryview | None:
        """Return the next packet, which is in ``buffer``; None if there is none now.

        Args:
            buffer: memory with the length of a packet, or longer.

        Raises:
            ChannelClosed: if there will be no further packet.
        """
        while True:
            try:
                size = self._socket.recv_into(buffer)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                continue  # raised once, before the packets that are left, if the other end closed without reading ours
            except OSError as error:
                raise ChannelClosed(error.strerror or "it was closed") from None
            if not size:
                raise ChannelClosed("it was closed")
            return buffer[:size]

    def shut_down(self) -> None:
        """End the connection for both ends, even if a forked child has a copy of this one."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end; in a forked child, close its copy of this end."""
        self._socket.close()


class MessageSocket(PacketSocket):
    """Messages of any length: a long message takes several packets, each with a mark whether it is the last one.

    A message may not begin with ``MORE`` or ``LAST``.
    """

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM_BYTES)
        self._parts: list[bytes] = []

    def send(self, packet: bytes) -> None:
        """Send a message; see :meth:`PacketSocket.send`."""
        if len(packet) <= PACKET_BYTES:
            return super().send(packet)
        for start in range(0, len(packet), _PART_BYTES):
            kind = MORE if start + _PART_BYTES < len(packet) else LAST
            super().send(kind + packet[start : start + _PART_BYTES])

    def receive(self, buffer: memoryview) -> memoryview | None:
        """Return the next message if all of it has arrived; see :meth:`PacketSocket.receive`."""
        while (packet := super().receive(buffer)) is not None:
            kind = packet[0]
            if kind != MORE[0] and kind != LAST[0]:
                return packet
            self._parts.append(bytes(packet[1:]))
            if kind == LAST[0]:
                message, self._parts = b"".join(self._parts), []
                return memoryview(message)
        return None


def make_room(connection: socket.socket) -> bool:
    """Give a connection room for packets, and return whether the system has granted it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * PACKET_BYTES)
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= PACKET_BYTES + _SPARE_BYTES
