"""The exceptions that nsactors raises.

::

    NsactorsError
    ├── TargetError
    │   ├── NoEngines
    │   ├── NoSuchEngine         also IndexError
    │   └── InvalidTarget        also InvalidArgument, TypeError
    ├── InvalidArgument
    │   ├── WrongType            also TypeError
    │   ├── WrongValue           also ValueError
    │   ├── InvalidTarget        see above
    │   ├── UnknownFlag          also KeyError
    │   ├── UnknownOption        also TypeError
    │   ├── UnknownKey           also KeyError
    │   ├── InvalidName          also ValueError
    │   └── InvalidDependency    also TypeError (see ``tasks``)
    ├── InvalidKey               also TypeError
    ├── SerializationError       also TypeError
    ├── ConnectionLost           also ConnectionError
    │   ├── ClientClosed
    │   ├── ForkedClient
    │   ├── ClusterStopped
    │   │   └── ClusterLost
    │   │       ├── ProgramEnded
    │   │       └── RayShutDown
    │   ├── ClusterUnreachable
    │   │   └── AlreadyConnected see ``joining``
    │   ├── ClusterNotFound      see ``joining``
    │   ├── ClusterNotReady      see ``joining``
    │   ├── AccessRefused        see ``joining``
    │   ├── OutsideCluster       see ``joining``
    │   └── VersionMismatch      see ``joining``
    ├── ClusterNameTaken         see ``joining``
    ├── StoreFull
    ├── SnapshotUnproved
    ├── SnapshotUnwritten
    ├── RayImportedFirst         also RuntimeError (see ``joining``)
    ├── RayStartError            also RuntimeError (see ``joining``)
    ├── ProcessLimit             also RuntimeError (see ``joining``)
    ├── FolderTooLong            also OSError (see ``joining``)
    ├── EngineError
    │   ├── EngineLost
    │   ├── EngineSilent         also TimeoutError
    │   ├── EngineStartError
    │   ├── ObjectLost
    │   └── TaskLost             see ``tasks``
    ├── TaskAborted
    ├── TaskTimeout              also TimeoutError (see ``tasks``)
    ├── SchedulerLost            see ``tasks``
    ├── SchedulerOverloaded      see ``tasks``
    ├── UnmetDependency          see ``tasks``
    ├── ImpossibleDependency     see ``tasks``
    ├── TimeLimitExceeded        also TimeoutError
    ├── ResultUnavailable        also LookupError
    ├── ServiceError             and its subclasses (see ``services``)
    ├── LaunchError              see ``joining``
    ├── CapabilityError
    ├── DebuggerUnavailable
    ├── PackageMissing           also ImportError
    ├── MpiError                 and its subclasses (see ``services``)
    ├── ProtocolError
    │   └── DuplicateRequest
    ├── RemoteError              and the class raised on the engine (see ``remote``)
    └── CompositeError           also ExceptionGroup (see ``remote``)

Each class builds its message from its fields, says what to do next, and survives pickle and copy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from nsactors.errors.formatting import (
    engine_ranges,
    last_lines,
    printable,
    short_repr,
    slice_in_words,
    unknown_keyword,
    with_article,
)


class NsactorsError(Exception):
    """Base of every exception that nsactors raises."""

    def __str__(self) -> str:
        # KeyError's own __str__ would show the repr of the message. The message may quote names and labels that other
        # users chose, and Python writes it to the terminal unescaped.
        return printable(Exception.__str__(self))

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own __reduce__ calls __init__ with args, which here hold the message and not the fields.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[NsactorsError], args: tuple[object, ...], fields: dict[str, object]) -> NsactorsError:
    error = cls.__new__(cls, *args)
    error.args = args  # OSError's __new__ leaves args to __init__
    error.__dict__.update(fields)
    return error


class InvalidArgument(NsactorsError):
    """An argument that a call does not accept. Nothing has been sent or changed."""


class _RefusedArgument(InvalidArgument):
    """A value that a parameter does not accept.

    Args:
        call: the function, such as ``"execute"``, or a statement, such as ``"rc[name] = value"``.
        parameter: the name of the parameter.
        value: the argument; only its short repr is kept.
        takes: what the parameter takes, such as ``"True, False or None"``.
    """

    def __init__(self, call: str, parameter: str, value: object, takes: str) -> None:
        self.call = call
        self.parameter = parameter
        self.value = short_repr(value)
        self.takes = takes
        called = f"{call}()" if call.isidentifier() else call
        super().__init__(f"{called} takes {parameter} as {takes}, not {self.value}")


class WrongType(_RefusedArgument, TypeError):
    """An argument of a type that its parameter does not take.

    Args:
        call: the function, such as ``"execute"``.
        parameter: the name of the parameter.
        value: the argument; only its short repr is kept.
        takes: what the parameter takes, such as ``"True, False or None"``.
    """


class WrongValue(_RefusedArgument, ValueError):
    """An argument of the right type whose value is out of range, or not a choice; for the arguments see `WrongType`."""


class TargetError(NsactorsError):
    """The targets of a call do not select engines of this cluster; nothing has been sent."""


class NoEngines(TargetError):
    """No engine is connected, or targets select none of the connected engines.

    Args:
        hint: advice for the case that no engine is connected; by default, how to start some.
        targets: the targets that select no engine; only their short repr is kept. None if no engine is connected.
        ids: the ids of the connected engines.
    """

    def __init__(self, hint: str | None = None, *, targets: object = None, ids: Iterable[int] = ()) -> None:
        self.hint = hint
        if isinstance(targets, slice):
            self.targets: str | None = f"[{slice_in_words(targets)}]"
        else:
            self.targets = None if targets is None else short_repr(targets)
        self.ids = tuple(ids)
        if self.targets is None:
            text = hint or "start some with Cluster(n=4), or wait for those that are joining"
            super().__init__(f"no engines are connected: {text}")
        else:
            super().__init__(f"{self.targets} selects none of {engine_ranges(self.ids)}: name at least one")


class NoSuchEngine(TargetError, IndexError):
    """An engine id, or a position among the ids, that does not exist.

    Args:
        engine_id: the id or position.
        ids: the ids that exist.
    """

    def __init__(self, engine_id: int, ids: Iterable[int]) -> None:
        self.engine_id = engine_id
        self.ids = tuple(ids)
        match self.ids:
            case ():
                there = "none is connected: Cluster(n=4) starts some"
            case (only,):
                there = f"there is engine {only}: name that one"
            case _:
                there = f"there are {engine_ranges(self.ids)}: name one of them"
        super().__init__(f"there is no engine {engine_id}; {there}")


class InvalidTarget(TargetError, InvalidArgument, TypeError):
    """A value that cannot name engines.

    Args:
        target: the value; only its short repr is kept.
        twice: the engine that the value names more than once, if that is the reason.
    """

    def __init__(self, target: object, twice: int | None = None) -> None:
        self.target = short_repr(target)
        self.twice = twice
        why = (
            "give an int, a list of ints, a slice, or 'all'"
            if twice is None
            else f"it names engine {twice} twice: name each engine once"
        )
        super().__init__(f"{self.target} cannot be a target: {why}")


class UnknownFlag(InvalidArgument, KeyError):
    """A keyword that is not a flag of a view or a call.

    Args:
        name: the keyword.
        known: the flags that exist.
    """

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(unknown_keyword("flag", name, self.known))


class UnknownOption(InvalidArgument, TypeError):
    """A keyword that is not an option of a cluster or a map.

    Args:
        name: the keyword.
        known: the options that exist.
        hint: a further sentence for the message.
    """

    def __init__(self, name: str, known: Iterable[str], hint: str = "") -> None:
        self.name = name
        self.known = tuple(known)
        self.hint = hint
        super().__init__(unknown_keyword("option", name, self.known) + (f"; {hint}" if hint else ""))


class UnknownKey(InvalidArgument, KeyError):
    """A key that a result does not have; for the arguments see `UnknownFlag`."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(unknown_keyword("key", name, self.known))


