"""The engines of the cluster, as a pure state machine.

Ids increase and are never reused. Each start of an engine's process is an *incarnation* of its id; events of an
incarnation that is not the current one are ignored, so that a late message cannot restart or remove the wrong process.

Members are values, so that the store can save them after each event, and another controller can load them.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from nsactors._frozen import frozen
from nsactors.errors.exceptions import RESTART_REQUESTED, SHUTDOWN_REQUESTED
from nsactors.protocol.control import (
    EngineFailedToStart,
    EngineJoined,
    EngineLeaving,
    EngineLeft,
    EngineStarting,
    EngineWaiting,
)
from nsactors.protocol.engine_info import EngineInfo, EngineOptions, Recovery

MAX_ATTEMPTS = 3  # attempts to restart an engine; if three fail, a fourth would fail as well
MAX_RECOVERIES = 12  # attempts to replay a journal; an entry that has killed two attempts is skipped


@frozen
class EnginesWanted:
    """Start ``count`` more engines. ``order`` identifies the request, which changes nothing if repeated."""

    count: int
    options: EngineOptions
    order: str = ""


@frozen
class EngineRegistered:
    """An engine's process has started and has sent its address."""

    engine: EngineInfo


@frozen
class EngineHeldUp:
    """An engine's process cannot be started at present. It starts as soon as this is possible.

    With ``nodes_may_come``, the cluster adds machines as engines ask for them.
    """

    engine_id: int
    incarnation: int
    reason: str
    nodes_may_come: bool = False


@frozen
class EngineDied:
    """An engine's process ended, or did not start; ``displaced`` if the cause is the node that was chosen for it."""

    engine_id: int
    incarnation: int
    reason: str
    stderr_tail: str = ""
    displaced: bool = False


@frozen
class EnginesDismissed:
    """A user asked these engines to stop."""

    engine_ids: tuple[int, ...]


@frozen
class EnginesRetired:
    """A user asked these engines to finish their requests and then stop."""

    engine_ids: tuple[int, ...]


@frozen
class EnginesRestarted:
    """A user asked for new processes under these ids; with ``recovers``, as if the old processes had died.

    For ``order`` see :class:`EnginesWanted`.
    """

    engine_ids: tuple[int, ...]
    recovers: bool = False
    order: str = ""


@frozen
class ControllerRestarted:
    """A new controller continues from the store of its predecessor, and found these processes alive."""

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


@frozen
class Launch:
    """Start the process of this incarnation and watch it.

    ``recovers`` is the incarnation whose namespace it restores; None if it begins with an empty one.
    """

    engine_id: int
    incarnation: int
    options: EngineOptions
    recovers: int | None = None


@frozen
class Adopt:
    """Watch the process of this incarnation, which is already running."""

    engine_id: int
    incarnation: int
    options: EngineOptions


@frozen
class Dismiss:
    """End the process of this incarnation: gracefully, or ``at_once`` if it has no files of its user to close."""

    engine_id: int
    incarnation: int
    at_once: bool = False


@frozen
class Drain:
    """Wait until this incarnation is idle, and then dismiss it."""

    engine_id: int
    incarnation: int


@frozen
class Announce:
    """Send the event to all clients."""

    event: EngineStarting | EngineWaiting | EngineJoined | EngineLeaving | EngineLeft | EngineFailedToStart


Effect = Launch | Adopt | Dismiss | Drain | Announce


@frozen
class Member:
    """One engine.

    Attributes:
        incarnation: the current incarnation.
        options: its options.
        info: its description; None until it has registered.
        former: the last incarnation that had registered, if this one replaces it.
        journal_of: the incarnation that wrote the journal of its namespace; None if there is none.
        attempts: the number of processes in a row that died before they registered.
        held_up: the reason that its process cannot be started; empty if it can.
        nodes_may_come: whether the cluster may add a machine for it while it is held up.
        leaving: whether it will stop when it has finished its requests.
        dismissed: whether it has been told to stop.
        orders: the requests that asked for this engine, and for its last restart.
    """

    incarnation: int
    options: EngineOptions
    info: EngineInfo | None = None
    former: EngineInfo | None = None
    journal_of: int | None = None
    attempts: int = 0
    held_up: str = ""
    nodes_may_come: bool = False
    leaving: bool = False
    dismissed: bool = False
    orders: tuple[str, ...] = ()


def _most_attempts(member: Member) -> int:
    return MAX_ATTEMPTS if member.journal_of is None else MAX_RECOVERIES


