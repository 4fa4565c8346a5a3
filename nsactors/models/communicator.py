"""Message passing between the namespaces of engines, without MPI: mpi4py's lower-case methods over mailboxes.

A program that says ``from mpi4py import MPI`` can say ``from nsactors.models import communicator as MPI`` instead.
Objects are pickled; large ones go from the sender's object store to the receiver's.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from nsactors.errors import WrongType, WrongValue
from nsactors.protocol import arguments as arg
from nsactors.services.mailboxes import EVERYONE, Collective, Mailboxes, MailboxMember, MailboxMessage, Put, Take
from nsactors.services.service import Parcel, Service, ServiceFuture

if TYPE_CHECKING:
    from nsactors.views.direct import DirectView

__all__ = [
    "Communicator",
    "Request",
    "Status",
    "communicators",
]

ANY_SOURCE = -2  # as in MPICH
ANY_TAG = -1
PROC_NULL = -1
SUM, PROD, MAX, MIN = operator.add, operator.mul, max, min
Operation = Callable[[Any, Any], Any]


def communicators(view: DirectView, name: str = "comm") -> Service:
    """Bind a communicator in the namespace of each engine of a view; ranks are in the order of its targets.

    Args:
        view: the engines.
        name: the name to bind.

    Returns:
        The service that carries the messages: ``.close()`` ends it; ranks that wait for a message get ServiceClosed.
    """
    from nsactors.views.direct import DirectView  # deferred: engines import this module too, and have no views

    arg.check("communicators", view=arg.instance(view, DirectView, "a direct view"), name=arg.identifier(name))
    service: Service = view.client.host(Mailboxes())
    ranks = [Communicator(service, rank, len(view)) for rank in range(len(view))]
    view.scatter(name, ranks, flatten=True, block=True)  # one rank for each engine
    return service


class Status:
    """The source and the tag of a message."""

    def __init__(self) -> None:
        self.source, self.tag = ANY_SOURCE, ANY_TAG

    def Get_source(self) -> int:
        """Return the rank of the sender."""
        return self.source

    def Get_tag(self) -> int:
        """Return the tag."""
        return self.tag


class Request:
    """A message under way; see ``mpi4py.MPI.Request``."""

    def __init__(self, pending: ServiceFuture | None, opened: Callable[[MailboxMessage, Status | None], Any]) -> None:
        self._pending, self._opened = pending, opened

    def wait(self, status: Status | None = None) -> Any:
        """Wait for the message, if this is a receive, and return its object."""
        _check_status("wait", status)
        letter = None if self._pending is None else self._pending.result()
        return None if letter is None else self._opened(letter, status)

    def test(self, status: Status | None = None) -> tuple[bool, Any]:
        """Return whether the request is complete, and if so, the value of :meth:`wait`."""
        _check_status("test", status)
        done = self._pending is None or self._pending.done()
        return done, self.wait(status) if done else None

    def cancel(self) -> None:
        """Cancel the receive."""
        if self._pending is not None:
            self._pending.withdraw()

    @classmethod
    def waitall(cls, requests: Iterable[Request]) -> list[Any]:
        """Wait for all requests; return the values of their :meth:`wait`."""
        arg.check("waitall", requests=arg.iterable(requests, "requests"))
        requests = list(requests)
        for request in requests:
            arg.check("waitall", requests=arg.instance(request, Request, "requests"))
        return [request.wait() for request in requests]


class Communicator:
    """A group of ranks, and this process's own rank in it. Methods are those of ``mpi4py.MPI.Comm``.

    Args:
        service: the mailboxes.
        rank: the rank of this process.
        size: the number of ranks.
        group: tells apart the messages of communicators that share the mailboxes.
    """

    def __init__(self, service: Service, rank: int, size: int, group: str = "world") -> None:
        self._service, self.rank, self.size, self._group = service, rank, size, group
        self._splits = 0

    def Get_rank(self) -> int:
        """Return the rank of this process, from 0."""
        return self.rank

    def Get_size(self) -> int:
        """Return the number of ranks."""
        return self.size

    def send(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Send an object; return when it has been copied, whether or not it has been received."""
        self._check_rank("send", "dest", dest, PROC_NULL)
        arg.check("send", tag=arg.whole(tag, at_least=0))
        if dest != PROC_NULL:
            self._service.tell(Put(self._me, dest, tag, self._pack(obj)))

    def recv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Wait for a message and return its object; arrays can be written to. ``buf`` is not used."""
        _check_status("recv", status)
        take = self._take("recv", source, tag)
        return None if take is None else self._open(self._service.call(take), status)

    def isend(self, obj: Any, dest: int, tag: int = 0) -> Request:
        """Like :meth:`send`; the request is complete immediately."""
        self.send(obj, dest, tag)
        return Request(None, self._open)

    def irecv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Request:
        """Begin to receive. Requests get messages in the order in which they began; a dropped request gets none."""
        take = self._take("irecv", source, tag)
        pending = None if take is None else self._service.ask(take)
        return Request(pending, self._open)

    def sendrecv(
        self, sendobj: Any, dest: int, sendtag: int = 0, recvbuf: Any = None,
        source: int = ANY_SOURCE, recvtag: int = ANY_TAG, status: Status | None = None,
    ) -> Any:  # fmt: skip
        """Send one object and receive another."""
        self._check_rank("sendrecv", "dest", dest, PROC_NULL)
        arg.check("sendrecv", sendtag=arg.whole(sendtag, at_least=0), recvtag=arg.whole(recvtag, at_least=ANY_TAG))
        self._check_rank("sendrecv", "source", source, ANY_SOURCE)
        _check_status("sendrecv", status)
        self.send(sendobj, dest, sendtag)
        return self.recv(recvbuf, source, recvtag, status)

    def probe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Wait until there is a message to receive, without receiving it."""
        return self._look("probe", source, tag, status, waits=True)

    def iprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Return whether there is a message to receive now."""
        return self._look("iprobe", source, tag, status, waits=False)

    def barrier(self) -> None:
        """Wait for all ranks."""
        self._meet("barrier", {})

    Barrier = barrier  # as in mpi4py

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """Return the object of ``root``."""
        self._check_rank("bcast", "root", root)
        theirs = self._meet(f"bcast from {root}", {EVERYONE: self._pack(obj)} if self.rank == root else {})
        return obj if self.rank == root else self._unpack(theirs[root])

    def scatter(self, sendobj: Sequence[Any] | None, root: int = 0) -> Any:
        """Return this rank's item of the sequence of ``root``, which has one for each rank."""
        self._check_rank("scatter", "root", root)
        return self._unpack(self._meet(f"scatter from {root}", self._shares("scatter", sendobj, root))[root])

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        """Return the objects of all ranks, in order, at ``root``; None elsewhere."""
        self._check_rank("gather", "root", root)
        theirs = self._meet(f"gather to {root}", {root: self._pack(sendobj)})
        return [self._unpack(parcel) for parcel in theirs] if self.rank == root else None

    def allgather(self, sendobj: Any) -> list[Any]:
        """Return the objects of all ranks, in order."""
        return self._all("allgather", sendobj)

    def alltoall(self, sendobj: Sequence[Any]) -> list[Any]:
        """Return one object from each rank; ``sendobj`` has one for each."""
        return [self._unpack(parcel) for parcel in self._meet("alltoall", self._shares("alltoall", sendobj, self.rank))]

    def reduce(self, sendobj: Any, op: Operation = SUM, root: int = 0) -> Any:
        """Return ``op`` over the objects of all ranks, from left to right, at ``root``; None elsewhere."""
        arg.check("reduce", op=arg.function(op))
        self._check_rank("reduce", "root", root)
        objects = self.gather(sendobj, root)
        return None if objects is None else functools.reduce(op, objects)

    def allreduce(self, sendobj: Any, op: Operation = SUM) -> Any:
        """Return ``op`` over the objects of all ranks, from left to right: the same to the last bit everywhere."""
        arg.check("allreduce", op=arg.function(op))
        return functools.reduce(op, self._all("allreduce", sendobj))

    def scan(self, sendobj: Any, op: Operation = SUM) -> Any:
        """Return ``op`` over the objects of the ranks up to this one."""
        arg.check("scan", op=arg.function(op))
        return functools.reduce(op, self._all("scan", sendobj)[: self.rank + 1])

    def Split(self, color: int = 0, key: int = 0) -> Communicator:
        """Return a communicator of the ranks that give the same color, in the order of keys and ranks."""
        arg.check("Split", color=arg.whole(color), key=arg.whole(key))
        self._splits += 1
        mine = [who for c, *who in self._all("split", (color, key, self.rank)) if c == color]
        group = f"{self._group}/{self._splits}.{color}"
        return Communicator(self._service, sorted(mine).index([key, self.rank]), len(mine), group)

    @property
    def _me(self) -> MailboxMember:
        return MailboxMember(self._group, self.rank)

    def _all(self, what: str, obj: Any) -> list[Any]:
        return [self._unpack(parcel) for parcel in self._meet(what, {EVERYONE: self._pack(obj)})]

    def _meet(self, what: str, parcels: dict[int, Parcel]) -> list[Any]:
        theirs: list[Any] = self._service.call(Collective(self._me, self.size, what, parcels))
        return theirs

    def _shares(self, call: str, objects: Sequence[Any] | None, root: int) -> dict[int, Parcel]:
        if self.rank != root:
            return {}
        takes = f"a sequence of {self.size} objects, one for each rank"
        try:
            size = len(objects)  # type: ignore[arg-type]
        except Exception:
            raise WrongType(call, "sendobj", objects, takes) from None
        if size != self.size:
            raise WrongValue(call, "sendobj", objects, takes)
        return {rank: self._pack(obj) for rank, obj in enumerate(objects or ())}

    def _look(self, call: str, source: int, tag: int, status: Status | None, *, waits: bool) -> bool:
        _check_status(call, status)
        take = self._take(call, source, tag, leaves=True, waits=waits)
        if take is None:  # as in MPI: a receive from PROC_NULL is complete immediately
            return True
        letter = self._service.call(take)
        if letter is not None and status is not None:
            status.source, status.tag = letter.source, letter.tag
        return letter is not None

    def _take(self, call: str, source: int, tag: int, *, leaves: bool = False, waits: bool = True) -> Take | None:
        """Return the command that receives a message; None for a receive from PROC_NULL."""
        self._check_rank(call, "source", source, ANY_SOURCE)
        arg.check(call, tag=arg.whole(tag, at_least=ANY_TAG))
        if source == PROC_NULL:
            return None
        return Take(self._me, None if source == ANY_SOURCE else source, None if tag == ANY_TAG else tag, leaves, waits)

    def _open(self, letter: MailboxMessage, status: Status | None) -> Any:
        if status is not None:
            status.source, status.tag = letter.source, letter.tag
        return self._unpack(letter.parcel)

    def _pack(self, obj: Any) -> Parcel:
        return self._service.pack(obj, "the message")

    def _unpack(self, parcel: Parcel) -> Any:
        return self._service.unpack(parcel, copy=True)

    def _check_rank(self, call: str, parameter: str, rank: int, lowest: int = 0) -> None:
        """Check that this is a rank, or a negative number that stands for any rank or for none."""
        arg.check(call, **{parameter: arg.whole(rank)})
        if not lowest <= rank < self.size:
            raise WrongValue(call, parameter, rank, f"one of the {self.size} ranks, from 0")

    def __repr__(self) -> str:
        return f"<Communicator: rank {self.rank} of {self.size}>"


def _check_status(call: str, status: Status | None) -> None:
    arg.check(call, status=arg.instance(status, Status, "a Status", or_none=True))
