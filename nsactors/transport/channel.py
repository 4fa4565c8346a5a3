"""Messages between processes of one user and machine, over UNIX sockets.

A message consists of parts: a pickle, and beside it the memory of arrays. Reading a pickle runs code, so each end asks
the kernel whether the process at the other end belongs to the same user. No port is opened.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import itertools
import os
import pickle
import pwd
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from nsactors.errors import AccessRefused, ClusterUnreachable

Part = bytes | bytearray | memoryview | pickle.PickleBuffer

SOCKETS = "NSACTORS_SOCKETS"
"""The environment variable that makes a process send its calls through Ray, and not by sockets, if it is 0."""

MARK = b"nsa1"  # in front of each message; a new form of messages would get another number
MOST_PARTS = 1_000_000
AT_ONCE = 512  # parts in one system call; the limit is 1,024
CLOSE_S = 1.0
STANDARD_ERROR = 2
PATH_BYTES = 107  # the system's limit for the path of a socket
_HEAD = struct.Struct("<4sI")
_SIZE = struct.Struct("<Q")
_PEER = struct.Struct("3i")


class ChannelClosed(Exception):
    """The other end has closed the channel, or its process has ended."""


class Channel:
    """Messages over a connected socket, in order. Any thread may send; one thread receives.

    Args:
        connection: the socket, whose other end belongs to the same user.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._outgoing: SimpleQueue[tuple[Sequence[Part], threading.Event | None] | None] = SimpleQueue()
        self._written = threading.Event()
        try:
            threading.Thread(target=self._write, name="nsactors-channel", daemon=True).start()
        except BaseException:  # there may be too many threads
            connection.close()
            raise

    def send(self, parts: Sequence[Part], *, waits: bool = False) -> None:
        """Send a message; do nothing if the channel is closed, which :meth:`receive` reports.

        A separate thread writes the message, because Ctrl-C in this thread could leave half of it in the socket.

        Args:
            parts: the message; its memory must not change until it has been written.
            waits: return when it has been written, or the channel is closed.
        """
        written = threading.Event() if waits else None
        self._outgoing.put((parts, written))
        if self._written.is_set():  # checked after the put: the writer drops only messages that are already queued
            self._drop_queued()
        elif written is not None:
            written.wait()

    def receive(self) -> list[memoryview]:
        """Wait for a message, and return its parts; they are writable.

        Raises:
            ChannelClosed: if there will be no further message.
        """
        mark, count = _HEAD.unpack(self._read(_HEAD.size))
        if mark != MARK or not 0 < count <= MOST_PARTS:
            raise ChannelClosed("its messages have another form")
        sizes = self._read(count * _SIZE.size)
        return [self._read(size) for (size,) in _SIZE.iter_unpack(sizes)]

    def close(self) -> None:
        """Write what has been sent, and close the socket; a receiver of this end gets ``ChannelClosed``."""
        self._outgoing.put(None)
        self._written.wait(CLOSE_S)  # the other end may not read
        self._shut_down()
        self._socket.close()

    def abandon(self) -> None:
        """Close only the descriptor, in a forked process; the channel stays open in the parent."""
        self._socket.close()

    def _read(self, size: int) -> memoryview:
        try:
            data = memoryview(bytearray(size))
        except (MemoryError, OverflowError):
            raise ChannelClosed(f"there is no memory for a message of {size:,} bytes") from None
        position = 0
        while position < size:
            try:
                count = self._socket.recv_into(data[position:])
            except OSError as error:
                raise ChannelClosed(error.strerror or "it was closed") from None
            if not count:
                raise ChannelClosed("it was closed")
            position += count
        return data

    def _write(self) -> None:
        try:
            self._write_queued()
        finally:
            self._written.set()
            self._drop_queued()

    def _write_queued(self) -> None:
        is_open = True
        while (message := self._outgoing.get()) is not None:
            parts, written = message
            if is_open:
                try:
                    self._write_message(parts)
                except Exception:  # the other end has gone, or there is no memory
                    is_open = False
                    self._shut_down()  # ends the readers of both ends: half a message may have been written
            del parts, message
            if written is not None:
                written.set()

    def _shut_down(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _drop_queued(self) -> None:
        """Let the senders of queued messages continue, because nobody will write the messages."""
        with contextlib.suppress(Empty):
            while True:
                message = self._outgoing.get_nowait()
                if message is not None and message[1] is not None:
                    message[1].set()

    def _write_message(self, parts: Sequence[Part]) -> None:
        raw = [pickle.PickleBuffer(part).raw() for part in parts]
        head = _HEAD.pack(MARK, len(raw)) + b"".join(_SIZE.pack(part.nbytes) for part in raw)
        left = deque([memoryview(head), *(part for part in raw if part.nbytes)])
        while left:
            sent = self._socket.sendmsg(list(itertools.islice(left, AT_ONCE)))
            while sent:
                first = left.popleft()
                if sent < first.nbytes:
                    left.appendleft(first[sent:])
                sent -= min(sent, first.nbytes)


def listen(path: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Return a socket that listens at a path in a private folder; only this user can connect to it.

    Args:
        path: the path of the socket.
        kind: the kind of its connections.
    """
    listener = _bound(path, kind)
    try:
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def receive_datagrams(path: str) -> socket.socket:
    """Return a socket at a path in a private folder, to which processes of this user can send datagrams."""
    return _bound(path, socket.SOCK_DGRAM)


def _bound(path: str, kind: int) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, kind)
    try:
        with within_limit(path) as short:
            bound.bind(short)
        os.chmod(path, 0o600)
    except BaseException:
        bound.close()
        raise
    return bound


def accept(listener: socket.socket) -> Channel | None:
    """Wait for a connection; close a connection of another user, and return None.

    Raises:
        OSError: if the listener has been closed.
    """
    connection = accepted(listener)
    return None if connection is None else Channel(connection)


def accepted(listener: socket.socket) -> socket.socket | None:
    """Return the next connection as :func:`accept` does, without a channel."""
    connection, _ = listener.accept()
    if peer_of(connection) != os.geteuid():
        connection.close()
        return None
    return _beyond_streams(connection)


def connect(path: str, name: str) -> Channel:
    """Connect to a socket at which another process of this user listens.

    Args:
        path: the path of the socket.
        name: the name of the program, for errors.

    Raises:
        ClusterUnreachable: if no process listens there.
        AccessRefused: if the process belongs to another user.
    """
    return Channel(connected(path, name))


def connected(path: str, name: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Return a connection as :func:`connect` does, without a channel; ``kind`` is the kind of the listener."""
    connection = socket.socket(socket.AF_UNIX, kind)
    try:
        with within_limit(path) as short:
            connection.connect(short)
        owner = peer_of(connection)
    except PermissionError:
        connection.close()
        raise AccessRefused(name, "its socket belongs to another user") from None
    except OSError as error:
        connection.close()
        raise ClusterUnreachable(name, f"no program listens at {path} ({error.strerror})") from None
    if owner != os.geteuid():
        connection.close()
        raise AccessRefused(name, f"its process belongs to {_user(owner)}")
    return _beyond_streams(connection)


def _beyond_streams(connection: socket.socket) -> socket.socket:
    """Move a socket off the descriptors of standard streams: output to a closed stream would go into the socket."""
    if connection.fileno() > STANDARD_ERROR:
        return connection
    with connection:
        return socket.socket(fileno=fcntl.fcntl(connection.fileno(), fcntl.F_DUPFD_CLOEXEC, STANDARD_ERROR + 1))


@contextlib.contextmanager
def within_limit(path: str) -> Iterator[str]:
    """Give a path to the socket at ``path`` that is short enough for the system."""
    if len(os.fsencode(path)) <= PATH_BYTES:
        yield path
        return
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


def peer_of(connection: socket.socket) -> int:
    """Return the id of the user at the other end, as the kernel knows it."""
    _, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(uid)


def peer_process_of(connection: socket.socket) -> int:
    """Return the id of the process that has made the connection, as the kernel knows it."""
    pid, _, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(pid)


def _user(uid: int) -> str:
    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"another user ({uid})"


Changes = Mapping[type, Callable[[Any], tuple[Any, ...]]]
"""For each class of objects that cannot be pickled: a function that returns a kind and arguments for ``arrive``."""


def encode(message: object, changes: Changes) -> list[Part]:
    """Return a message as parts: a pickle, and beside it the memory that ``PickleBuffer`` objects in it refer to.

    If this memory makes more parts than a message may have, the rest is in the pickle.
    """
    parts: list[Part] = [b""]

    def is_in_pickle(buffer: pickle.PickleBuffer) -> bool:
        if len(parts) == MOST_PARTS:
            return True
        parts.append(buffer)
        return False

    file = io.BytesIO()
    pickler = pickle.Pickler(file, 5, buffer_callback=is_in_pickle)
    pickler.dispatch_table = {kind: _reducer(change) for kind, change in changes.items()}
    pickler.dump(message)
    parts[0] = file.getvalue()
    return parts


def _reducer(change: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda it: (arrived, change(it))


def decode(parts: Sequence[memoryview], arrive: Callable[..., Any]) -> Any:
    """Return the message in some parts.

    Args:
        parts: the parts.
        arrive: makes an object at the receiver from a kind and arguments; see ``Changes``.
    """
    return _MessageUnpickler(parts, arrive).load()


def arrived(*_: object) -> None:
    """Represent, in a pickle, the function of the receiver that makes an object."""
    raise AssertionError("messages are read by decode()")


class _MessageUnpickler(pickle.Unpickler):
    def __init__(self, parts: Sequence[memoryview], arrive: Callable[..., Any]) -> None:
        super().__init__(io.BytesIO(parts[0]), buffers=[part.toreadonly() for part in parts[1:]])
        self._arrive = arrive

    def find_class(self, module: str, name: str) -> Any:
        return self._arrive if (module, name) == (__name__, "arrived") else super().find_class(module, name)
