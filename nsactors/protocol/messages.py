"""Requests, replies and output: the messages between clients and engines.

A *request* names the operation of an engine; its large part, the *payload*, travels beside it so that a request to a
hundred engines is serialised once. A *reply* carries the outcome and the output that has not been delivered yet. All
classes are plain values: picklable, comparable, without side effects.
"""

from __future__ import annotations

import enum
import keyword
from collections.abc import Hashable
from typing import Any, NamedTuple

from nsactors.errors import Failure, InvalidName, WrongType
from nsactors.protocol.client_modules import ClientModules


class Capability(enum.Enum):
    """An ability of a transport's engines; the contract suite skips tests of abilities that are missing."""

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
    """Call the payload's ``(function, args, kwargs)``; ``label`` is the text for users, e.g. ``map(simulate)``."""

    label: str
    copy: bool = False  # pass writable arrays


class Push(NamedTuple):
    """Bind the payload's ``{name: value}`` in the namespace."""

    copy: bool = False  # bind writable arrays


class Pull(NamedTuple):
    """Evaluate ``expressions`` to one value if ``single``, otherwise to a list of them."""

    expressions: tuple[str, ...]
    single: bool
    as_ref: bool = False  # store the values and reply with a RemoteValue for each


class Reset(NamedTuple):
    """Empty the namespace."""


class TakeSnapshot(NamedTuple):
    """Write the namespace into its journal, in place of the requests that led to it."""


class RunTasks(NamedTuple):
    """Run a batch of tasks, one item after the other; ``protocol.tasks`` describes the payload.

    Attributes:
        label: the text for users, e.g. ``12 tasks of map(simulate)``.
        number: the number of the batch; it increases with each batch from one client to one engine.
        budget_s: the time in seconds after which no further item is begun.
    """

    label: str
    number: int
    budget_s: float


Operation = Execute | Apply | Push | Pull | Reset | TakeSnapshot | RunTasks


class EngineRequest(NamedTuple):
    """An operation, with its number among the requests of its client.

    A request to several engines is encoded once: only its number and ``stops_seen`` differ between engines.

    Attributes:
        id: the client and the number.
        operation: the operation.
        limit_s: the time limit in seconds, after which the operation is interrupted.
        stops_on_error: whether its failure aborts the requests that its client had queued behind it.
        journalled: whether to replay it if the engine dies and its namespace is recovered.
        modules: the modules of the client's program, if the engine possibly does not know them.
        debugs: whether a user at the client can open a debugger, so that the frames of a failure are kept.
        breaks: whether it stops at breakpoints.
        stops_seen: the number of failures with ``stops_on_error`` on this engine that the client knew of when it sent
            the request.
    """

    id: RequestId
    operation: Operation
    limit_s: float | None = None
    stops_on_error: bool = False
    journalled: bool = True
    modules: ClientModules | None = None
    debugs: bool = False
    breaks: bool = True
    stops_seen: int = 0

    @property
    def label(self) -> str:
        """The text for users, e.g. ``apply(simulate)``."""
        return label_of(self.operation)


def label_of(operation: Operation) -> str:
    """Return the text for users, e.g. ``apply(simulate)``."""
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


def check_name(name: object, where: str) -> None:
    """Check that a namespace can bind a name.

    Args:
        name: the name.
        where: the call and its parameter, for the error.

    Raises:
        InvalidName: if it is not a name, or is a keyword of Python.
    """
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise InvalidName(name, where)


def check_expression(expression: object, where: str) -> None:
    """Check that an expression can be evaluated in a namespace.

    Args:
        expression: a name or an expression.
        where: the call and its parameter, for the error.

    Raises:
        InvalidName: if it is neither a name nor an expression.
    """
    if not isinstance(expression, str):
        raise InvalidName(expression, where)
    if not expression.isidentifier():
        try:
            compile(expression, "<expression>", "eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # a null byte; nested too deeply
            raise InvalidName(expression, where) from None


class Reference:
    """A name in the engine's namespace, resolved where the call runs.

    Example:
        >>> view.push({"a": 5})
        >>> view.apply_sync(lambda x: x + 1, Reference("a"))
        [6, 6, 6, 6]

    ``name`` may be any expression: ``Reference("a.T[0]")``. The reference may stand anywhere inside the arguments.

    Raises:
        InvalidArgument: if ``name`` is neither a name nor an expression.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise WrongType("Reference", "name", name, "a name or an expression, as text")
        check_expression(name, "Reference(name)")
        self.name = name

    def __repr__(self) -> str:
        return f"Reference({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and other.name == self.name

    def __hash__(self) -> int:
        return hash((Reference, self.name))

    def __reduce__(self) -> tuple[Any, ...]:
        # Not the class itself: an engine's unpickler replaces this function by a lookup in its namespace.
        return (dereference, (self.name,))


def dereference(name: str) -> Reference:
    """Rebuild a reference in a process without a namespace."""
    return Reference(name)


class StreamText(NamedTuple):
    """Text written to ``stdout`` or ``stderr``."""

    name: str
    text: str


class Display(NamedTuple):
    """A rich object: the MIME bundle of a figure, or of an object given to ``display``."""

    data: dict[str, Any]
    metadata: dict[str, Any]
    transient: dict[str, Any] = {}  # noqa: RUF012 (a NamedTuple's default; never written to)
    update: bool = False


class ExecuteResult(NamedTuple):
    """The value of a cell's last expression: its number and MIME bundle."""

    execution_count: int
    data: dict[str, Any]
    metadata: dict[str, Any]


class ClearOutput(NamedTuple):
    """Clear the output of the cell; with ``wait``, when its next output arrives."""

    wait: bool


class TaskMark(NamedTuple):
    """A mark in the output of a batch of tasks: the next chunks belong to the task with this number."""

    task_id: Hashable


OutputChunk = StreamText | Display | ExecuteResult | ClearOutput | TaskMark


class OutputBatch(NamedTuple):
    """Consecutive chunks of one request's output; ``start`` is the number of chunks before them."""

    request: RequestId
    engine_id: int
    start: int
    chunks: tuple[OutputChunk, ...]


class Ok(NamedTuple):
    """The operation succeeded; its value is the reply's payload."""


class Failed(NamedTuple):
    """User code raised an exception, or its result could not be serialised."""

    failure: Failure


class Aborted(NamedTuple):
    """The request was cancelled before it ran."""


class Expired(NamedTuple):
    """The operation exceeded its time limit and was interrupted.

    Attributes:
        limit_s: the limit in seconds.
        ran_s: its duration if it caught the interrupt and continued; None if the interrupt ended it.
    """

    limit_s: float
    ran_s: float | None = None


class Refused(NamedTuple):
    """The engine had already received this request, and did not run it again."""


Outcome = Ok | Failed | Aborted | Expired | Refused


class Reply(NamedTuple):
    """The reply to a request; each request gets exactly one.

    ``tail`` contains the output that the controller has not acknowledged; with the batches before it, the output has
    ``tail.start + len(tail.chunks)`` chunks. Times are seconds since the epoch on the engine's clock.
    """

    request: RequestId
    engine_id: int
    incarnation: int
    outcome: Outcome
    tail: OutputBatch
    started: float
    completed: float
    execution_count: int | None = None
