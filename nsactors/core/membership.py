"""Who is in the cluster: a state machine of engines, by value.

Ids increase and are never reused. Each start of an engine's process is an *incarnation* of its id; news of an
incarnation that is no longer the current one is ignored, so a late message can never bring back or bury the wrong
process.

Members are values, so that they can be written down after each event and read by whoever takes over.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from nsactors.core.cluster import (
    EngineFailedToStart,
    EngineInfo,
    EngineJoined,
    EngineLeaving,
    EngineLeft,
    EngineOptions,
    EngineStarting,
    EngineWaiting,
    Recovery,
)

__all__ = [
    "Adopt",
    "Announce",
    "ControllerRestarted",
    "Dismiss",
    "Drain",
    "Effect",
    "EngineDied",
    "EngineHeldUp",
    "EngineRegistered",
    "EnginesDismissed",
    "EnginesRestarted",
    "EnginesRetired",
    "EnginesWanted",
    "Launch",
    "Member",
    "MemberEvent",
    "Membership",
]


MAX_ATTEMPTS = 3  # to bring an engine back: what kills it at its start will not stop doing so


@dataclass(frozen=True, slots=True)
class EnginesWanted:
    """Start ``count`` more engines. ``order`` tells this request from others: repeated, it changes nothing."""

    count: int
    options: EngineOptions
    order: str = ""


@dataclass(frozen=True, slots=True)
class EngineRegistered:
    """An engine's process is up and has said where it is."""

    engine: EngineInfo


@dataclass(frozen=True, slots=True)
class EngineHeldUp:
    """An engine's process cannot be started as things stand; it will be when they change."""

    engine_id: int
    incarnation: int
    reason: str


@dataclass(frozen=True, slots=True)
class EngineDied:
    """An engine's process is gone, or never came up; ``displaced`` if that is for the node it was to be on."""

    engine_id: int
    incarnation: int
    reason: str
    stderr_tail: str = ""
    displaced: bool = False


@dataclass(frozen=True, slots=True)
class EnginesDismissed:
    """Somebody asked these engines to end."""

    engine_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EnginesRetired:
    """Somebody asked these engines to finish what they have to do and then end."""

    engine_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EnginesRestarted:
    """Somebody asked for new processes under these ids; with ``recovers``, as if the old ones had died.

    ``order`` is as in :class:`EnginesWanted`.
    """

    engine_ids: tuple[int, ...]
    recovers: bool = False
    order: str = ""


@dataclass(frozen=True, slots=True)
class ControllerRestarted:
    """A new controller goes on from what the one before it wrote down, and finds these processes alive."""

    alive: AbstractSet[tuple[int, int]]


MemberEvent = (
    EnginesWanted
    | EngineRegistered
    | EngineHeldUp
    | EngineDied
    | EnginesDismissed
    | EnginesRetired
    | EnginesRestarted
    | ControllerRestarted
)


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
class Adopt:
    """Watch the process of this incarnation, which runs already."""

    engine_id: int
    incarnation: int
    options: EngineOptions


