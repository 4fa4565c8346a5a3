"""Calls to services over a UNIX socket, between their host and callers on its machine.

A call through Ray takes about a millisecond of processor time; a call through a socket takes a twentieth of that. So a
caller on the host's machine also has a socket to the host, for messages of plain values and of this package's own
classes. Other messages go through Ray: long messages, messages with references to the object store, which Ray must see,
and messages with functions or classes of users. The inbox of a service restores the order of a caller's calls, even if
some of them went through Ray and others through the socket.

A message is one packet. The kernel takes a packet whole or not at all, so a KeyboardInterrupt cannot leave half of a
message in the socket. A caller sends ``(reply, method, *terms)``, where ``reply`` is the number of the reply for which
it waits, or 0 if it waits for none; see :class:`CallsOfCaller`. The host sends ``(reply, outcome, value)``.

If a connection ends without a message ``leave``, the caller's process has died; the host learns this immediately.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import itertools
import os
import pickle
import shutil
import socket
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from types import BuiltinFunctionType, FunctionType
from typing import Any, Protocol

from nsactors.errors import AccessRefused, ClusterUnreachable
from nsactors.errors.reporting import print_traceback
from nsactors.protocol.process import OwnProcess
from nsactors.protocol.serialize import BoundedFile
from nsactors.transport.channel import ChannelClosed, accepted, connected, listen
from nsactors.transport.packets import PACKET_BYTES, SEQPACKET, PacketSocket, make_room

HELLO_S = 5.0
AT_ONCE = 16  # packets to read from one caller before it is the turn of the others
_PREFIX, _SOCKET = "s-", "s"
_OWN = "nsactors."
_NAMED = (type, FunctionType, BuiltinFunctionType)

DONE, FAILED, BY_RAY = "done", "failed", "by Ray"
"""Outcomes: a value; an error; and a value that the caller must ask for through Ray, as it cannot take the socket."""


class NotPlain(Exception):
    """A message must go through Ray, because it is long, or has parts that only Ray can send."""


def encode(message: object) -> bytes:
    """Return a message as a packet.

    Raises:
        NotPlain: if it must go through Ray.
    """
    file = BoundedFile(PACKET_BYTES)
    try:
        _PlainPickler(file, 5).dump(message)
    except Exception as error:  # perhaps a class cannot be pickled, which Ray then reports
        raise NotPlain from error
    return file.getvalue()


class _PlainPickler(pickle.Pickler):
    """Refuses those classes, instances and functions that the receiver may not find, or that Ray must see."""

    def reducer_override(self, it: Any) -> Any:
        module = getattr(it if isinstance(it, _NAMED) else type(it), "__module__", None)
        if module == "builtins" or (isinstance(module, str) and module.startswith(_OWN)):
            return NotImplemented
        raise NotPlain(repr(module))


class CallsOfCaller(Protocol):
    """Carries out the messages of one caller, for the host. Replies are sent now or later; see :meth:`Caller.reply`."""

    def receive(self, reply: int, method: str, terms: tuple[Any, ...]) -> None:
        """Carry out a message; an exception becomes its reply."""
        ...

    def end(self) -> None:
        """Handle the end of the connection: the caller has left or died."""
        ...


class Caller:
    """The host's end of a connection, on the event loop of the host.

    Args:
        connection: the connection to the caller.
        open_calls: returns the receiver of the caller's messages; it takes the terms of the caller's first message.
        packet: memory for a packet, which all callers may share.
    """

    def __init__(
        self, connection: socket.socket, open_calls: Callable[[Caller, Any], CallsOfCaller], packet: memoryview
    ) -> None:
        self._socket = PacketSocket(connection)
        self._open_calls = open_calls
        self._calls: CallsOfCaller | None = None
        self._loop = asyncio.get_running_loop()
        self._packet = packet
        self._loop.add_reader(self._socket, self._read)

    def reply(self, number: int, outcome: str, value: Any) -> None:
        """Send a reply; nothing happens if the caller has left.

        Raises:
            NotPlain: if the value must go through Ray; nothing has been sent then.
        """
        if not number or self._socket.is_closed:
            return
        packet = encode((number, outcome, value))
        with contextlib.suppress(ChannelClosed):  # which reading notices
            self._socket.send(packet)
            if self._socket.has_unsent:
                self._loop.add_writer(self._socket, self._write)

    def close(self) -> None:
        """Close the connection."""
        if self._socket.is_closed:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        if self._calls is not None:
            self._calls.end()

    def _read(self) -> None:
        for _ in range(AT_ONCE):
            if self._socket.is_closed:
                return
            try:
                packet = self._socket.receive(self._packet)
            except ChannelClosed:
                self.close()
                return
            if packet is None:
                return
            self._handle(packet)

    def _handle(self, packet: memoryview) -> None:
        try:
            number, method, *terms = pickle.loads(packet)
        except Exception:  # it is no caller of this version
            self.close()
            return
        try:
            if self._calls is not None:
                self._calls.receive(number, method, tuple(terms))
                return
            self._calls = self._open_calls(self, terms)
        except Exception as error:
            try:
                self.reply(number, FAILED, error)
            except NotPlain:
                self.reply(number, FAILED, RuntimeError(f"{type(error).__name__}: {error}"))
            return
        self.reply(number, DONE, None)

    def _write(self) -> None:
        with contextlib.suppress(ChannelClosed):  # which reading notices
            self._socket.flush()
        if not self._socket.has_unsent:
            self._loop.remove_writer(self._socket)


class CallerListener:
    """Accepts callers, on the event loop of the host.

    Args:
        path: the path of the socket, in a private folder.
        open_calls: see :class:`Caller`.

    Raises:
        OSError: if the socket cannot be made.
    """

    def __init__(self, path: str, open_calls: Callable[[Caller, Any], CallsOfCaller]) -> None:
        if SEQPACKET is None:
            raise OSError("this system has no sockets for packets")
        self._open_calls = open_calls
        self._packet = memoryview(bytearray(PACKET_BYTES))
        self._loop = asyncio.get_running_loop()
        self._listener = listen(path, SEQPACKET)
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Accept no more callers."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    def _accept(self) -> None:
        try:
            connection = accepted(self._listener)
        except (BlockingIOError, ConnectionError):  # the caller has left again
            return
        except OSError:  # there are too many open files; further callers call through Ray
            self.close()
            return
        if connection is None:
            return
        if make_room(connection):
            Caller(connection, self._open_calls, self._packet)
        else:
            connection.close()


def new_socket_path(parent: str) -> str:
    """Make a private folder for the socket of a host, and return the path for it.

    Folders of hosts that were killed are removed.

    Args:
        parent: a folder with a short path. The part added to it is no longer than the name of Ray's own socket there.

    Raises:
        OSError: if the folder cannot be made.
    """
    for folder in glob.glob(os.path.join(glob.escape(parent), f"{_PREFIX}*")):
        if _is_deserted(folder):
            shutil.rmtree(folder, ignore_errors=True)
    return os.path.join(tempfile.mkdtemp(prefix=_PREFIX, dir=parent), _SOCKET)


def _is_deserted(folder: str) -> bool:
    """Return whether the process that has listened in a folder has ended."""
    with socket.socket(socket.AF_UNIX, SEQPACKET or socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.path.join(folder, _SOCKET))
        except ConnectionRefusedError:
            return True
        except OSError:  # the folder belongs to another user, or is just being made
            return False
    return False


class HostConnection:
    """A caller's end of a connection, for any number of threads.

    A separate thread reads, because in a user's thread a KeyboardInterrupt could lose a packet that was just read.

    Args:
        connection: the connection to the host, which has accepted the caller.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._numbers = itertools.count(1)
        self._replies: dict[int, Future[tuple[str, Any]]] = {}
        self._process = OwnProcess()
        self._has_ended = False
        _of_this_process.add(self)
        threading.Thread(target=self._read, name="nsactors-service", daemon=True).start()

    def ask(self, method: str, *terms: Any) -> Future[tuple[str, Any]]:
        """Send a message; return a future of its reply, which is an outcome and a value.

        The future raises ChannelClosed if the host has ended.

        Raises:
            NotPlain: if the message must go through Ray; nothing has been sent then.
        """
        number = next(self._numbers)
        packet = encode((number, method, *terms))
        reply: Future[tuple[str, Any]] = Future()
        self._replies[number] = reply
        try:
            self._socket.send(packet)
        except OSError:
            self._has_ended = True
        # The reading thread fails the replies registered before it set this flag; this thread fails a later one.
        if self._has_ended:
            self._fail(number)
        return reply

    def tell(self, method: str, *terms: Any) -> None:
        """Send a message without a reply, if the host still runs; callable from anywhere.

        Raises:
            NotPlain: see :meth:`ask`.
        """
        packet = encode((0, method, *terms))
        with contextlib.suppress(OSError):
            self._socket.send(packet)

    def close(self) -> None:
        """Close the connection; what has been sent still arrives."""
        if self._process.is_here:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # the reading thread then closes it

    def abandon(self) -> None:
        """Close the descriptor in a forked process; the connection stays open in the parent."""
        self._socket.close()

    def _read(self) -> None:
        packet = memoryview(bytearray(PACKET_BYTES))
        while size := self._next(packet):
            try:
                number, outcome, value = pickle.loads(packet[:size])
            except Exception:  # such as a lack of memory; waiting calls fail as if the host had ended
                print_traceback()
                break
            reply = self._replies.pop(number, None)
            if reply is not None:
                with contextlib.suppress(InvalidStateError):
                    reply.set_result((outcome, value))
            del reply, value
        # Set before the registered calls fail: a call that is registered later sees the flag.
        self._has_ended = True
        for number in list(self._replies):
            self._fail(number)
        self._socket.close()

    def _next(self, packet: memoryview) -> int:
        """Receive a packet and return its size; 0 at the end of the connection."""
        while True:
            try:
                return self._socket.recv_into(packet)
            except ConnectionResetError:  # the host has ended; the packets that it sent before can still be read
                continue
            except OSError:
                return 0

    def _fail(self, number: int) -> None:
        reply = self._replies.pop(number, None)
        if reply is not None:
            with contextlib.suppress(InvalidStateError):
                reply.set_exception(ChannelClosed("the host has ended"))


_of_this_process: weakref.WeakSet[HostConnection] = weakref.WeakSet()


def _after_fork() -> None:
    for connection in list(_of_this_process):
        connection.abandon()
    _of_this_process.clear()


os.register_at_fork(after_in_child=_after_fork)


def connect(path: str, *hello: Any) -> HostConnection | None:
    """Return a connection to the host; None if this process cannot reach its socket, or it belongs to another user.

    Args:
        path: the path of the host's socket, on the host's machine.
        hello: the first message, by which the host learns who calls.
    """
    if SEQPACKET is None or not path or sys.is_finalizing():
        return None
    try:
        connection = connected(path, "services", SEQPACKET)
    except (ClusterUnreachable, AccessRefused):  # it is on another machine, or in another container
        return None
    try:
        connection.settimeout(HELLO_S)
        if make_room(connection):
            connection.send(encode((1, "hello", *hello)))
            if pickle.loads(connection.recv(PACKET_BYTES) or encode(())) == (1, DONE, None):
                connection.settimeout(None)
                return HostConnection(connection)
    except OSError:
        pass
    except BaseException:
        connection.close()
        raise
    connection.close()
    return None
