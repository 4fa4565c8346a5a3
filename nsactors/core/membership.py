"""Who is in the cluster: a state machine of engines, by value.

Ids increase and are never reused. Each start of an engine's process is an *incarnation* of its id; news of an
incarnation that is no longer the current one is ignored, so a late message can never bring back or bury the wrong
process.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nsactors.core.cluster import (
    EngineFailedToStart,
    EngineInfo,
    EngineJoined,
    EngineLeft,
    EngineOptions,
    EngineStarting,
    Recovery,
)

__all__ = [
    "Announce",
    "Dismiss",
    "Effect",
    "EngineDied",
    "EngineRegistered",
    "EnginesDismissed",
    "EnginesRestarted",
    "EnginesWanted",
    "Launch",
    "MemberEvent",
    "Membership",
]


MAX_ATTEMPTS = 3  # to bring an engine back: what kills it at its start will not stop doing so


@dataclass(frozen=True, slots=True)
class EnginesWanted:
    """Start ``count`` more engines."""

    count: int
    options: EngineOptions


@dataclass(frozen=True, slots=True)
class EngineRegistered:
    """An engine's process is up and has said where it is."""

    engine: EngineInfo


@dataclass(frozen=True, slots=True)
class EngineDied:
    """An engine's process is gone, or never came up."""

    engine_id: int
    incarnation: int
    reason: str
    stderr_tail: str = ""


@dataclass(frozen=True, slots=True)
class EnginesDismissed:
    """Somebody asked these engines to end."""

    engine_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EnginesRestarted:
    """Somebody asked for new processes under these ids; with ``recovers``, as if the old ones had died."""

    engine_ids: tuple[int, ...]
    recovers: bool = False


MemberEvent = EnginesWanted | EngineRegistered | EngineDied | EnginesDismissed | EnginesRestarted


@dataclass(frozen=True, slots=True)
class Launch:
    """Start the process of this incarnation and watch it.

    ``recovers`` is the incarnation whose namespace it is to make again; None if it begins with an empty one.
    """

    engine_id: int
    incarnation: int
    options: EngineOptions
    recovers: int | None = None