class InvalidName(InvalidArgument, ValueError):
    """A name to push, pull or scatter that Python cannot bind or look up.

    Args:
        name: the name; only its short repr is kept if it is not a string.
        where: the call and its parameter, such as ``"push(ns)"``.
    """

    def __init__(self, name: object, where: str = "") -> None:
        self.name = name if isinstance(name, str) else short_repr(name)
        self.where = where
        super().__init__(
            f"{f'{where}: ' if where else ''}{short_repr(name)} is not a name in a namespace: "
            "bind to an identifier such as 'x'; to read a value, an expression such as 'x.shape' or 'x[0]' works too"
        )


class InvalidKey(NsactorsError, TypeError):
    """A key that is compared by its identity, or by a method of its class, so that other processes cannot compare it.

    Args:
        type_name: the key's class.
        part: the class of the part of the key that cannot be compared; empty if this is the key itself.
    """

    def __init__(self, type_name: str, part: str = "") -> None:
        key = with_article(type_name) + (f" that holds {with_article(part)}" if part else "")
        super().__init__(
            f"{key} cannot be a key: it has no hash that is the same in every process. Convert it to a number, a text, "
            "a tuple or a frozen dataclass, or give the step a partitioner"
        )
        self.type_name = type_name
        self.part = part


class SerializationError(NsactorsError, TypeError):
    """A value that cannot be pickled, so it cannot leave its process.

    Args:
        what: the place of the value, such as ``"argument 2"`` or ``"name 'sock'"``.
        reason: why it cannot be pickled.
    """

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(
            f"{what} cannot be sent to another process: {reason}. "
            "Send the data it is made from, and create it there with execute()"
        )
        self.what = what
        self.reason = reason


