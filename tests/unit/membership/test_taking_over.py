"""A controller that is killed at any moment, and the one that takes its place."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from nsactors.membership.members import (
    Adopt,
    Announce,
    ControllerRestarted,
    Dismiss,
    Effect,
    EngineDied,
    EngineRegistered,
    EnginesDismissed,
    EnginesRestarted,
    EnginesWanted,
    Launch,
    Member,
    MemberEvent,
    Membership,
)
from nsactors.protocol.control import EngineFailedToStart, EngineJoined, EngineLeft
from nsactors.protocol.engine_info import EngineInfo, EngineOptions, Recovery

OPTIONS = EngineOptions(Recovery.RESTART)
Process = tuple[int, int]


def info(engine_id: int, incarnation: int = 0) -> EngineInfo:
    return EngineInfo(engine_id, incarnation, pid=1, host="here", address=None)


def registered(*engine_ids: int, options: EngineOptions = OPTIONS) -> Membership:
    members = Membership()
    members.handle(EnginesWanted(len(engine_ids), options, "first"))
    for engine_id in engine_ids:
        members.handle(EngineRegistered(info(engine_id)))
    return members


def test_processes_that_are_alive_are_watched_again() -> None:
    alive = frozenset({(0, 0), (1, 0)})
    assert registered(0, 1).handle(ControllerRestarted(alive)) == [Adopt(0, 0, OPTIONS), Adopt(1, 0, OPTIONS)]


def test_an_engine_that_has_died_meanwhile_is_brought_back() -> None:
    effects = registered(0).handle(ControllerRestarted(frozenset()))
    (left,) = [effect.event for effect in effects if isinstance(effect, Announce)]
    assert (isinstance(left, EngineLeft) and left.returns, effects[-1]) == (True, Launch(0, 1, OPTIONS))


def test_an_engine_that_was_to_be_started_and_is_not_there_is_started() -> None:
    members = Membership()
    members.handle(EnginesWanted(1, OPTIONS))
    assert members.handle(ControllerRestarted(frozenset())) == [Launch(0, 0, OPTIONS)]


def test_an_engine_that_was_to_be_ended_and_is_there_is_ended() -> None:
    members = registered(0)
    members.handle(EnginesDismissed((0,)))
    assert members.handle(ControllerRestarted(frozenset({(0, 0)}))) == [Adopt(0, 0, OPTIONS), Dismiss(0, 0)]


def test_an_engine_that_was_to_be_ended_and_is_gone_is_forgotten() -> None:
    members = registered(0)
    members.handle(EnginesDismissed((0,)))
    assert members.handle(ControllerRestarted(frozenset())) == []
    assert members.members == {}


def test_processes_that_nobody_counts_are_ended() -> None:
    effects = registered(0).handle(ControllerRestarted(frozenset({(0, 0), (7, 3)})))
    assert effects[0] == Dismiss(7, 3, at_once=True)


def test_a_request_for_engines_that_comes_twice_starts_them_once() -> None:
    members = registered(0, 1)
    assert members.handle(EnginesWanted(2, OPTIONS, "first")) == []
    assert members.ordered("first") == [0, 1]


def test_a_restart_that_comes_twice_happens_once() -> None:
    members = registered(0)
    assert members.handle(EnginesRestarted((0,), order="again")) != []
    assert members.handle(EnginesRestarted((0,), order="again")) == []
    assert members.handle(EnginesRestarted((0,), order="once more")) != []


def test_a_restart_does_not_hide_who_asked_for_the_engine() -> None:
    members = registered(0)
    members.handle(EnginesRestarted((0,), order="again"))
    assert members.handle(EnginesWanted(1, OPTIONS, "first")) == []


def test_an_engine_that_registers_twice_joins_once() -> None:
    assert registered(0).handle(EngineRegistered(info(0))) == []


class World:
    """Processes, what is written down of them, and a controller that is killed now and then."""

    def __init__(self) -> None:
        self.written: tuple[dict[int, Member], int] = ({}, 0)
        self.members = Membership()
        self.alive: set[Process] = set()
        self.launched: list[Process] = []
        self.joined: set[int] = set()

    def handle(self, event: MemberEvent, steps: int) -> bool:
        """Take an event; the controller is killed after ``steps`` of what follows. Whether it lives."""
        effects = self.members.handle(event)
        if steps == 0:
            return False
        self.written = (dict(self.members.members), self.members.next_id)
        self.carry_out(effects[: steps - 1])
        return steps > len(effects)

    def carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Launch(engine_id, incarnation):
                    assert not any(i == engine_id for i, _ in self.alive), "an id has one process at a time"
                    self.alive.add((engine_id, incarnation))
                    self.launched.append((engine_id, incarnation))
                case Adopt(engine_id, incarnation):
                    assert (engine_id, incarnation) in self.alive, "who is watched is there"
                case Dismiss(engine_id, incarnation):
                    self.alive.discard((engine_id, incarnation))
                case Announce(EngineJoined(engine)):
                    self.joined.add(engine.engine_id)
                case Announce(EngineFailedToStart(engine_id)):
                    assert engine_id not in self.joined, "who was told to be there has started"

    def take_over(self, steps: int) -> bool:
        members, next_id = self.written
        self.members = Membership(dict(members), next_id)
        return self.handle(ControllerRestarted(frozenset(self.alive)), steps)


WHAT = st.sampled_from(["want", "register", "die", "dismiss", "restart"])
HAPPENINGS = st.tuples(
    WHAT, st.integers(0, 4), st.integers(0, 8) | st.just(99), st.lists(st.integers(0, 4), max_size=2)
)


@given(st.sampled_from(Recovery), st.lists(HAPPENINGS, max_size=40))
def test_wherever_a_controller_is_killed_its_successor_has_one_process_for_each_engine(
    recovery: Recovery, happenings: list[tuple[str, int, int, list[int]]]
) -> None:
    world = World()
    up: set[Process] = set()
    for what, number, steps, kills in happenings:
        process = next((p for p in sorted(world.alive) if p[0] == number), None)
        event: MemberEvent | None = None
        match what:
            case "want":
                event = EnginesWanted(number % 3, EngineOptions(recovery))
            case "register" if process is not None:
                up.add(process)
                event = EngineRegistered(info(*process))
            case "die" if process is not None and process in up:
                world.alive.discard(process)
                event = EngineDied(*process, "it happens")
            case "dismiss":
                event = EnginesDismissed((number,))
            case "restart":
                event = EnginesRestarted((number,))
        if event is not None and not world.handle(event, steps):
            for kill in kills:  # its successors too
                world.take_over(kill)
            assert world.take_over(99)
        counted = {(i, m.incarnation) for i, m in world.members.members.items() if not m.dismissed}
        assert world.alive == counted
    ids = {engine_id for engine_id, _ in world.launched}
    assert ids <= set(range(world.members.next_id)), "no id is given twice"
