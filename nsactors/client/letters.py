"""Requests as a client's post handles them, and the ways they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nsactors.core.cluster import EngineInfo, Recovery
from nsactors.core.stream import SendWindow
from nsactors.errors import EngineLost
from nsactors.results import Call
from nsactors.transport.base import Addressed, EngineGone, Transport

__all__ = ["Letter", "Line", "loss_of", "not_repeated", "send_together"]


@dataclass(slots=True, eq=False)
class Line:
    """The way to one engine, through all its incarnations.

    Attributes:
        engine: the incarnation that takes requests, or did so last.
        window: what is on its way there.
        stops_seen: how many failures on that incarnation that stop what follows have been heard of.
        away: it has died, and its next incarnation is not here yet.
        replays: that one will have its namespace, so what it had not answered is sent again.
    """

    engine: EngineInfo
    window: SendWindow[Letter]
    stops_seen: int = 0
    away: bool = False
    replays: bool = False


@dataclass(slots=True, eq=False)
class Letter:
    """A request to one engine.

    Attributes:
        call: what its sender sees of it.
        line: the way it takes.
        stops_seen: how many stops of that engine its client knew of.
        prepared: what it says, ready to be sent.
        stops_on_error: whether its failure is such a stop.
        relayed: whether it goes by way of a relay.
        carries_tasks: whether it dies with the incarnation it is sent to, for its content goes elsewhere then.
        engine: the incarnation it goes to; None as long as there is none.
        pending: what the transport gave for it when it was sent.
        heard: the transport has been told who takes the answer.
        repeated: it was sent to an incarnation that is gone.
        losses: how many are gone that had it in front of them.
    """

    call: Call
    line: Line
    stops_seen: int
    prepared: Any
    stops_on_error: bool
    relayed: bool
    carries_tasks: bool = False
    engine: EngineInfo | None = None
    pending: Any = None
    heard: bool = False
    repeated: bool = False
    losses: int = 0

    def take_back(self, *, in_front: bool) -> None:
        """The incarnation it was sent to is gone, perhaps with this ``in_front``; it is as if it had not been sent."""
        if self.engine is not None:
            self.repeated = True
            self.losses += in_front
        self.pending, self.heard = None, False


def loss_of(call: Call, engine: EngineInfo, gone: EngineGone) -> EngineLost:
    """What a call ends with whose engine is gone."""
    if engine.recovery is Recovery.NONE:
        return EngineLost(call.engine_id, call.label, gone.reason, gone.stderr_tail)
    after = "A new process takes its place, with an empty namespace; Cluster(recovery='replay') would make that again"
    return EngineLost(call.engine_id, call.label, gone.reason, gone.stderr_tail, after)


def not_repeated(call: Call) -> EngineLost:
    """What a call ends with that was sent again to an engine which had begun it before it died."""
    return EngineLost(
        call.engine_id,
        call.label,
        "this had begun before, and is not repeated",
        after="Its namespace has been recovered; what was lost can be sent again",
    )


def send_together(transport: Transport, letters: Sequence[Letter]) -> None:
    """Send letters that say the same and go the same way; those that have been sent are pending, whatever is raised."""
    if letters and letters[0].relayed and transport.relays is not None:
        answers = transport.relays.send([_address_of(letter) for letter in letters], letters[0].prepared)
        for letter, answer in zip(letters, answers, strict=True):
            letter.pending = answer
    else:
        for letter in letters:
            letter.pending = transport.send(_address_of(letter), letter.prepared)


def _address_of(letter: Letter) -> Addressed:
    """To whom a letter goes."""
    assert letter.engine is not None, "a letter is offered before it is sent"
    return Addressed(letter.engine, letter.call.request_id.seq, letter.stops_seen)