class StoreFull(NsactorsError):
    """The object store of a machine has no room for a value.

    Args:
        what: the value.
        why: the reason and the remedy; by default, that the disk to which the store spills is full.
    """

    def __init__(self, what: str, why: str = "") -> None:
        why = why or (
            "the object store is full, and so is the disk that it spills to. "
            "Delete values that are not needed (rc.memory() lists them), or make room on that disk"
        )
        super().__init__(f"there is no room for {what}: {why}")
        self.what = what
        self.why = why


class SnapshotUnproved(NsactorsError):
    """A snapshot could not be checked in a clean interpreter, and is discarded."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the snapshot could not be checked in a clean interpreter and is not used: {reason}. "
            "The journal continues, and a recovery replays it; take the snapshot again when there is memory for that "
            "interpreter"
        )
        self.reason = reason


class SnapshotUnwritten(NsactorsError):
    """A snapshot could not be written, for lack of room.

    Args:
        engine_id: the engine.
        reason: the message of the operating system.
        waiting: the number of requests that no journal holds.
    """

    def __init__(self, engine_id: int, reason: str, waiting: int) -> None:
        lost = (
            f"{waiting} request{'' if waiting == 1 else 's'} and their effects would be lost if it died now"
            if waiting
            else "the journal continues, and a recovery replays it"
        )
        super().__init__(
            f"the snapshot of engine {engine_id} could not be written: {reason}; {lost}. "
            "Make room on the disk of its machine, and take the snapshot again"
        )
        self.engine_id = engine_id
        self.reason = reason
        self.waiting = waiting


class ConnectionLost(NsactorsError, ConnectionError):
    """This process has no connection to the cluster."""


class ClientClosed(ConnectionLost):
    """The client was closed."""

    def __init__(self) -> None:
        super().__init__("this client is closed: make a new Client to continue")


class ForkedClient(ConnectionLost):
    """A client, or an object made by one, is used in a forked child of its process.

    Args:
        owner: the id of the client's process.
        pid: the id of the child process.
    """

    def __init__(self, owner: int, pid: int) -> None:
        super().__init__(
            f"this client belongs to process {owner}; process {pid} is a forked child, which has none of its threads "
            "and connections and cannot use it: start the child by multiprocessing's 'spawn' method, and connect anew "
            "there with Client.connect(info), where info is cluster.connection_info()"
        )
        self.owner = owner
        self.pid = pid


class ClusterStopped(ConnectionLost):
    """The cluster was stopped."""

    def __init__(self) -> None:
        super().__init__(
            "the cluster has stopped: start another one with Cluster(n=4), or attach to one that `nsactors list` shows"
        )


class ClusterLost(ClusterStopped):
    """A server process of Ray died, and with it the cluster: its engines and their namespaces.

    nsactors has disconnected this process from Ray, because Ray would otherwise have ended the process. The process can
    start or join another cluster.

    Args:
        server: the server process, such as ``"Ray's raylet (process 4711)"``.
        reason: how it ended, as the rest of a sentence: ``"was killed by SIGKILL"``.
    """

    def __init__(self, server: str, reason: str) -> None:
        NsactorsError.__init__(
            self,
            f"{server} {reason}: the cluster is lost, with its engines and their namespaces. This process continues; "
            "start another cluster with Cluster(n=4), or `nsactors start`",
        )
        self.server = server
        self.reason = reason

    def again(self) -> Self:
        """Return an equal error, for another call to raise."""
        return type(self)(self.server, self.reason)


class ProgramEnded(ClusterLost):
    """A program to which this client was attached has ended, or has closed its engine; see ``nsactors.embed``.

    Args:
        name: the name of the program.
        reason: why the connection was lost, if the program has not ended.
    """

    def __init__(self, name: str, reason: str = "") -> None:
        cause = f"the connection to it is lost: {reason}" if reason else "it has ended, or closed its engine"
        NsactorsError.__init__(self, f"the program {name!r} does not answer any more: {cause}")
        self.server = self.name = name
        self.reason = reason

    def again(self) -> Self:
        """Return an equal error, for another call to raise."""
        return type(self)(self.name, self.reason)


class RayShutDown(ClusterLost):
    """The user's code has called ``ray.shutdown()``, which disconnects this process from the cluster."""

    def __init__(self) -> None:
        NsactorsError.__init__(
            self,
            "ray.shutdown() has disconnected this process from the cluster; a cluster that this process had started "
            "has ended. Start another cluster with Cluster(n=4), or connect to a running one with Client()",
        )
        self.server = "Ray"
        self.reason = "was shut down"

    def again(self) -> Self:
        """Return an equal error, for another call to raise."""
        return type(self)()