@dataclass(slots=True)
class Membership:
    """The engines of one cluster. ``handle`` takes an event and returns effects.

    Attributes:
        members: the engines by id.
        next_id: the id of the next new engine.
        unsaved: the ids of members that events have changed or removed since the store saved them.
    """

    members: dict[int, Member] = field(default_factory=dict)
    next_id: int = 0
    unsaved: set[int] = field(default_factory=set, compare=False)
    _by_order: dict[str, dict[int, None]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for engine_id, member in sorted(self.members.items()):
            self._note_order(engine_id, member)

    @property
    def engines(self) -> list[EngineInfo]:
        """The engines that accept requests, by id."""
        return [m.info for _, m in sorted(self.members.items()) if m.info is not None and not m.dismissed]

    def is_gone(self, engine_id: int) -> bool:
        """Return whether an engine accepts no requests and never will."""
        member = self.members.get(engine_id)
        return member is None or member.dismissed

    @property
    def starting(self) -> list[int]:
        """The ids of new engines that have not registered yet."""
        return [i for i, m in sorted(self.members.items()) if not (m.info or m.former or m.dismissed)]

    @property
    def recovering(self) -> list[EngineInfo]:
        """The engines that are restarting, as they were before the restart."""
        return [m.former for _, m in sorted(self.members.items()) if m.former and not (m.info or m.dismissed)]

    @property
    def waiting(self) -> list[EngineWaiting]:
        """The starting or restarting engines that have no machine."""
        held_up = [(i, m) for i, m in sorted(self.members.items()) if m.held_up and not m.dismissed]
        return [EngineWaiting(i, m.incarnation, m.held_up, m.nodes_may_come) for i, m in held_up]

    @property
    def leaving(self) -> list[int]:
        """The ids of running engines that finish their requests and then leave."""
        return [i for i, m in sorted(self.members.items()) if m.leaving and m.info and not m.dismissed]

    def engine(self, engine_id: int) -> EngineInfo | None:
        """Return the engine with this id if it accepts requests, otherwise None."""
        member = self.members.get(engine_id)
        return None if member is None or member.dismissed else member.info

    def ordered(self, order: str) -> list[int]:
        """Return the ids of the engines that a request asked for."""
        return list(self._by_order.get(order, ()))

    def is_current(self, engine_id: int, incarnation: int) -> bool:
        """Return whether this is the current incarnation."""
        member = self.members.get(engine_id)
        return member is not None and member.incarnation == incarnation

    def handle(self, event: MemberEvent) -> list[Effect]:
        """Handle an event; return effects to be carried out in order."""
        match event:
            case EnginesWanted(count, options, order):
                # The caller repeats a request whose reply was lost with a controller. This must not start more engines.
                if order and self.ordered(order):
                    return []
                return [effect for _ in range(count) for effect in self._launch(options, order)]
            case EngineRegistered(engine):
                return self._registered(engine)
            case EngineHeldUp():
                return self._held_up(event)
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
        # A restart that a user asked for gets all attempts again.
        member = replace(member, attempts=0, orders=(*member.orders[:1], order))
        restart = self._restart(engine_id, member, RESTART_REQUESTED, expected=True, recovers=recovers)
        # For a recovery, kill the engine immediately, as if it had died, because it may be stuck.
        return [Dismiss(engine_id, old, at_once=recovers or member.info is None), *restart]

    def _restart(
        self, engine_id: int, member: Member, reason: str, *, expected: bool, recovers: bool = True
    ) -> list[Effect]:
        """Replace the process of an engine by a new one."""
        former = member.info or member.former
        journal_of = member.journal_of if member.info is None else member.incarnation
        if not recovers or member.options.recovery is not Recovery.REPLAY:
            journal_of = None
        announcements: list[Effect] = []
        # An engine that is restarting already is announced again if its namespace will not be restored now, because
        # clients hold requests for that namespace.
        if former is not None and (member.info is not None or journal_of != member.journal_of):
            replays = journal_of is not None
            left = EngineLeft(engine_id, former.incarnation, reason, expected=expected, returns=True, replays=replays)
            announcements = [Announce(left)]
        incarnation = member.incarnation + 1
        self._set(
            engine_id,
            replace(member, incarnation=incarnation, info=None, former=former, journal_of=journal_of, held_up=""),
        )
        return [*announcements, Launch(engine_id, incarnation, member.options, journal_of)]

    def _launch(self, options: EngineOptions, order: str) -> list[Effect]:
        engine_id, self.next_id = self.next_id, self.next_id + 1
        member = Member(0, options, orders=(order,))
        self._set(engine_id, member)
        self._note_order(engine_id, member)
        return [Announce(EngineStarting(engine_id)), Launch(engine_id, 0, options)]

    def _registered(self, engine: EngineInfo) -> list[Effect]:
        member = self.members.get(engine.engine_id)
        # Stop unknown processes, because an engine that no member stands for would use cores unnoticed.
        if member is None or member.incarnation != engine.incarnation or member.dismissed:
            return [Dismiss(engine.engine_id, engine.incarnation, at_once=True)]
        if member.info == engine:
            return []  # it registered again, because it did not know that its first message had arrived
        self._set(engine.engine_id, replace(member, info=engine, former=None, attempts=0, held_up=""))
        return [Announce(EngineJoined(engine)), *self._drained(engine.engine_id)]

    def _held_up(self, event: EngineHeldUp) -> list[Effect]:
        member = self.members.get(event.engine_id)
        if member is None or member.incarnation != event.incarnation or member.info or member.dismissed:
            return []
        self._set(event.engine_id, replace(member, held_up=event.reason, nodes_may_come=event.nodes_may_come))
        return [Announce(EngineWaiting(event.engine_id, event.incarnation, event.reason, event.nodes_may_come))]

    def _died(self, event: EngineDied) -> list[Effect]:
        if not self.is_current(event.engine_id, event.incarnation):
            return []
        engine_id, member = event.engine_id, self.members[event.engine_id]
        if member.dismissed:
            self._remove(engine_id)
            return []  # its end was announced when it was dismissed
        if member.info is None:
            member = replace(member, attempts=member.attempts + 1)
            # A new engine that does not start is reported immediately, because its options or start-up code are at
            # fault. An engine that replaces another, or whose node was lost, gets further attempts.
            if (member.former is not None or event.displaced) and member.attempts < _most_attempts(member):
                return self._restart(engine_id, member, event.reason, expected=False)
        elif member.options.recovery is not Recovery.NONE and not member.leaving:
            return self._restart(engine_id, member, event.reason, expected=False)
        self._remove(engine_id)
        if member.info is not None:
            return [Announce(EngineLeft(engine_id, event.incarnation, event.reason, expected=False))]
        if member.former is not None:
            reason = f"it died, and could not be restarted in {_most_attempts(member)} attempts: {event.reason}"
            return [Announce(EngineLeft(engine_id, member.former.incarnation, reason, expected=False))]
        failed = EngineFailedToStart(engine_id, event.incarnation, event.reason, event.stderr_tail)
        return [Announce(failed)]

    def _dismissed(self, engine_id: int) -> list[Effect]:
        member = self.members.get(engine_id)
        if member is None or member.dismissed:
            return []
        # The engine stays a member until its process has ended, so that another controller finds and ends the process.
        self._set(engine_id, replace(member, dismissed=True))
        known = member.former or member.info
        incarnation = member.incarnation if known is None else known.incarnation
        left = EngineLeft(engine_id, incarnation, SHUTDOWN_REQUESTED, expected=True)
        # An engine that has not registered may still wait for a machine, and then no message reaches it.
        return [Announce(left), Dismiss(engine_id, member.incarnation, at_once=member.info is None)]

    def _retired(self, engine_id: int) -> list[Effect]:
        member = self.members.get(engine_id)
        if member is None or member.leaving or member.dismissed:
            return []
        if member.info is None and member.former is None:
            return self._dismissed(engine_id)
        # Unlike a dismissed engine, it still accepts requests, as clients learn only a moment later that it leaves.
        self._set(engine_id, replace(member, leaving=True))
        # A restarting engine leaves only when it has registered again, because its clients hold requests for it.
        return self._drained(engine_id) or [Announce(EngineLeaving(engine_id))]

    def _drained(self, engine_id: int) -> list[Effect]:
        member = self.members[engine_id]
        if not member.leaving or member.info is None:
            return []
        return [Announce(EngineLeaving(engine_id)), Drain(engine_id, member.incarnation)]

    def _set(self, engine_id: int, member: Member) -> None:
        self.members[engine_id] = member
        self.unsaved.add(engine_id)

    def _remove(self, engine_id: int) -> None:
        orders = self.members.pop(engine_id).orders
        self.unsaved.add(engine_id)
        if orders and (ids := self._by_order.get(orders[0])) is not None:
            ids.pop(engine_id, None)
            if not ids:
                del self._by_order[orders[0]]

    def _note_order(self, engine_id: int, member: Member) -> None:
        if member.orders:
            self._by_order.setdefault(member.orders[0], {})[engine_id] = None

    def _taken_over(self, alive: AbstractSet[tuple[int, int]]) -> list[Effect]:
        # The predecessor may have been killed after it saved a change and before it carried the change out.
        strays = [process for process in sorted(alive) if not self.is_current(*process)]
        effects: list[Effect] = [Dismiss(*process, at_once=True) for process in strays]
        for engine_id, member in sorted(self.members.items()):
            process = engine_id, member.incarnation
            if process in alive:
                effects.append(Adopt(*process, member.options))
                if member.dismissed:
                    effects.append(Dismiss(*process, at_once=member.info is None))
                elif member.leaving and member.info is not None:
                    effects.append(Drain(*process))
            elif member.info is None and not member.dismissed:
                # The process was never launched, or died unnoticed, so launch the same incarnation.
                effects.append(Launch(*process, member.options, member.journal_of))
            else:
                effects += self._died(EngineDied(*process, "its process ended while the controller was away"))
        return effects
