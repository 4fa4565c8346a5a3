"""The values that pass between clients, engines and the controller.

A *request* names what an engine should do; its large part, the *payload*, travels beside it so that a request to a
hundred engines is serialised once. A *reply* brings the outcome and whatever output had not been delivered yet.
Everything here is a plain value: picklable, comparable, without behaviour that touches the world.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

from nsactors.errors import Failure

__all__ = [
    "Aborted",
    "Apply",
    "Capability",
    "ClearOutput",
    "Display",
    "Execute",
    "ExecuteResult",
    "Expired",
    "Failed",
    "Instruction",
    "Ok",
    "Operation",
    "Outcome",
    "OutputBatch",
    "OutputChunk",
    "Pull",
    "Push",
    "Reference",
    "Refused",
    "Reply",
    "Request",
    "RequestId",
    "Reset",
    "RunTasks",
    "StreamText",
    "TakeSnapshot",
]


class Capability(enum.Enum):
    """What a transport's engines can do; the contract suite skips what is not declared."""

    MAGICS = "IPython magics and !shell in cells"
    C_OUTPUT = "output written by C code and child processes is captured"
    PROCESS = "each engine is a process of its own: it can be killed, and has its own working folder"
    SIGNALS = "running code can be interrupted, and signals can be sent"
    RICH_DISPLAY = "display() of rich objects"
    OBJECT_STORE = "large payloads travel as references, one copy a node"


class RequestId(NamedTuple):
    """One client's numbered request: unique for ever, ordered per client."""

    client: str
    seq: int

    def __str__(self) -> str:
        return f"{self.client}:{self.seq}"


class Execute(NamedTuple):
    """Run a cell: IPython source where the engine has IPython, plain Python otherwise."""

    code: str
    silent: bool = False
    store_history: bool = True


class Apply(NamedTuple):
    """Call the payload's ``(function, args, kwargs)``; ``label`` is what people see, e.g. ``map(simulate)``."""

    label: str
    copy: bool = False  # give the function arrays that it can write to


class Push(NamedTuple):
    """Bind the payload's ``{name: value}`` in the namespace."""

    copy: bool = False  # bind arrays that can be written to


class Pull(NamedTuple):
    """Evaluate ``expressions``; one value if ``single``, otherwise a list of them."""

    expressions: tuple[str, ...]
    single: bool
    as_ref: bool = False  # keep the values and give a RemoteValue for each


class Reset(NamedTuple):
    """Empty the namespace."""


class TakeSnapshot(NamedTuple):
    """Write the namespace into its journal, in place of all that led there."""


class RunTasks(NamedTuple):
    """Run a batch of tasks, one item after the other; the payload holds them as ``core.tasks`` writes them.

    Attributes:
        label: what people see, e.g. ``12 tasks of map(simulate)``.
        number: of the batch; those that one client sends to an engine go up.
        budget_s: after so many seconds no more of its items is begun.
    """

    label: str
    number: int
    budget_s: float


Operation = Execute | Apply | Push | Pull | Reset | TakeSnapshot | RunTasks


class Instruction(NamedTuple):
    """What a request says, whichever engine it goes to.

    Attributes:
        client: who sends it.
        operation: what is to be done.
        limit_s: seconds after which it is interrupted.
        stops_on_error: if it fails, what its client had queued behind it is not run.
        journalled: whether it is to be run again if the engine dies and its namespace is recovered.
    """

    client: str
    operation: Operation
    limit_s: float | None = None
    stops_on_error: bool = False
    journalled: bool = True

    @property
    def label(self) -> str:
        """What people call it, e.g. ``apply(simulate)``."""
        return _label(self.operation)


class Request(NamedTuple):
    """An operation with its place in its client's stream.

    Attributes:
        id: who sent it, and its number.
        operation: what is to be done.
        limit_s: seconds after which it is interrupted.
        stops_on_error: if it fails, what its client had queued behind it is not run.
        journalled: whether it is to be run again if the engine dies and its namespace is recovered.
        stops_seen: how many failures on this engine that stop what follows the client knew of when it sent this.
    """

    id: RequestId
    operation: Operation
    limit_s: float | None = None
    stops_on_error: bool = False
    journalled: bool = True
    stops_seen: int = 0

    @property
    def label(self) -> str:
        """What people call it, e.g. ``apply(simulate)``."""
        return _label(self.operation)


def _label(operation: Operation) -> str:
    match operation:
        case Apply(label) | RunTasks(label):
            return label
        case Execute():
            return "execute"
        case Push():
            return "push"
        case Pull(expressions):
            return f"pull({', '.join(expressions)})"
        case Reset():
            return "clear"
        case TakeSnapshot():
            return "snapshot"


class Reference:
    """A name in the engine's namespace, resolved where the call runs.

    Example:
        >>> view.push({"a": 5})
        >>> view.apply_sync(lambda x: x + 1, Reference("a"))
        [6, 6, 6, 6]

    ``name`` may be any expression: ``Reference("a.T[0]")``. It may stand anywhere inside the arguments.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a Reference holds a name or an expression as text, not {type(name).__name__}")
        self.name = name

    def __repr__(self) -> str:
        return f"Reference({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and other.name == self.name

    def __hash__(self) -> int:
        return hash((Reference, self.name))

    def __reduce__(self) -> tuple[Any, ...]:
        # Not the class itself: an engine's unpickler replaces this function by a look-up in its namespace.
        return (dereference, (self.name,))


def dereference(name: str) -> Reference:
    """Rebuild a reference where there is no namespace to resolve it in."""
    return Reference(name)


class StreamText(NamedTuple):
    """Text written to ``stdout`` or ``stderr``."""

    name: str
    text: str


class Display(NamedTuple):
    """A rich object: a MIME bundle from ``display`` or a figure."""

    data: dict[str, Any]
    metadata: dict[str, Any]
    transient: dict[str, Any] = {}  # noqa: RUF012 (a NamedTuple's default; never written to)
    update: bool = False


class ExecuteResult(NamedTuple):
    """What a cell's last expression gave: its number and MIME bundle."""

    execution_count: int
    data: dict[str, Any]
    metadata: dict[str, Any]


class ClearOutput(NamedTuple):
    """Wipe what the cell has shown so far (``wait``: when the next output comes)."""

    wait: bool


OutputChunk = StreamText | Display | ExecuteResult | ClearOutput


class OutputBatch(NamedTuple):
    """Consecutive chunks of one request's output; ``start`` is the number of chunks that went before."""

    request: RequestId
    engine_id: int
    start: int
    chunks: tuple[OutputChunk, ...]


class Ok(NamedTuple):
    """The operation succeeded; its value is the reply's payload."""


class Failed(NamedTuple):
    """User code raised, or its result could not be serialised."""

    failure: Failure


class Aborted(NamedTuple):
    """The request was taken back before its turn came."""


class Expired(NamedTuple):
    """The operation ran into its time limit and was interrupted."""

    limit_s: float


class Refused(NamedTuple):
    """The engine has had this request before and did not run it again."""


Outcome = Ok | Failed | Aborted | Expired | Refused


class Reply(NamedTuple):
    """The one answer to a request.

    ``tail`` holds the output the controller has not acknowledged; together with the routed batches it is the whole
    output, ``tail.start + len(tail.chunks)`` chunks. Times are seconds since the epoch on the engine's clock.
    """

    request: RequestId
    engine_id: int
    incarnation: int
    outcome: Outcome
    tail: OutputBatch
    started: float
    completed: float
    execution_count: int | None = None
