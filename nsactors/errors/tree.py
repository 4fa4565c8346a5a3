"""The exceptions of nsactors.

::

    NsactorsError
    ├── TargetError
    │   ├── NoEngines
    │   ├── NoSuchEngine         also IndexError
    │   └── InvalidTarget        also TypeError
    ├── UnknownFlag              also KeyError
    ├── UnknownOption            also TypeError
    ├── InvalidName              also ValueError
    ├── SerializationError       also TypeError
    ├── ConnectionLost           also ConnectionError
    │   ├── ClientClosed
    │   ├── ClusterStopped
    │   ├── ClusterUnreachable
    │   ├── ClusterNotFound      see ``joining``
    │   ├── ClusterNotReady      see ``joining``
    │   ├── AccessRefused        see ``joining``
    │   └── VersionMismatch      see ``joining``
    ├── ClusterNameTaken         see ``joining``
    ├── StoreFull
    ├── RayImportedFirst         also RuntimeError (see ``joining``)
    ├── EngineError
    │   ├── EngineLost
    │   ├── EngineStartError
    │   ├── ObjectLost
    │   └── TaskLost             see ``tasks``
    ├── TaskAborted
    ├── TaskTimeout              also TimeoutError (see ``tasks``)
    ├── SchedulerLost            see ``tasks``
    ├── SchedulerOverloaded      see ``tasks``
    ├── UnmetDependency          see ``tasks``
    ├── ImpossibleDependency     see ``tasks``
    ├── InvalidDependency        also TypeError (see ``tasks``)
    ├── TimeLimitExceeded        also TimeoutError
    ├── ResultUnavailable        also LookupError
    ├── ServiceError             and what is below it: see ``services``
    ├── LaunchError              see ``launching``
    ├── CapabilityError
    ├── MpiError                 and what is below it: see ``mpi``
    ├── ProtocolError
    │   └── DuplicateRequest
    ├── RemoteError              and the class raised on the engine (see ``remote``)
    └── CompositeError           also ExceptionGroup (see ``composite``)

Each class builds its message from its fields, says what to do next, and survives pickle and copy.
"""

from collections.abc import Iterable

from nsactors.errors.base import NsactorsError
from nsactors.errors.ranges import engine_ranges
from nsactors.errors.wording import last_lines, short_repr, unknown_keyword

__all__ = [
    "CapabilityError",
    "ClientClosed",
    "ClusterStopped",
    "ClusterUnreachable",
    "ConnectionLost",
    "DuplicateRequest",
    "EngineError",
    "EngineLost",
    "EngineStartError",
    "InvalidName",
    "InvalidTarget",
    "NoEngines",
    "NoSuchEngine",
    "NsactorsError",
    "ObjectLost",
    "ProtocolError",
    "ResultUnavailable",
    "SerializationError",
    "StoreFull",
    "TargetError",
    "TaskAborted",
    "TimeLimitExceeded",
    "UnknownFlag",
    "UnknownOption",
]


class TargetError(NsactorsError):
    """The engines asked for cannot be had; nothing has been sent."""


class NoEngines(TargetError):
    """No engine is connected.

    Args:
        hint: what to do about it; the default, None, says how to start some.
    """

    def __init__(self, hint: str | None = None) -> None:
        text = hint or "start some with Cluster(n=4), or wait for those that are joining"
        super().__init__(f"no engines are connected: {text}")
        self.hint = hint


class NoSuchEngine(TargetError, IndexError):
    """An engine id, or a position among the ids, that does not exist.

    Args:
        engine_id: what was asked for.
        ids: the ids that exist.
    """

    def __init__(self, engine_id: int, ids: Iterable[int]) -> None:
        self.engine_id = engine_id
        self.ids = tuple(ids)
        there = f"there are {engine_ranges(self.ids)}" if self.ids else "none is connected: Cluster(n=4) starts some"
        super().__init__(f"there is no engine {engine_id}; {there}")


class InvalidTarget(TargetError, TypeError):
    """A value that cannot name engines.

    Args:
        target: the value; only its short repr is kept.
    """

    def __init__(self, target: object) -> None:
        self.target = short_repr(target)
        super().__init__(f"{self.target} cannot be a target: give an int, a list of ints, a slice, or 'all'")


class UnknownFlag(NsactorsError, KeyError):
    """A keyword that a view or a call does not know.

    Args:
        name: the keyword given.
        known: the keywords there are.
    """

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(unknown_keyword("flag", name, self.known))


class UnknownOption(NsactorsError, TypeError):
    """A keyword that a cluster does not know; arguments as for :class:`UnknownFlag`."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(unknown_keyword("option", name, self.known))


class InvalidName(NsactorsError, ValueError):
    """A name to push, pull or scatter that Python could not bind or look up.

    Args:
        name: the name given; only its short repr is kept if it is no string.
    """

    def __init__(self, name: object) -> None:
        self.name = name if isinstance(name, str) else short_repr(name)
        super().__init__(
            f"{short_repr(name)} is not a name in a namespace: bind to an identifier such as 'x'; "
            "what is read may also be an expression such as 'x.shape' or 'x[0]'"
        )


class SerializationError(NsactorsError, TypeError):
    """A value that cannot be pickled, so it cannot leave its process.

    Args:
        what: where the value stands, such as ``"argument 2"`` or ``"name 'sock'"``.
        reason: why it cannot be pickled.
    """

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(
            f"{what} cannot be sent to another process: {reason}. "
            "Send what it is made from, and make it there with execute()"
        )
        self.what = what
        self.reason = reason


class StoreFull(NsactorsError):
    """A value, ``what``, has no room in a machine's object store, nor on the disk that takes what that cannot hold."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"there is no room for {what}: the object store is full, and so is the disk that it overflows to. "
            "Delete what is not needed (rc.memory() shows what is held), or make room on that disk"
        )
        self.what = what