@dataclass(frozen=True, slots=True)
class Dismiss:
    """End the process of this incarnation."""

    engine_id: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell every client."""

    event: EngineStarting | EngineJoined | EngineLeft | EngineFailedToStart


Effect = Launch | Dismiss | Announce


@dataclass(slots=True)
class _Member:
    """One engine.

    Attributes:
        incarnation: the one that counts.
        options: what it was asked for with.
        info: None until it has registered.
        former: the last incarnation that had registered, and whose place this one takes.
        journal_of: the incarnation that wrote the journal of its namespace; None if there is none to be had.
        attempts: how many processes in a row have died before they registered.
        dismissed: it was asked to end.
    """

    incarnation: int
    options: EngineOptions
    info: EngineInfo | None = None
    former: EngineInfo | None = None
    journal_of: int | None = None
    attempts: int = 0
    dismissed: bool = False


@dataclass(slots=True)
class Membership:
    """The engines of one cluster. ``handle`` takes what happened and says what to do."""

    _members: dict[int, _Member] = field(default_factory=dict)
    _next_id: int = 0

    @property
    def engines(self) -> list[EngineInfo]:
        """The engines that take requests, by id."""
        return [m.info for _, m in sorted(self._members.items()) if m.info is not None and not m.dismissed]

    @property
    def starting(self) -> list[int]:
        """Ids of new engines whose process has been asked for and has not registered yet."""
        return [i for i, m in sorted(self._members.items()) if not (m.info or m.former or m.dismissed)]

    @property
    def recovering(self) -> list[EngineInfo]:
        """The engines that have died and are being brought back, as they were."""
        return [m.former for _, m in sorted(self._members.items()) if m.former and not (m.info or m.dismissed)]

    def is_current(self, engine_id: int, incarnation: int) -> bool:
        """Whether this incarnation is the one that counts."""
        member = self._members.get(engine_id)
        return member is not None and member.incarnation == incarnation

    def handle(self, event: MemberEvent) -> list[Effect]:
        """Take one event; the effects are to be carried out in order."""
        match event:
            case EnginesWanted(count, options):
                return [effect for _ in range(count) for effect in self._launch(options)]
            case EngineRegistered(engine):
                return self._registered(engine)
            case EngineDied():
                return self._died(event)
            case EnginesDismissed(engine_ids):
                return [effect for engine_id in engine_ids for effect in self._dismissed(engine_id)]
            case EnginesRestarted(engine_ids, recovers):
                return [effect for engine_id in engine_ids for effect in self._restarted(engine_id, recovers)]

    def _restarted(self, engine_id: int, recovers: bool) -> list[Effect]:
        member = self._members.get(engine_id)
        if member is None or member.dismissed:
            return []
        old = member.incarnation
        if not recovers:
            member.journal_of = None
        brought_back = self._bring_back(engine_id, member, "it was asked to restart", expected=True, recovers=recovers)
        return [Dismiss(engine_id, old), *brought_back]

    def _bring_back(
        self, engine_id: int, member: _Member, reason: str, *, expected: bool, recovers: bool = True
    ) -> list[Effect]:
        """Let a new process take the place of one that is gone."""
        announcements: list[Effect] = []
        if member.info is not None:
            replays = recovers and member.options.recovery is Recovery.REPLAY
            left = EngineLeft(engine_id, member.incarnation, reason, expected=expected, returns=True, replays=replays)
            announcements = [Announce(left)]
            member.former, member.info = member.info, None
            member.journal_of = member.incarnation if replays else None
        member.incarnation += 1
        return [*announcements, Launch(engine_id, member.incarnation, member.options, member.journal_of)]

    def _launch(self, options: EngineOptions) -> list[Effect]:
        engine_id, self._next_id = self._next_id, self._next_id + 1
        self._members[engine_id] = _Member(0, options)
        return [Announce(EngineStarting(engine_id)), Launch(engine_id, 0, options)]

    def _registered(self, engine: EngineInfo) -> list[Effect]:
        member = self._members.get(engine.engine_id)
        # Strays are ended: an engine nobody counts would burn somebody's cores unseen.
        if member is None or member.incarnation != engine.incarnation or member.dismissed:
            return [Dismiss(engine.engine_id, engine.incarnation)]
        member.info, member.former, member.attempts = engine, None, 0
        return [Announce(EngineJoined(engine))]

    def _died(self, event: EngineDied) -> list[Effect]:
        if not self.is_current(event.engine_id, event.incarnation):
            return []
        engine_id, member = event.engine_id, self._members[event.engine_id]
        if member.dismissed:
            del self._members[engine_id]
            return []  # announced when it was dismissed
        if member.info is None:
            member.attempts += 1
            if member.former is not None and member.attempts < MAX_ATTEMPTS:
                return self._bring_back(engine_id, member, event.reason, expected=False)
        elif member.options.recovery is not Recovery.NONE:
            return self._bring_back(engine_id, member, event.reason, expected=False)
        del self._members[engine_id]
        if member.info is not None:
            return [Announce(EngineLeft(engine_id, event.incarnation, event.reason, expected=False))]
        if member.former is not None:
            reason = f"it died, and could not be brought back in {MAX_ATTEMPTS} attempts: {event.reason}"
            return [Announce(EngineLeft(engine_id, member.former.incarnation, reason, expected=False))]
        failed = EngineFailedToStart(engine_id, event.incarnation, event.reason, event.stderr_tail)
        return [Announce(failed)]

    def _dismissed(self, engine_id: int) -> list[Effect]:
        member = self._members.get(engine_id)
        if member is None or member.dismissed:
            return []
        member.dismissed = True
        known = member.former or member.info
        incarnation = member.incarnation if known is None else known.incarnation
        left = EngineLeft(engine_id, incarnation, "it was asked to shut down", expected=True)
        return [Announce(left), Dismiss(engine_id, member.incarnation)]
