"""Bulk-synchronous parallel programs: supersteps of local work and communication, each ended by a barrier.

The rules are those of BSPlib. Within a superstep nothing arrives. At its end, first every get reads its variable,
then every put writes its variable, and then messages can be received, for one superstep. Variables are names in the
namespaces of engines, so they can be looked at and changed from the prompt between any two supersteps.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from nsactors.errors import MeetingFailed, MemberLost, ServiceClosed, WrongValue
from nsactors.protocol import arguments as arg
from nsactors.protocol.messages import Reference
from nsactors.protocol.targets import resolve
from nsactors.services.mailboxes import Collective, Mailboxes, MailboxMember
from nsactors.services.service import Parcel, Service, ServiceFuture

if TYPE_CHECKING:
    from nsactors.views.direct import DirectView

__all__ = [
    "BSP",
    "Message",
    "Process",
]


class Message(NamedTuple):
    """A message that another process sent in the last superstep."""

    source: int
    tag: Any
    value: Any


class _Superstep:
    """The gets, puts and messages of a process in a superstep, for each of the other processes."""

    def __init__(self) -> None:
        self.gets: defaultdict[int, list[tuple[str, Any, str]]] = defaultdict(list)
        self.puts: defaultdict[int, list[tuple[str, Any, Parcel]]] = defaultdict(list)
        self.sends: defaultdict[int, list[tuple[Any, Parcel]]] = defaultdict(list)


class Process:
    """One process of a program: ``bsp`` in the namespace of an engine.

    Args:
        names: the namespace of its engine.
        service: carries the messages of the processes.
        pid: its own number.
        nprocs: the number of processes.
    """

    def __init__(self, names: dict[str, Any], service: Service, pid: int, nprocs: int) -> None:
        self.pid, self.nprocs = pid, nprocs
        self.received: list[Message] = []
        self._names, self._service = names, service
        self._superstep = _Superstep()
        self._round = 0
        self._told: ServiceFuture | None = None  # kept, because a future that nobody holds withdraws its request

    def __getitem__(self, name: str) -> Any:
        """Return a variable of the engine's namespace, which a program that is a function cannot name directly."""
        arg.check("process[name]", name=arg.text(name))
        return self._names[name]

    def __setitem__(self, name: str, value: Any) -> None:
        """Set a variable of the engine's namespace."""
        arg.check("process[name] = value", name=arg.text(name))
        self._names[name] = value

    def put(self, pid: int, name: str, value: Any, at: Any = None) -> None:
        """Bind ``name`` to ``value`` (as it is now) on another process, at the end of this superstep.

        Args:
            pid: the other process, or this one.
            name: the name of the variable there.
            value: any value that can be pickled.
            at: carry out ``name[at] = value`` instead.
        """
        arg.check("put", name=arg.text(name))
        self._superstep.puts[self._checked("put", pid)].append(
            (name, at, self._service.pack(value, f"the value put into {name!r}"))
        )

    def get(self, pid: int, name: str, into: str, at: Any = None) -> None:
        """Bind ``into``, here, to ``name`` (or ``name[at]``) of another process, at the end of this superstep.

        Raises:
            LookupError: (by :meth:`sync`) if there is no such variable, or part of it, or its value cannot be sent.
        """
        arg.check("get", name=arg.text(name), into=arg.text(into))
        self._superstep.gets[self._checked("get", pid)].append((name, at, into))

    def send(self, pid: int, value: Any, tag: Any = None) -> None:
        """Send a message; the other process finds it in ``received`` in the next superstep, and only then."""
        self._superstep.sends[self._checked("send", pid)].append((tag, self._service.pack(value, "the message")))

    def sync(self) -> None:
        """End this superstep.

        Raises:
            MeetingFailed: in all processes, if they do not all come to the end of a superstep.
            MemberLost: in all other processes, if the engine of one has died.
        """
        step, self._superstep = self._superstep, _Superstep()
        everybody = range(self.nprocs)
        asks = bool(step.gets)
        wanted = {p: [(name, at) for name, at, _ in step.gets[p]] for p in everybody}
        mine = {p: (asks, self._service.pack((wanted[p], step.puts[p], step.sends[p]))) for p in everybody}
        came = self._meet("sync", mine)
        theirs = [self._service.unpack(parcel) for _, parcel in came]
        if any(asked for asked, _ in came):  # all processes know whether one of them has any gets
            got = self._meet("the gets of sync", {p: [self._read(*want) for want in theirs[p][0]] for p in everybody})
        else:
            got = [[] for _ in everybody]
        for _, arrived, _ in theirs:
            for name, at, parcel in arrived:
                self._write(name, at, self._service.unpack(parcel, copy=True))
        self.received = [
            Message(source, tag, self._service.unpack(parcel, copy=True))
            for source, (_, _, sent) in enumerate(theirs)
            for tag, parcel in sent
        ]
        for pid in everybody:
            for (name, _, into), (parcel, problem) in zip(step.gets[pid], got[pid], strict=True):
                if parcel is None:
                    raise LookupError(f"get({name!r}) from process {pid}: {problem}")
                self._names[into] = self._service.unpack(parcel, copy=True)

    def run(self, program: Callable[..., Any], *args: Any, round: int = 0) -> Any:
        """Call ``program(self, *args)``, which must have as many supersteps as on the other processes.

        Args:
            program: the program.
            args: its other arguments.
            round: the number of this call, the same for all processes and larger than that of the previous call.
        """
        arg.check("run", program=arg.function(program), round=arg.whole(round, at_least=0))
        self.forget()
        self._round = round
        try:
            result = program(self, *args)
            self._meet("the end of the program", {})
        except (MeetingFailed, MemberLost):  # all processes get these
            raise
        except BaseException as error:
            # The other processes get this error when they come to the end of a superstep; this process does not wait
            # for them.
            with contextlib.suppress(ServiceClosed):
                self._told = self._service.ask(self._meeting(f"failed with {type(error).__name__}", {}))
            raise
        return result

    def forget(self) -> None:
        """Begin this superstep anew: drop its gets, puts and messages, and the messages that have arrived."""
        self._superstep = _Superstep()
        self.received = []
        self._told = None

    def _meeting(self, what: str, parcels: dict[int, Any]) -> Collective:
        return Collective(MailboxMember("bsp", self.pid), self.nprocs, what, parcels, self._round)

    def _meet(self, what: str, parcels: dict[int, Any]) -> list[Any]:
        came: list[Any] = self._service.call(self._meeting(what, parcels))
        return came

    def _read(self, name: str, at: Any) -> tuple[Parcel | None, str]:
        try:
            return self._service.pack(self._names[name] if at is None else self._names[name][at]), ""
        except Exception as error:  # it is raised in the process that asked
            return None, f"{type(error).__name__}: {error}"

    def _write(self, name: str, at: Any, value: Any) -> None:
        if at is None:
            self._names[name] = value
        else:
            self._names[name][at] = value

    def _checked(self, call: str, pid: int) -> int:
        arg.check(call, pid=arg.whole(pid))
        if not 0 <= pid < self.nprocs:
            raise WrongValue(call, "pid", pid, f"the number of one of {self.nprocs} processes, from 0")
        return operator.index(pid)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a process belongs to the namespace of its engine, and cannot be sent or saved")

    def __repr__(self) -> str:
        return f"<process {self.pid} of {self.nprocs}>"