@dataclass(frozen=True, slots=True)
class Dismiss:
    """End the process of this incarnation."""

    engine_id: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Drain:
    """See when this incarnation has nothing to do any more, and say that it is to be dismissed."""

    engine_id: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell every client."""

    event: EngineStarting | EngineWaiting | EngineJoined | EngineLeaving | EngineLeft | EngineFailedToStart


Effect = Launch | Adopt | Dismiss | Drain | Announce


@dataclass(frozen=True, slots=True)
class Member:
    """One engine.

    Attributes:
        incarnation: the one that counts.
        options: what it was asked for with.
        info: None until it has registered.
        former: the last incarnation that had registered, and whose place this one takes.
        journal_of: the incarnation that wrote the journal of its namespace; None if there is none to be had.
        attempts: how many processes in a row have died before they registered.
        held_up: why its process cannot be started; empty if it can.
        leaving: it was asked to end when it has nothing to do any more.
        dismissed: it was asked to end.
        orders: the requests that asked for it, and for its last restart.
    """

    incarnation: int
    options: EngineOptions
    info: EngineInfo | None = None
    former: EngineInfo | None = None
    journal_of: int | None = None
    attempts: int = 0
    held_up: str = ""
    leaving: bool = False
    dismissed: bool = False
    orders: tuple[str, ...] = ()


@dataclass(slots=True)
class Membership:
    """The engines of one cluster. ``handle`` takes what happened and says what to do.

    Attributes:
        members: by id; all there is to know of them.
        next_id: of the next new engine.
    """

    members: dict[int, Member] = field(default_factory=dict)
    next_id: int = 0

    @property
    def engines(self) -> list[EngineInfo]:
        """The engines that take requests, by id."""
        return [m.info for _, m in sorted(self.members.items()) if m.info is not None and not m.dismissed]

    def is_gone(self, engine_id: int) -> bool:
        """Whether an engine takes no requests and never will."""
        member = self.members.get(engine_id)
        return member is None or member.dismissed

    @property
    def starting(self) -> list[int]:
        """Ids of new engines whose process has been asked for and has not registered yet."""
        return [i for i, m in sorted(self.members.items()) if not (m.info or m.former or m.dismissed)]

    @property
    def recovering(self) -> list[EngineInfo]:
        """The engines that have died and are being brought back, as they were."""
        return [m.former for _, m in sorted(self.members.items()) if m.former and not (m.info or m.dismissed)]

    @property
    def waiting(self) -> list[EngineWaiting]:
        """The engines that are starting or being brought back and have no place."""
        held_up = [(i, m) for i, m in sorted(self.members.items()) if m.held_up and not m.dismissed]
        return [EngineWaiting(engine_id, member.incarnation, member.held_up) for engine_id, member in held_up]

    @property
    def leaving(self) -> list[int]:
        """Ids of the engines that are there, finish what they have to do and then go."""
        return [i for i, m in sorted(self.members.items()) if m.leaving and m.info and not m.dismissed]

    def ordered(self, order: str) -> list[int]:
        """Ids of the engines that this request has asked for."""
        return [i for i, m in sorted(self.members.items()) if m.orders[:1] == (order,)]

    def is_current(self, engine_id: int, incarnation: int) -> bool:
        """Whether this incarnation is the one that counts."""
        member = self.members.get(engine_id)
        return member is not None and member.incarnation == incarnation

    def handle(self, event: MemberEvent) -> list[Effect]:
        """Take one event; the effects are to be carried out in order."""
        match event:
            case EnginesWanted(count, options, order):
                if order and self.ordered(order):
                    return []
                return [effect for _ in range(count) for effect in self._launch(options, order)]
            case EngineRegistered(engine):
                return self._registered(engine)
            case EngineHeldUp(engine_id, incarnation, reason):
                return self._held_up(engine_id, incarnation, reason)
            case EngineDied():
                return self._died(event)
            case EnginesDismissed(engine_ids):
                return [effect for engine_id in engine_ids for effect in self._dismissed(engine_id)]
            case EnginesRetired(engine_ids):
                return [effect for engine_id in engine_ids for effect in self._retired(engine_id)]
            case EnginesRestarted(engine_ids, recovers, order):
                return [effect for engine_id in engine_ids for effect in self._restarted(engine_id, recovers, order)]
            case ControllerRestarted(alive):
                return self._taken_over(alive)

    def _restarted(self, engine_id: int, recovers: bool, order: str) -> list[Effect]:
        member = self.members.get(engine_id)
        if member is None or member.leaving or member.dismissed or (order and order in member.orders):
            return []
        old = member.incarnation
        member = replace(member, attempts=0, orders=(*member.orders[:1], order))
        brought_back = self._bring_back(engine_id, member, "it was asked to restart", expected=True, recovers=recovers)
        return [Dismiss(engine_id, old), *brought_back]

    def _bring_back(
        self, engine_id: int, member: Member, reason: str, *, expected: bool, recovers: bool = True
    ) -> list[Effect]:
        """Let a new process take the place of one that is gone."""
        former = member.info or member.former
        journal_of = member.journal_of if member.info is None else member.incarnation
        if not recovers or member.options.recovery is not Recovery.REPLAY:
            journal_of = None
        announcements: list[Effect] = []
        # Also if it is away and will not come back as was said: clients hold what only the old namespace is for.
        if former is not None and (member.info is not None or journal_of != member.journal_of):
            replays = journal_of is not None
            left = EngineLeft(engine_id, former.incarnation, reason, expected=expected, returns=True, replays=replays)
            announcements = [Announce(left)]
        incarnation = member.incarnation + 1
        self.members[engine_id] = replace(
            member, incarnation=incarnation, info=None, former=former, journal_of=journal_of, held_up=""
        )
        return [*announcements, Launch(engine_id, incarnation, member.options, journal_of)]

    def _launch(self, options: EngineOptions, order: str) -> list[Effect]:
        engine_id, self.next_id = self.next_id, self.next_id + 1
        self.members[engine_id] = Member(0, options, orders=(order,))
        return [Announce(EngineStarting(engine_id)), Launch(engine_id, 0, options)]

    def _registered(self, engine: EngineInfo) -> list[Effect]:
        member = self.members.get(engine.engine_id)
        # Strays are ended: an engine nobody counts would burn somebody's cores unseen.
        if member is None or member.incarnation != engine.incarnation or member.dismissed:
            return [Dismiss(engine.engine_id, engine.incarnation)]
        if member.info == engine:
            return []  # it could not know that it had been heard
        self.members[engine.engine_id] = replace(member, info=engine, former=None, attempts=0, held_up="")
        return [Announce(EngineJoined(engine)), *self._drained(engine.engine_id)]

    def _held_up(self, engine_id: int, incarnation: int, reason: str) -> list[Effect]:
        member = self.members.get(engine_id)
        if member is None or member.incarnation != incarnation or member.info or member.dismissed:
            return []
        self.members[engine_id] = replace(member, held_up=reason)
        return [Announce(EngineWaiting(engine_id, incarnation, reason))]

    def _died(self, event: EngineDied) -> list[Effect]:
        if not self.is_current(event.engine_id, event.incarnation):
            return []
        engine_id, member = event.engine_id, self.members[event.engine_id]
        if member.dismissed:
            del self.members[engine_id]
            return []  # announced when it was dismissed
        if member.info is None:
            member = replace(member, attempts=member.attempts + 1)
            if (member.former is not None or event.displaced) and member.attempts < MAX_ATTEMPTS:
                return self._bring_back(engine_id, member, event.reason, expected=False)
        elif member.options.recovery is not Recovery.NONE and not member.leaving:
            return self._bring_back(engine_id, member, event.reason, expected=False)
        del self.members[engine_id]
        if member.info is not None:
            return [Announce(EngineLeft(engine_id, event.incarnation, event.reason, expected=False))]
        if member.former is not None:
            reason = f"it died, and could not be brought back in {MAX_ATTEMPTS} attempts: {event.reason}"
            return [Announce(EngineLeft(engine_id, member.former.incarnation, reason, expected=False))]
        failed = EngineFailedToStart(engine_id, event.incarnation, event.reason, event.stderr_tail)
        return [Announce(failed)]

    def _dismissed(self, engine_id: int) -> list[Effect]:
        member = self.members.get(engine_id)
        if member is None or member.dismissed:
            return []
        self.members[engine_id] = replace(member, dismissed=True)
        known = member.former or member.info
        incarnation = member.incarnation if known is None else known.incarnation
        left = EngineLeft(engine_id, incarnation, "it was asked to shut down", expected=True)
        return [Announce(left), Dismiss(engine_id, member.incarnation)]

    def _retired(self, engine_id: int) -> list[Effect]:
        member = self.members.get(engine_id)
        if member is None or member.leaving or member.dismissed:
            return []
        if member.info is None and member.former is None:
            return self._dismissed(engine_id)
        self.members[engine_id] = replace(member, leaving=True)
        # One that is being brought back has requests to finish that its clients hold: it goes when it has been back.
        return self._drained(engine_id) or [Announce(EngineLeaving(engine_id))]

    def _drained(self, engine_id: int) -> list[Effect]:
        if engine_id not in self.leaving:
            return []
        return [Announce(EngineLeaving(engine_id)), Drain(engine_id, self.members[engine_id].incarnation)]

    def _taken_over(self, alive: AbstractSet[tuple[int, int]]) -> list[Effect]:
        # What the last controller had written down it may not have done: it was killed at some moment between the two.
        effects: list[Effect] = [Dismiss(*process) for process in sorted(alive) if not self.is_current(*process)]
        for engine_id, member in sorted(self.members.items()):
            process = engine_id, member.incarnation
            if process in alive:
                effects.append(Adopt(*process, member.options))
                if member.dismissed:
                    effects.append(Dismiss(*process))
                elif member.leaving and member.info is not None:
                    effects.append(Drain(*process))
            elif member.info is None and not member.dismissed:
                # It was never launched, or died before anybody knew of it: the same again.
                effects.append(Launch(*process, member.options, member.journal_of))
            else:
                effects += self._died(EngineDied(*process, "its process ended while the controller was away"))
        return effects
