"""The values that pass through the controller: commands to engines, news from them, events for clients.

*Commands* and *questions* reach an engine out of band, while it is busy; *reports* bring its output and news;
*events* tell clients what happened in the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from nsactors.core.engines import EngineInfo, EngineOptions, EngineSpec, Recovery
from nsactors.core.messages import OutputBatch, RequestId
from nsactors.core.scheduling import Span
from nsactors.core.tasks import BatchKey

__all__ = [
    "Abort",
    "Accept",
    "Answer",
    "Ask",
    "ClusterState",
    "Collect",
    "Command",
    "Complete",
    "EngineFailedToStart",
    "EngineInfo",
    "EngineJoined",
    "EngineLeaving",
    "EngineLeft",
    "EngineOptions",
    "EngineSpec",
    "EngineStarting",
    "EngineWaiting",
    "Event",
    "GiveBack",
    "HistoryEntry",
    "Inspect",
    "Interrupt",
    "InterruptTasks",
    "Measure",
    "OutputEvent",
    "Presence",
    "Question",
    "Receipt",
    "Recovery",
    "Report",
    "Rest",
    "Signal",
    "TellResults",
]


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Raise KeyboardInterrupt in user code, if one of ``requests`` is running (``None``: whatever is running)."""

    requests: frozenset[RequestId] | None = None


@dataclass(frozen=True, slots=True)
class InterruptTasks:
    """Raise KeyboardInterrupt in user code, if one of these items of a client's tasks is running."""

    client: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal to the engine's process."""

    number: int


@dataclass(frozen=True, slots=True)
class Abort:
    """Answer these requests ``aborted`` when their turn comes; one that runs or has run is left alone.

    Asked, not commanded: when the answer is there, none of them will start.
    """

    requests: frozenset[RequestId]


@dataclass(frozen=True, slots=True)
class Complete:
    """Which names complete ``code`` at ``cursor``?"""

    code: str
    cursor: int


@dataclass(frozen=True, slots=True)
class Inspect:
    """What is ``name``? ``detail`` 1 asks for the source too."""

    name: str
    detail: int = 0


@dataclass(frozen=True, slots=True)
class Measure:
    """What does the engine hold and use? By name, the ``top`` largest names; None: its process alone, quickly."""

    top: int | None


@dataclass(frozen=True, slots=True)
class Collect:
    """What became of these requests? Of each it is said how many chunks of its output are known already.

    Answered with a dictionary: of each request its ``KeptAnswer``, its output so far (an ``OutputBatch``) or why there
    is nothing (``Missing``); a ``StoredObject`` with one of these, if it is large. What is left out comes if it is
    asked for again.
    """

    requests: dict[int, tuple[tuple[RequestId, int], ...]]  # by engine


@dataclass(frozen=True, slots=True)
class Accept:
    """Keep what is answered to this client's requests up to number ``upto``, however large: it may go any moment.

    Answered with a new ``StoredObject``: to load it, its client's process calls the engine's by the way that its
    requests have gone, and is answered when they have arrived.
    """

    client: str
    upto: int


@dataclass(frozen=True, slots=True)
class Rest:
    """For how many seconds has the engine had nothing to do? 0 while it runs something."""


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Which of these spans of batches, or tails of them, have not begun? They will not then.

    Answered with a dictionary of what is given back, by batch. A batch that has not come yet is given back whole.
    """

    batches: tuple[tuple[BatchKey, tuple[Span, ...]], ...]


@dataclass(frozen=True, slots=True)
class TellResults:
    """What has come of this batch of tasks, which still runs?

    Answered with a payload of a report, or a stored one; None if there is nothing to tell.
    """

    batch: BatchKey


Question = Abort | Accept | Collect | Complete | GiveBack | Inspect | Measure | Rest | TellResults


@dataclass(frozen=True, slots=True)
class Ask:
    """A question that the engine answers from its control thread."""

    ticket: int
    question: Question


@dataclass(frozen=True, slots=True)
class Presence:
    """A client has gone, and nobody takes its replies; or it has come back."""

    client: str
    here: bool


Command = Interrupt | InterruptTasks | Signal | Presence | Ask


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine says to ``Ask(ticket)``: a value, or the text of an error."""

    ticket: int
    value: Any
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What an engine tells the controller: output under way, requests begun and ended, answers."""

    output: tuple[OutputBatch, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What becomes of a report.

    Attributes:
        controller: which process of the controller has it; what an earlier one had and has not delivered is lost.
        delivered: its output, and all before it, has reached its clients, or nobody waits for it.
    """

    controller: int
    delivered: bool


@dataclass(frozen=True, slots=True)
class EngineStarting:
    """An engine has been asked for."""

    engine_id: int


@dataclass(frozen=True, slots=True)
class EngineWaiting:
    """An engine that has been asked for has no place: what it asks for and what there is. It starts when it has one."""

    engine_id: int
    incarnation: int
    reason: str


@dataclass(frozen=True, slots=True)
class EngineLeaving:
    """An engine finishes what it has to do and then goes: no more is to be asked of it."""

    engine_id: int


@dataclass(frozen=True, slots=True)
class EngineJoined:
    """An engine has registered and takes requests."""

    engine: EngineInfo


@dataclass(frozen=True, slots=True)
class EngineLeft:
    """An engine has gone.

    Attributes:
        engine_id: its id.
        incarnation: the one that is gone.
        reason: why, for people.
        expected: somebody asked it to.
        returns: a new process takes its place.
        replays: and makes its namespace again; what it had not answered is to be sent again.
    """

    engine_id: int
    incarnation: int
    reason: str
    expected: bool
    returns: bool = False
    replays: bool = False


@dataclass(frozen=True, slots=True)
class EngineFailedToStart:
    """An engine never registered: why, and the last lines of its stderr."""

    engine_id: int
    incarnation: int
    reason: str
    stderr_tail: str = ""


@dataclass(frozen=True, slots=True)
class OutputEvent:
    """Output on its way to the client that caused it."""

    batch: OutputBatch


Event = EngineStarting | EngineWaiting | EngineJoined | EngineLeaving | EngineLeft | EngineFailedToStart | OutputEvent


class HistoryEntry(NamedTuple):
    """One request as the cluster remembers it: who ran what, where, when, with which outcome."""

    request: RequestId
    engine_id: int
    label: str
    source: str
    started: float
    completed: float | None
    outcome: str


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What a client learns when it attaches.

    Attributes:
        cluster: the cluster's name.
        engines: those that take requests.
        starting: ids of new ones that have been asked for.
        recovering: those that are being brought back, as they were when they died.
        next_id: no engine has had this id or one above it.
        waiting: those of the starting and the recovering ones that have no place, with the reason.
        leaving: ids of engines that finish what they have to do and then go.
    """

    cluster: str
    engines: tuple[EngineInfo, ...]
    starting: tuple[int, ...]
    recovering: tuple[EngineInfo, ...] = ()
    next_id: int = 0
    waiting: tuple[EngineWaiting, ...] = ()
    leaving: tuple[int, ...] = ()
