"""The messages that pass through the controller: commands and queries to engines, reports, events.

*Commands* and *queries* reach an engine out of band, while it is busy; *reports* carry its output and the history of
its requests; *events* tell clients about changes in the cluster.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from nsactors._frozen import frozen
from nsactors.protocol.engine_info import EngineInfo
from nsactors.protocol.inspection import Inspection
from nsactors.protocol.messages import OutputBatch, RequestId
from nsactors.protocol.tasks import BatchKey, TaskRange


@frozen
class Interrupt:
    """Raise KeyboardInterrupt in user code, if one of ``requests`` is running; None means any request."""

    requests: frozenset[RequestId] | None = None


@frozen
class InterruptTasks:
    """Raise KeyboardInterrupt in user code, if one of these task ranges of a client is running."""

    client: str
    spans: tuple[TaskRange, ...]


@frozen
class Signal:
    """Send a signal to the engine's process."""

    number: int


@frozen
class Abort:
    """Cancel those of ``requests`` that have not begun: each gets the reply ``aborted`` when its turn comes.

    The query reply names the cancelled requests. When it has arrived, none of them will begin.
    """

    requests: frozenset[RequestId]


@frozen
class Complete:
    """Return the names that complete ``code`` at ``cursor``."""

    code: str
    cursor: int


@frozen
class Inspect:
    """Describe the object ``name``; ``detail`` 1 adds its source."""

    name: str
    detail: int = 0


@frozen
class Measure:
    """Measure the engine's processor time and memory, and the memory of its ``top`` largest names, if any.

    The query reply is an ``EngineMemory``.
    """

    top: int | None


@frozen
class CollectReplies:
    """Collect the replies to requests. With each request comes the number of its output chunks that the client has.

    The query reply is a dictionary. Its value for a request is the ``StoredReply``, the output so far (an
    ``OutputBatch``), or the reason why there is no reply (``Missing``); if one of these is large, it is a
    ``StoredObject`` that holds it. If a request is missing, its value did not fit: query again for it.
    """

    requests: dict[int, tuple[tuple[RequestId, int], ...]]  # by engine


@frozen
class StoreReplies:
    """Store the replies to a client's requests up to number ``upto``, even large ones: the client may disconnect.

    The query reply is a new ``StoredObject``. To load it, the client's process calls the engine's process on the same
    connection as for its requests. So when it is loaded, all of these requests have arrived.
    """

    client: str
    upto: int


@frozen
class Fence:
    """Run the requests that arrive from now on, by any connection, after those that have already arrived."""


@frozen
class MeasureIdle:
    """Return the seconds for which the engine has been idle; 0 while it runs a request."""


@frozen
class StealTasks:
    """Steal task ranges: withdraw the part of each range that has not begun.

    The query reply is a dictionary of the withdrawn ranges by batch. A batch that has not arrived is withdrawn whole.
    """

    batches: tuple[tuple[BatchKey, tuple[TaskRange, ...]], ...]


@frozen
class PeekTasks:
    """Return the results so far of a batch of tasks that still runs.

    The query reply is the payload of a report, or a stored payload; None if there are no new results.
    """

    batch: BatchKey


@frozen
class ExplainObstacle:
    """Return the ``Obstacle`` that keeps interrupted requests from ending, or None."""

    requests: frozenset[RequestId]


@frozen
class Obstacle:
    """The reason why a request has not ended after an interrupt.

    Attributes:
        kind: ``native``: the request runs C code, which no interrupt reaches before the code returns. ``caught``: the
            request caught the interrupt and continued.
        where: the code that the request runs, as text for users.
    """

    kind: Literal["native", "caught"]
    where: str


@frozen
class DebugOpen:
    """Open a debugger on the frames of a failure that the engine keeps for a client.

    ``failures`` names the failures, by engine (see ``Failure.kept``); an engine that is missing in it opens the
    client's last failure. The query reply is the first ``DebugState``; None if the engine does not keep the failure.
    """

    client: str
    failures: dict[int, tuple[str, ...]]