class ClusterUnreachable(ConnectionLost):
    """No cluster answers.

    Args:
        address: the address that was tried.
        reason: the cause.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(
            f"no cluster answers at {address}: {reason}. Check that it runs, or start one with Cluster(n=4)"
        )
        self.address = address
        self.reason = reason


class EngineError(NsactorsError):
    """An engine failed, rather than the code that it ran."""


# Reasons for ends that are no deaths. Like all reasons they name no engine, since one line may be about several.
SHUTDOWN_REQUESTED = "a shutdown was requested"
RESTART_REQUESTED = "a restart was requested"


class EngineLost(EngineError):
    """An engine's process died, and a call sent to it has no result.

    Args:
        engine_id: the engine.
        call: the call that fails, such as ``"apply(f)"``; empty if there was none.
        reason: how the process died, such as ``"killed by signal 9 (SIGKILL)"``.
        stderr_tail: the last lines that this call wrote; the message shows ten of them.
        after: whether the engine restarts, and what to do now.
        began: whether the call had begun; None if unknown.
        running: the call that the engine was running instead, if known.
    """

    def __init__(
        self,
        engine_id: int,
        call: str,
        reason: str,
        stderr_tail: str = "",
        after: str = "It does not restart, and its namespace is lost; the other engines continue",
        *,
        began: bool | None = True,
        running: str = "",
    ) -> None:
        match call, began:
            case "", _:
                during, waited = " while idle", ""
            case _, True:
                during, waited = f" while running {call}", ""
            case _, None:
                during, waited = f" before it answered {call}", ""
            case _:
                during = f" while running {running}" if running else ""
                waited = f"{call} had not begun there. "
        # The first line alone must name the engine and the cause: tables and summaries show no more.
        end = "ended" if reason in (SHUTDOWN_REQUESTED, RESTART_REQUESTED) else "died"
        super().__init__(f"engine {engine_id} {end}{during}: {reason}\n" + last_lines(stderr_tail) + waited + after)
        self.engine_id = engine_id
        self.call = call
        self.reason = reason
        self.stderr_tail = stderr_tail
        self.began = began
        self.running = running


class EngineSilent(EngineError, TimeoutError):
    """An engine does not reply to a query, although even a busy engine can reply within milliseconds.

    Args:
        engine_id: the engine.
        call: the query, such as ``"peek(len(x))"``.
    """

    def __init__(self, engine_id: int, call: str) -> None:
        super().__init__(
            f"engine {engine_id} does not reply to {call}: C code holds its interpreter, or it gets no processor time. "
            f"rc.stack({engine_id}) shows the code that it runs"
        )
        self.engine_id = engine_id
        self.call = call


class EngineStartError(EngineError):
    """An engine could not be started.

    Args:
        engine_id: the engine.
        reason: the cause.
        stderr_tail: the last lines that its process wrote; the message shows ten of them.
        after: what to do now.
    """

    def __init__(
        self,
        engine_id: int,
        reason: str,
        stderr_tail: str = "",
        after: str = "Remove the cause and add an engine, or ask for fewer; the other engines continue",
    ) -> None:
        super().__init__(f"engine {engine_id} did not start: {reason}\n" + last_lines(stderr_tail) + after)
        self.engine_id = engine_id
        self.reason = reason
        self.stderr_tail = stderr_tail

    def with_advice(self, after: str) -> EngineStartError:
        """Return a copy of this error with other advice."""
        return type(self)(self.engine_id, self.reason, self.stderr_tail, after)


class ObjectLost(EngineError):
    """A value was lost with the engine that held it.

    Args:
        name: the name or expression that the value was pulled from.
        holder: the engine that held it; None for a client.
        held_since: the call that made the holder keep the value, such as ``"pull(a)"``.
        reason: how it was lost.
    """

    def __init__(self, name: str, holder: int | None, held_since: str, reason: str) -> None:
        whose = "a client" if holder is None else f"engine {holder}"
        super().__init__(
            f"the value of {name!r} that {whose} held since {held_since} is lost: {reason}. "
            "Compute it again, and pull it again"
        )
        self.name = name
        self.holder = holder
        self.held_since = held_since
        self.reason = reason


class PackageMissing(NsactorsError, ImportError):
    """A call needs a package that is not installed.

    Args:
        what: the call, such as ``"to_pandas()"``.
        package: the package.
        install: the command that installs it, such as ``"pip install pandas"``.
    """

    def __init__(self, what: str, package: str, install: str) -> None:
        super().__init__(f"{what} needs {package}, which is not installed here: {install}")
        self.what = what
        self.package = package
        self.install = install


class TaskAborted(NsactorsError):
    """A request was aborted before it ran.

    Args:
        engine_id: the engine whose queue held the request; None for a task that was sent to no engine.
        call: the request, such as ``"apply(f)"``.
    """

    def __init__(self, engine_id: int | None, call: str) -> None:
        ran = "it ran" if engine_id is None else f"engine {engine_id} ran it"
        super().__init__(f"{call} was aborted before {ran}: submit it again if you still want it")
        self.engine_id = engine_id
        self.call = call


class TimeLimitExceeded(NsactorsError, TimeoutError):
    """A call exceeded its time limit and was interrupted; the engine's namespace is as it was at the interrupt.

    Args:
        engine_id: the engine.
        call: the call, such as ``"apply(f)"``.
        limit_s: the limit in seconds.
        ran_s: the duration of the call if it caught the interrupt and continued; None if the interrupt ended it.
        flag: the flag that sets the limit: ``timeout`` of calls, ``time_limit`` of tasks.
    """

    def __init__(
        self, engine_id: int, call: str, limit_s: float, ran_s: float | None = None, *, flag: str = "timeout"
    ) -> None:
        if ran_s is None:
            text = f"{call} was interrupted on engine {engine_id} after its time limit of {limit_s:g} s: "
        else:
            text = (
                f"{call} ran {ran_s:.2g} s on engine {engine_id} against a time limit of {limit_s:g} s, because it "
                "caught the interrupt: let KeyboardInterrupt through, "
            )
        super().__init__(f"{text}allow more time with {flag}=..., or give it less work")
        self.engine_id = engine_id
        self.call = call
        self.limit_s = limit_s
        self.ran_s = ran_s


class ResultUnavailable(NsactorsError, LookupError):
    """The result of a request is not available any more, or never was.

    Args:
        request: the request, such as ``"ann-4f2a:17"``.
        reason: why.
    """

    def __init__(self, request: str, reason: str) -> None:
        super().__init__(f"the result of {request} is not available: {reason}. history() shows the record of it")
        self.request = request
        self.reason = reason


class DebuggerUnavailable(NsactorsError):
    """The debugger cannot be opened.

    Args:
        reason: why, and what to do.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"no debugger was opened: {reason}")
        self.reason = reason


class CapabilityError(NsactorsError):
    """The transport, or this engine as it was started, does not support an operation.

    Args:
        what: the operation, such as ``"interrupt an engine"``.
        who: the part that cannot do it, such as ``"the local transport"`` or ``"this engine"``.
        instead: the alternative, such as ``"use Cluster(backend='ray')"``.
    """

    def __init__(self, what: str, who: str, instead: str) -> None:
        super().__init__(f"{who} cannot {what}: {instead}")
        self.what = what
        self.who = who
        self.instead = instead


class ProtocolError(NsactorsError):
    """A message violates the protocol between clients and engines; it had no effect."""


class DuplicateRequest(ProtocolError):
    """A request that the engine has already received.

    Args:
        engine_id: the engine.
        request_id: the request, as text.
    """

    def __init__(self, engine_id: int, request_id: str) -> None:
        super().__init__(
            f"engine {engine_id} has already received request {request_id} and does not run it twice: "
            "wait for its first reply"
        )
        self.engine_id = engine_id
        self.request_id = request_id
