"""Message passing between the namespaces of engines, without MPI: mpi4py's lower-case methods over mailboxes.

Where mpi4py is imported as ``from mpi4py import MPI`` this module does as well: ``from nsactors.models import
communicator as MPI``. Objects are pickled; large ones go from the sender's object store to the receiver's.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from nsactors.core.mailboxes import EVERYONE, Letter, Mailboxes, Meet, Member, Put, Take
from nsactors.transport.hosting import Parcel, Pending, Service

if TYPE_CHECKING:
    from nsactors.views.direct import DirectView

__all__ = ["Communicator", "Request", "Status", "communicators"]

ANY_SOURCE = -2  # as in MPICH
ANY_TAG = -1
PROC_NULL = -1
SUM, PROD, MAX, MIN = operator.add, operator.mul, max, min
Operation = Callable[[Any, Any], Any]


def communicators(view: DirectView, name: str = "comm") -> Service:
    """Bind a communicator in the namespace of each engine of a view; ranks are in the order of its targets.

    Args:
        view: the engines.
        name: to bind.

    Returns:
        What carries the messages: ``.close()`` ends it, and whoever waits for a message then gets ServiceClosed.
    """
    service = view.client.host(Mailboxes())
    ranks = [Communicator(service, rank, len(view)) for rank in range(len(view))]
    view.scatter(name, ranks, flatten=True, block=True)  # one for each
    return service


class Status:
    """Where a message came from."""

    def __init__(self) -> None:
        self.source, self.tag = ANY_SOURCE, ANY_TAG

    def Get_source(self) -> int:
        """The rank of the sender."""
        return self.source

    def Get_tag(self) -> int:
        """The tag."""
        return self.tag


class Request:
    """A message under way; see ``mpi4py.MPI.Request``."""

    def __init__(self, pending: Pending | None, opened: Callable[[Letter, Status | None], Any]) -> None:
        self._pending, self._opened = pending, opened

    def wait(self, status: Status | None = None) -> Any:
        """Wait for the message, if this is a receive: what it holds."""
        letter = None if self._pending is None else self._pending.result()
        return None if letter is None else self._opened(letter, status)

    def test(self, status: Status | None = None) -> tuple[bool, Any]:
        """Whether it is complete, and what :meth:`wait` would return."""
        done = self._pending is None or self._pending.done()
        return done, self.wait(status) if done else None

    def cancel(self) -> None:
        """Receive nothing any more."""
        if self._pending is not None:
            self._pending.withdraw()

    @classmethod
    def waitall(cls, requests: Iterable[Request]) -> list[Any]:
        """Wait for all: what each :meth:`wait` returns."""
        return [request.wait() for request in requests]


class Communicator:
    """A group of ranks, and one's own place in it. Methods are those of ``mpi4py.MPI.Comm``.

    Args:
        service: the mailboxes.
        rank: one's own.
        size: how many there are.
        group: whose messages these are, where several share the mailboxes.
    """

    def __init__(self, service: Service, rank: int, size: int, group: str = "world") -> None:
        self._service, self.rank, self.size, self._group = service, rank, size, group
        self._splits = 0

    def Get_rank(self) -> int:
        """One's own number, from 0."""
        return self.rank

    def Get_size(self) -> int:
        """How many ranks there are."""
        return self.size

    def send(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Send an object; returns when it has been copied, whether or not anybody receives it."""
        if dest != PROC_NULL:
            self._check(dest)
            self._service.tell(Put(self._me, dest, tag, self._pack(obj)))

    def recv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Wait for a message and return what it holds; arrays can be written to. ``buf`` is not used."""
        return None if source == PROC_NULL else self._open(self._service.call(self._take(source, tag)), status)

    def isend(self, obj: Any, dest: int, tag: int = 0) -> Request:
        """As :meth:`send`; the request is complete at once."""
        self.send(obj, dest, tag)
        return Request(None, self._open)

    def irecv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Request:
        """Begin to receive. Requests get messages in the order in which they began; one that is dropped gets none."""
        pending = None if source == PROC_NULL else self._service.ask(self._take(source, tag))
        return Request(pending, self._open)

    def sendrecv(
        self, sendobj: Any, dest: int, sendtag: int = 0, recvbuf: Any = None,
        source: int = ANY_SOURCE, recvtag: int = ANY_TAG, status: Status | None = None,
    ) -> Any:  # fmt: skip
        """Send one object and receive another."""
        self.send(sendobj, dest, sendtag)
        return self.recv(recvbuf, source, recvtag, status)

    def probe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Wait until there is a message to receive, and leave it there."""
        return self._look(source, tag, status, waits=True)

    def iprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Whether there is a message to receive now."""
        return self._look(source, tag, status, waits=False)

    def barrier(self) -> None:
        """Wait for all."""
        self._meet("barrier", {})

    Barrier = barrier  # as in mpi4py

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """The object of ``root``."""
        theirs = self._meet(f"bcast from {root}", {EVERYONE: self._pack(obj)} if self.rank == root else {})
        return obj if self.rank == root else self._unpack(theirs[root])

    def scatter(self, sendobj: Sequence[Any] | None, root: int = 0) -> Any:
        """One's own item of the sequence of ``root``, which has one for each rank."""
        return self._unpack(self._meet(f"scatter from {root}", self._shares(sendobj, root))[root])

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        """At ``root`` the objects of all ranks, in order; None elsewhere."""
        theirs = self._meet(f"gather to {root}", {root: self._pack(sendobj)})
        return [self._unpack(parcel) for parcel in theirs] if self.rank == root else None

    def allgather(self, sendobj: Any) -> list[Any]:
        """The objects of all ranks, in order."""
        return self._all("allgather", sendobj)

    def alltoall(self, sendobj: Sequence[Any]) -> list[Any]:
        """One object from each rank; ``sendobj`` has one for each."""
        return [self._unpack(parcel) for parcel in self._meet("alltoall", self._shares(sendobj, self.rank))]

    def reduce(self, sendobj: Any, op: Operation = SUM, root: int = 0) -> Any:
        """At ``root``, ``op`` over the objects of all ranks from left to right; None elsewhere."""
        objects = self.gather(sendobj, root)
        return None if objects is None else functools.reduce(op, objects)

    def allreduce(self, sendobj: Any, op: Operation = SUM) -> Any:
        """``op`` over the objects of all ranks, from left to right: the same to the last bit everywhere."""
        return functools.reduce(op, self._all("allreduce", sendobj))

    def scan(self, sendobj: Any, op: Operation = SUM) -> Any:
        """``op`` over the objects of the ranks up to this one."""
        return functools.reduce(op, self._all("scan", sendobj)[: self.rank + 1])

    def Split(self, color: int = 0, key: int = 0) -> Communicator:
        """A communicator of those that give the same color, in the order of keys and ranks."""
        self._splits += 1
        mine = [who for c, *who in self._all("split", (color, key, self.rank)) if c == color]
        group = f"{self._group}/{self._splits}.{color}"
        return Communicator(self._service, sorted(mine).index([key, self.rank]), len(mine), group)

    @property
    def _me(self) -> Member:
        return Member(self._group, self.rank)

    def _all(self, what: str, obj: Any) -> list[Any]:
        return [self._unpack(parcel) for parcel in self._meet(what, {EVERYONE: self._pack(obj)})]

    def _meet(self, what: str, parcels: dict[int, Parcel]) -> list[Any]:
        theirs: list[Any] = self._service.call(Meet(self._me, self.size, what, parcels))
        return theirs

    def _shares(self, objects: Sequence[Any] | None, root: int) -> dict[int, Parcel]:
        if self.rank != root:
            return {}
        if objects is None or len(objects) != self.size:
            raise ValueError(f"there must be {self.size} objects, one for each rank")
        return {rank: self._pack(obj) for rank, obj in enumerate(objects)}

    def _look(self, source: int, tag: int, status: Status | None, *, waits: bool) -> bool:
        letter = self._service.call(self._take(source, tag, leaves=True, waits=waits))
        if letter is not None and status is not None:
            status.source, status.tag = letter.source, letter.tag
        return letter is not None

    def _take(self, source: int, tag: int, *, leaves: bool = False, waits: bool = True) -> Take:
        if source != ANY_SOURCE:
            self._check(source)
        return Take(self._me, None if source == ANY_SOURCE else source, None if tag == ANY_TAG else tag, leaves, waits)

    def _open(self, letter: Letter, status: Status | None) -> Any:
        if status is not None:
            status.source, status.tag = letter.source, letter.tag
        return self._unpack(letter.parcel)

    def _pack(self, obj: Any) -> Parcel:
        return self._service.pack(obj, "the message")

    def _unpack(self, parcel: Parcel) -> Any:
        return self._service.unpack(parcel, copy=True)

    def _check(self, rank: int) -> None:
        if not 0 <= rank < self.size:
            raise ValueError(f"there is no rank {rank}: there are {self.size}, from 0")

    def __repr__(self) -> str:
        return f"<Communicator: rank {self.rank} of {self.size}>"