class DebugLine(NamedTuple):
    """A line of a user for a debugger.

    Attributes:
        session: the session of the debugger.
        number: the number of the line, from 1 on. A repeated number asks only for the reply.
        text: the line; None to ask for the reply to line ``number``, which was sent earlier.
    """

    session: str
    number: int
    text: str | None


@frozen
class DebugSay:
    """Give each engine's debugger a line. The query reply is its next ``DebugState``, which may take long."""

    lines: dict[int, DebugLine]  # by engine


@frozen
class DebugClaim:
    """Keep these sessions if a user is at their prompt (``here`` is true); otherwise let them end.

    The query reply is the set of the sessions that have not ended.
    """

    sessions: frozenset[str]
    here: bool


@frozen
class DebugInterrupt:
    """Raise KeyboardInterrupt in the command that the debuggers of these sessions carry out, if any."""

    sessions: frozenset[str]


@frozen
class DebugSource:
    """Give the engine source code that only the client has, such as that of cells, by file name."""

    sources: dict[str, str]


@frozen
class DebugForget:
    """Release the frames of the failure that the engine keeps for a client. The query reply is whether it kept any."""

    client: str


@frozen
class DebugState:
    """The state of a debugger that waits for a line, or has ended.

    Attributes:
        session: the session.
        number: the number of lines that it has carried out.
        text: the text that the last of these lines has written.
        ended: whether it has ended.
        where: the place of its current frame, as text for users.
        missing: the names of source files that the engine does not have; in the first state only.
        at_breakpoint: whether the code has stopped at a breakpoint, and continues after the session.
    """

    session: str
    number: int
    text: str
    ended: bool = False
    where: str = ""
    missing: tuple[str, ...] = ()
    at_breakpoint: bool = False


@frozen
class DebugStops:
    """Return the ``Stop`` of an engine that is stopped at a breakpoint; None if it is not."""


@frozen
class DebugTake:
    """Give the debugger of a stopped request to another client. For the old client, the debugger has then ended.

    The reply is a ``DebugState``, or None if no request is stopped.
    """

    client: str


class Stop(NamedTuple):
    """An engine that is stopped at a breakpoint.

    Attributes:
        where: the place, as text for users.
        client: the client whose request it runs, and who has the debugger.
        since_s: seconds since it stopped.
    """

    where: str
    client: str
    since_s: float


DebugQuery = (
    DebugOpen | DebugSay | DebugClaim | DebugInterrupt | DebugSource | DebugForget | DebugStops | DebugTake
)  # fmt: skip

PlainQuery = (
    Abort | Complete | Inspect | Measure | MeasureIdle | ExplainObstacle
    | CollectReplies | StoreReplies | Fence | PeekTasks | StealTasks
    | DebugQuery
)  # fmt: skip
"""A query that the control thread answers itself, without delay."""

Query = PlainQuery | Inspection


@frozen
class QueryCommand:
    """Answer a query from the engine's control thread."""

    query_id: int
    query: Query


@frozen
class Presence:
    """A client has disconnected, so that its replies must be stored; or it has connected again."""

    client: str
    connected: bool


@frozen
class EndProcess:
    """Begin no more requests, interrupt the running one, end the process; after ``grace_s`` it is killed."""

    grace_s: float


Command = Interrupt | InterruptTasks | Signal | Presence | QueryCommand | EndProcess


@frozen
class QueryReply:
    """The reply to a query: a value, or the text of an error."""

    query_id: int
    value: Any
    error: str | None = None


@frozen
class EngineStopped:
    """A request has stopped at a breakpoint, and waits for its client to claim the session of the debugger."""

    engine_id: int
    session: str
    client: str
    where: str


@frozen
class EngineResumed:
    """The session of a debugger at a breakpoint has ended."""

    engine_id: int
    session: str
    client: str