class BSP:
    """A bulk-synchronous parallel machine: the engines of a view, in its order, are the processes.

    Args:
        view: the engines.
        name: the name of each engine's own :class:`Process`.

    Example:
        >>> machine = rc[:].bsp()
        >>> %px x = bsp.pid ** 2
        >>> machine.step("bsp.put((bsp.pid + 1) % bsp.nprocs, 'y', x)")
        >>> rc["y"]
        [9, 0, 1, 4]
    """

    def __init__(self, view: DirectView, name: str = "bsp") -> None:
        from nsactors.views.direct import DirectView  # deferred: engines import this module too, and have no views

        arg.check("BSP", view=arg.instance(view, DirectView, "a direct view"), name=arg.identifier(name))
        engines = resolve(view.targets, view.client.ids)
        self._name = name
        self._view: DirectView = view.client[engines]
        self._service = view.client.host(Mailboxes())
        self._rounds = itertools.count(1)
        for pid, engine in enumerate(engines):
            bind = view.client[engine].apply_sync
            bind(_bind, Reference("globals()"), name, self._service, pid, len(engines))

    def step(self, code: str) -> None:
        """Run a cell in all processes, and end the superstep.

        Raises:
            CompositeError: if the cell fails in a process. In this case the superstep has not ended, and nothing has
                arrived.
        """
        arg.check("step", code=arg.text(code))
        try:
            self._view.execute(code, block=True)
        except BaseException:
            self._view.apply_async(Process.forget, Reference(self._name))  # runs before the next call
            raise
        self._view.apply_sync(Process.sync, Reference(self._name))

    def run(self, program: Callable[..., Any], *args: Any) -> list[Any]:
        """Call ``program(process, *args)`` on each engine; return the values in the order of the processes.

        Raises:
            CompositeError: if the program fails in one process, or has fewer supersteps there; it then fails in all.
        """
        arg.check("run", program=arg.function(program))
        reference, round = Reference(self._name), next(self._rounds)
        results: list[Any] = self._view.apply_sync(Process.run, reference, program, *args, round=round)
        return results

    def close(self) -> None:
        """End the machine: a process that waits for others gets ServiceClosed."""
        self._service.close()


def _bind(names: dict[str, Any], name: str, *process: Any) -> None:
    names[name] = Process(names, *process)
