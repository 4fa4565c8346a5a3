"""Who is in the cluster: a state machine of engines, by value.

Ids increase and are never reused. Each start of an engine's process is an *incarnation* of its id; news of an
incarnation that is no longer the current one is ignored, so a late message can never bring back or bury the wrong
process.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nsactors.core.cluster import EngineFailedToStart, EngineInfo, EngineJoined, EngineLeft, EngineStarting

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


@dataclass(frozen=True, slots=True)
class EnginesWanted:
    """Start ``count`` more engines."""

    count: int


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
    """Somebody asked for new processes under these ids."""

    engine_ids: tuple[int, ...]


MemberEvent = EnginesWanted | EngineRegistered | EngineDied | EnginesDismissed | EnginesRestarted


@dataclass(frozen=True, slots=True)
class Launch:
    """Start the process of this incarnation and watch it."""

    engine_id: int
    incarnation: int


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
    incarnation: int
    info: EngineInfo | None = None  # None until it has registered
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
        """Ids of engines whose process has been asked for and has not registered yet."""
        return [i for i, m in sorted(self._members.items()) if m.info is None and not m.dismissed]

    def is_current(self, engine_id: int, incarnation: int) -> bool:
        """Whether this incarnation is the one that counts."""
        member = self._members.get(engine_id)
        return member is not None and member.incarnation == incarnation

    def handle(self, event: MemberEvent) -> list[Effect]:
        """Take one event; the effects are to be carried out in order."""
        match event:
            case EnginesWanted(count):
                return [effect for _ in range(count) for effect in self._launch()]
            case EngineRegistered(engine):
                return self._registered(engine)
            case EngineDied():
                return self._died(event)
            case EnginesDismissed(engine_ids):
                return [effect for engine_id in engine_ids for effect in self._dismissed(engine_id)]
            case EnginesRestarted(engine_ids):
                return [effect for engine_id in engine_ids for effect in self._restarted(engine_id)]

    def _restarted(self, engine_id: int) -> list[Effect]:
        member = self._members.get(engine_id)
        if member is None or member.dismissed:
            return []
        old, new = member.incarnation, member.incarnation + 1
        self._members[engine_id] = _Member(new)
        left = EngineLeft(engine_id, old, "it was asked to restart", expected=True)
        return [Announce(left), Dismiss(engine_id, old), Announce(EngineStarting(engine_id)), Launch(engine_id, new)]

    def _launch(self) -> list[Effect]:
        engine_id, self._next_id = self._next_id, self._next_id + 1
        self._members[engine_id] = _Member(incarnation=0)
        return [Announce(EngineStarting(engine_id)), Launch(engine_id, 0)]

    def _registered(self, engine: EngineInfo) -> list[Effect]:
        member = self._members.get(engine.engine_id)
        # Strays are ended: an engine nobody counts would burn somebody's cores unseen.
        if member is None or member.incarnation != engine.incarnation or member.dismissed:
            return [Dismiss(engine.engine_id, engine.incarnation)]
        member.info = engine
        return [Announce(EngineJoined(engine))]

    def _died(self, event: EngineDied) -> list[Effect]:
        if not self.is_current(event.engine_id, event.incarnation):
            return []
        member = self._members.pop(event.engine_id)
        if member.info is None and not member.dismissed:
            failed = EngineFailedToStart(event.engine_id, event.incarnation, event.reason, event.stderr_tail)
            return [Announce(failed)]
        if member.dismissed:
            return []  # announced when it was dismissed
        return [Announce(EngineLeft(event.engine_id, event.incarnation, event.reason, expected=False))]

    def _dismissed(self, engine_id: int) -> list[Effect]:
        member = self._members.get(engine_id)
        if member is None or member.dismissed:
            return []
        member.dismissed = True
        left = EngineLeft(engine_id, member.incarnation, "it was asked to shut down", expected=True)
        return [Announce(left), Dismiss(engine_id, member.incarnation)]