@frozen
class EngineReport:
    """A report of an engine to the controller: output, requests that began or finished, query replies.

    ``unended`` describes the request that still runs in an engine that was asked to end, shortly before it is killed.
    """

    output: tuple[OutputBatch, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    query_replies: tuple[QueryReply, ...] = ()
    stops: tuple[EngineStopped | EngineResumed, ...] = ()
    unended: str = ""


@frozen
class Receipt:
    """The controller's reply to a report.

    Attributes:
        controller: the controller's process; output that an earlier process had not delivered is lost.
        delivered: whether this output and all earlier output has reached its clients, or has no client to reach.
    """

    controller: int
    delivered: bool


@frozen
class EngineStarting:
    """A new engine has been requested."""

    engine_id: int


@frozen
class EngineWaiting:
    """A requested engine has no machine yet, and starts later: ``reason`` compares its demands with the resources.

    With ``nodes_may_come``, the cluster adds machines when engines need them.
    """

    engine_id: int
    incarnation: int
    reason: str
    nodes_may_come: bool = False


@frozen
class EngineLeaving:
    """An engine finishes its requests and then leaves: send it no further request."""

    engine_id: int


@frozen
class EngineJoined:
    """An engine has registered and accepts requests."""

    engine: EngineInfo


@frozen
class EngineLeft:
    """An engine's process has ended.

    Attributes:
        engine_id: its id.
        incarnation: the incarnation that ended.
        reason: the cause, as text for users.
        expected: whether a user or the cluster stopped it.
        returns: whether a new process takes its place.
        replays: whether that process replays the journal; if so, unanswered requests must be sent again.
    """

    engine_id: int
    incarnation: int
    reason: str
    expected: bool
    returns: bool = False
    replays: bool = False


@frozen
class EngineFailedToStart:
    """An engine's process ended before it registered: the cause, and the last lines of its stderr."""

    engine_id: int
    incarnation: int
    reason: str
    stderr_tail: str = ""


@frozen
class EngineOverdue:
    """An engine has not ended within its grace period; ``notice`` is text for users."""

    engine_id: int
    incarnation: int
    notice: str


@frozen
class OutputEvent:
    """Output for the client that caused it."""

    batch: OutputBatch


class HistoryEntry(NamedTuple):
    """One request in the cluster's history: its client, engine, code, times and outcome.

    ``program`` is code that repeats the effects of the request on its namespace. Only the report that a request has
    ended contains this code; the store keeps it separately, as a :class:`Program`.
    """

    request: RequestId
    engine_id: int
    label: str
    source: str
    started: float
    completed: float | None
    outcome: str
    program: str = ""


class Program(NamedTuple):
    """The code of a request that an engine has run, and its outcome."""

    text: str
    outcome: str = "ok"


@frozen
class WorkReported:
    """Slow requests of other clients wait, have begun or have ended; for clients that schedule tasks."""

    entries: tuple[HistoryEntry, ...]


@frozen
class ClientJoined:
    """Another client has connected: report waiting requests from now on, so that it knows which engines are idle."""


Event = (
    EngineStarting
    | EngineWaiting
    | EngineJoined
    | EngineLeaving
    | EngineLeft
    | EngineOverdue
    | EngineFailedToStart
    | OutputEvent
    | WorkReported
    | ClientJoined
    | EngineStopped
    | EngineResumed
)


@frozen
class ClusterState:
    """The state of the cluster, as a client learns it when it connects.

    Attributes:
        cluster: the cluster's name.
        engines: the engines that accept requests.
        starting: the ids of new engines that have been requested.
        recovering: the engines that restart, as they were when they died.
        next_id: the id after the highest that any engine has had.
        waiting: the starting and recovering engines that have no machine, with the reason.
        leaving: the ids of engines that finish their requests and then leave.
        has_others: whether other clients are connected.
    """

    cluster: str
    engines: tuple[EngineInfo, ...]
    starting: tuple[int, ...]
    recovering: tuple[EngineInfo, ...] = ()
    next_id: int = 0
    waiting: tuple[EngineWaiting, ...] = ()
    leaving: tuple[int, ...] = ()
    has_others: bool = False
