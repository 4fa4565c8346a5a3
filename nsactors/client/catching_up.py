"""What a client has missed while it did not listen to its cluster."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from nsactors.core.cluster import (
    ClusterState,
    EngineFailedToStart,
    EngineInfo,
    EngineJoined,
    EngineLeaving,
    EngineLeft,
    EngineStarting,
    Event,
    Recovery,
)

__all__ = ["leave_of", "missed_events"]


def missed_events(
    known: Mapping[int, EngineInfo], away: Collection[int], starting: Iterable[int], state: ClusterState
) -> list[Event]:
    """Events that lead from what a client knows to what is.

    Args:
        known: the engines that it knows of, by id.
        away: those of them of which it has heard that they are being brought back.
        starting: ids of engines that it waits for.
        state: how things stand.
    """
    there = {engine.engine_id: engine for engine in (*state.recovering, *state.engines)}
    recovering = {engine.engine_id for engine in state.recovering}
    events: list[Event] = []
    for engine_id, engine in known.items():
        now = there.get(engine_id)
        if now != engine or (engine_id in recovering and engine_id not in away):
            events.append(leave_of(engine, "it died while this client did not hear of it", returns=now is not None))
    for engine_id in starting:
        if engine_id < state.next_id and engine_id not in there and engine_id not in state.starting:
            events.append(EngineFailedToStart(engine_id, 0, "it has ended, and nobody was there to say why"))
    events += [EngineStarting(engine_id) for engine_id in state.starting]
    for engine_id, engine in there.items():
        if known.get(engine_id) != engine:
            events.append(EngineJoined(engine))
            if engine_id in recovering:
                events.append(leave_of(engine, "it died before this client heard of it", returns=True))
    return [*events, *state.waiting, *(EngineLeaving(engine_id) for engine_id in state.leaving)]


def leave_of(engine: EngineInfo, reason: str, *, returns: bool) -> EngineLeft:
    """That an engine has gone, as its client concludes it."""
    replays = returns and engine.recovery is Recovery.REPLAY
    return EngineLeft(engine.engine_id, engine.incarnation, reason, expected=False, returns=returns, replays=replays)