class ConnectionLost(NsactorsError, ConnectionError):
    """There is no way to the cluster from here."""


class ClientClosed(ConnectionLost):
    """The client was closed."""

    def __init__(self) -> None:
        super().__init__("this client is closed: make a new Client to go on")


class ClusterStopped(ConnectionLost):
    """The cluster was stopped."""

    def __init__(self) -> None:
        super().__init__("the cluster has stopped: start another one with Cluster(n=4)")


class ClusterUnreachable(ConnectionLost):
    """No cluster answers.

    Args:
        address: where it was sought.
        reason: what happened instead.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(
            f"no cluster answers at {address}: {reason}. Check that it runs, or start one with Cluster(n=4)"
        )
        self.address = address
        self.reason = reason


class EngineError(NsactorsError):
    """An engine, not the code it ran, failed."""


class EngineLost(EngineError):
    """An engine's process died.

    Args:
        engine_id: the engine.
        call: what it was running, such as ``"apply(f)"``; empty if it was idle.
        reason: how it died, such as ``"killed by signal 9 (SIGKILL)"``.
        stderr_tail: the last lines it wrote; the message shows ten of them.
        after: what became of its namespace, and what can be done now.
    """

    def __init__(
        self,
        engine_id: int,
        call: str,
        reason: str,
        stderr_tail: str = "",
        after: str = "Its namespace is gone with it; the other engines go on",
    ) -> None:
        during = f"while running {call}" if call else "while idle"
        super().__init__(f"engine {engine_id} died {during}: {reason}\n" + last_lines(stderr_tail) + after)
        self.engine_id = engine_id
        self.call = call
        self.reason = reason
        self.stderr_tail = stderr_tail


class EngineStartError(EngineError):
    """An engine could not be started.

    Args:
        engine_id: the engine.
        reason: what went wrong.
        stderr_tail: the last lines its process wrote; the message shows ten of them.
        after: what can be done now.
    """

    def __init__(
        self,
        engine_id: int,
        reason: str,
        stderr_tail: str = "",
        after: str = "Remove the cause and add an engine, or ask for fewer; those that are there go on",
    ) -> None:
        super().__init__(f"engine {engine_id} did not start: {reason}\n" + last_lines(stderr_tail) + after)
        self.engine_id = engine_id
        self.reason = reason
        self.stderr_tail = stderr_tail

    def with_advice(self, after: str) -> "EngineStartError":
        """This error, where something else can be done."""
        return type(self)(self.engine_id, self.reason, self.stderr_tail, after)


class ObjectLost(EngineError):
    """A value that an engine held went with it.

    Args:
        name: the name or expression whose value it was.
        holder: the engine that held it; None for a client.
        held_since: the call that made it hold it, such as ``"pull(a)"``.
        reason: what happened to it.
    """

    def __init__(self, name: str, holder: int | None, held_since: str, reason: str) -> None:
        whose = "a client" if holder is None else f"engine {holder}"
        super().__init__(
            f"the value of {name!r} that {whose} held since {held_since} is lost: {reason}. "
            "Make it anew and pull it again"
        )
        self.name = name
        self.holder = holder
        self.held_since = held_since
        self.reason = reason


class TaskAborted(NsactorsError):
    """A request was withdrawn before it ran.

    Args:
        engine_id: the engine whose queue held it; None for a task that no engine ran.
        call: the request, such as ``"apply(f)"``.
    """

    def __init__(self, engine_id: int | None, call: str) -> None:
        ran = "it ran" if engine_id is None else f"engine {engine_id} ran it"
        super().__init__(f"{call} was aborted before {ran}: submit it again if you still want it")
        self.engine_id = engine_id
        self.call = call


class TimeLimitExceeded(NsactorsError, TimeoutError):
    """A call ran into its time limit and was interrupted; the engine's namespace stays as it was then.

    Args:
        engine_id: the engine.
        call: what it was running, such as ``"apply(f)"``.
        limit_s: the limit in seconds.
    """

    def __init__(self, engine_id: int, call: str, limit_s: float) -> None:
        super().__init__(
            f"{call} was interrupted on engine {engine_id} after its time limit of {limit_s:g} s: "
            "give it more with timeout=..., or less to do"
        )
        self.engine_id = engine_id
        self.call = call
        self.limit_s = limit_s


class ResultUnavailable(NsactorsError, LookupError):
    """The result of a request cannot be had any more, or never could.

    Args:
        request: what was asked for, such as ``"ann-4f2a:17"``.
        reason: why.
    """

    def __init__(self, request: str, reason: str) -> None:
        super().__init__(f"the result of {request} cannot be had: {reason}. history() says what is known")
        self.request = request
        self.reason = reason


class CapabilityError(NsactorsError):
    """The transport in use cannot do this.

    Args:
        what: what was asked, such as ``"interrupt an engine"``.
        transport: the transport's name.
        instead: what to do, such as ``"use Cluster(backend='ray')"``.
    """

    def __init__(self, what: str, transport: str, instead: str) -> None:
        super().__init__(f"the {transport} transport cannot {what}: {instead}")
        self.what = what
        self.transport = transport
        self.instead = instead


class ProtocolError(NsactorsError):
    """A message that breaks the rules between clients and engines; it had no effect."""


class DuplicateRequest(ProtocolError):
    """A request the engine has taken before.

    Args:
        engine_id: the engine.
        request_id: the request, as text.
    """

    def __init__(self, engine_id: int, request_id: str) -> None:
        super().__init__(
            f"engine {engine_id} has already taken request {request_id} and does not run it twice: "
            "wait for its first reply"
        )
        self.engine_id = engine_id
        self.request_id = request_id
