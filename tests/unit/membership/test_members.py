from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.membership.members import (
    MAX_ATTEMPTS,
    MAX_RECOVERIES,
    Announce,
    Dismiss,
    EngineDied,
    EngineHeldUp,
    EngineRegistered,
    EnginesDismissed,
    EnginesRestarted,
    EnginesRetired,
    EnginesWanted,
    Launch,
    MemberEvent,
    Membership,
)
from nsactors.protocol.control import EngineFailedToStart, EngineJoined, EngineLeft
from nsactors.protocol.engine_info import EngineInfo, EngineOptions, Recovery

OPTIONS = EngineOptions(Recovery.NONE)


def info(engine_id: int, incarnation: int = 0) -> EngineInfo:
    return EngineInfo(engine_id, incarnation, pid=1, host="here", address=None)


def launched(effects: list[object]) -> list[int]:
    return [effect.engine_id for effect in effects if isinstance(effect, Launch)]


def events(effects: list[object]) -> list[object]:
    return [effect.event for effect in effects if isinstance(effect, Announce)]


@pytest.fixture
def members() -> Membership:
    """Engines 0 and 1, registered; they are not brought back if they die."""
    return registered(2, Recovery.NONE)


def registered(count: int, recovery: Recovery) -> Membership:
    members = Membership()
    members.handle(EnginesWanted(count, EngineOptions(recovery)))
    for engine_id in range(count):
        members.handle(EngineRegistered(info(engine_id)))
    return members


def test_engines_that_are_wanted_are_launched_under_new_ids() -> None:
    members = Membership()
    assert [launched(members.handle(EnginesWanted(n, OPTIONS))) for n in (2, 0, 1)] == [[0, 1], [], [2]]


def test_an_engine_is_starting_until_it_registers() -> None:
    members = Membership()
    members.handle(EnginesWanted(2, OPTIONS))
    assert events(members.handle(EngineRegistered(info(1)))) == [EngineJoined(info(1))]
    assert (members.starting, members.engines) == ([0], [info(1)])


def test_an_engine_that_dies_has_left_unexpectedly(members: Membership) -> None:
    assert events(members.handle(EngineDied(0, 0, "killed"))) == [EngineLeft(0, 0, "killed", expected=False)]
    assert members.engines == [info(1)]


def test_an_engine_that_dies_before_it_registers_has_failed_to_start() -> None:
    members = Membership()
    members.handle(EnginesWanted(1, OPTIONS))
    died = EngineDied(0, 0, "no such module", "last lines")
    assert events(members.handle(died)) == [EngineFailedToStart(0, 0, "no such module", "last lines")]
    assert members.starting == []


def test_a_dismissed_engine_leaves_at_once_and_is_ended(members: Membership) -> None:
    effects = members.handle(EnginesDismissed((0,)))
    left = events(effects)[0]
    assert (isinstance(left, EngineLeft) and left.expected, Dismiss(0, 0) in effects) == (True, True)
    assert members.engines == [info(1)]


def test_the_death_of_a_dismissed_engine_is_no_news(members: Membership) -> None:
    members.handle(EnginesDismissed((0,)))
    assert events(members.handle(EngineDied(0, 0, "killed"))) == []


def test_dismissing_twice_is_dismissing_once(members: Membership) -> None:
    members.handle(EnginesDismissed((0,)))
    assert members.handle(EnginesDismissed((0, 99))) == []


def test_an_engine_that_was_dismissed_while_it_started_is_ended_when_it_registers() -> None:
    members = Membership()
    members.handle(EnginesWanted(1, OPTIONS))
    members.handle(EnginesDismissed((0,)))
    assert members.handle(EngineRegistered(info(0))) == [Dismiss(0, 0, at_once=True)]
    assert (members.engines, members.starting) == ([], [])


def test_an_engine_that_nobody_counts_is_ended(members: Membership) -> None:
    assert members.handle(EngineRegistered(info(7))) == [Dismiss(7, 0, at_once=True)]


def test_the_death_of_another_incarnation_buries_nobody(members: Membership) -> None:
    assert members.handle(EngineDied(0, 5, "old news")) == []
    assert members.engines == [info(0), info(1)]


def test_an_id_is_not_used_again_after_its_engine_has_died(members: Membership) -> None:
    members.handle(EngineDied(1, 0, "killed"))
    assert launched(members.handle(EnginesWanted(1, OPTIONS))) == [2]


def test_an_engine_that_dies_is_brought_back_under_its_id() -> None:
    members = registered(2, Recovery.RESTART)
    assert members.handle(EngineDied(0, 0, "killed")) == [
        Announce(EngineLeft(0, 0, "killed", expected=False, returns=True)),
        Launch(0, 1, EngineOptions(Recovery.RESTART), recovers=None),
    ]
    assert (members.engines, members.recovering, members.starting) == ([info(1)], [info(0)], [])


def test_an_engine_that_is_back_takes_requests_again() -> None:
    members = registered(1, Recovery.RESTART)
    members.handle(EngineDied(0, 0, "killed"))
    assert events(members.handle(EngineRegistered(info(0, 1)))) == [EngineJoined(info(0, 1))]
    assert (members.engines, members.recovering) == ([info(0, 1)], [])


def test_an_engine_with_a_journal_is_told_whose_namespace_to_make_again() -> None:
    members = registered(1, Recovery.REPLAY)
    assert members.handle(EngineDied(0, 0, "killed")) == [
        Announce(EngineLeft(0, 0, "killed", expected=False, returns=True, replays=True)),
        Launch(0, 1, EngineOptions(Recovery.REPLAY), recovers=0),
    ]


def test_one_that_dies_while_it_recovers_is_tried_again_from_the_same_journal() -> None:
    members = registered(1, Recovery.REPLAY)
    members.handle(EngineDied(0, 0, "killed"))
    assert members.handle(EngineDied(0, 1, "killed again")) == [
        Launch(0, 2, EngineOptions(Recovery.REPLAY), recovers=0)
    ]


@pytest.mark.parametrize(("recovery", "most"), [(Recovery.RESTART, MAX_ATTEMPTS), (Recovery.REPLAY, MAX_RECOVERIES)])
def test_one_that_cannot_be_brought_back_is_given_up(recovery: Recovery, most: int) -> None:
    members = registered(1, recovery)
    members.handle(EngineDied(0, 0, "killed"))
    for incarnation in range(1, most):
        assert launched(members.handle(EngineDied(0, incarnation, "killed"))) == [0]
    (left,) = events(members.handle(EngineDied(0, most, "out of memory")))
    assert isinstance(left, EngineLeft)
    assert (left.incarnation, left.returns) == (0, False)
    assert "out of memory" in left.reason
    assert (members.engines, members.recovering) == ([], [])


def test_attempts_are_counted_anew_once_an_engine_was_back() -> None:
    members = registered(1, Recovery.RESTART)
    for incarnation in range(2 * MAX_ATTEMPTS):
        assert launched(members.handle(EngineDied(0, incarnation, "killed"))) == [0]
        members.handle(EngineRegistered(info(0, incarnation + 1)))


def test_attempts_are_counted_anew_once_a_restart_was_asked_for() -> None:
    members = registered(1, Recovery.RESTART)
    for incarnation in range(MAX_ATTEMPTS):
        assert launched(members.handle(EngineDied(0, incarnation, "killed"))) == [0]
    members.handle(EnginesRestarted((0,)))
    assert launched(members.handle(EngineDied(0, MAX_ATTEMPTS + 1, "killed"))) == [0]


def test_a_restart_begins_with_an_empty_namespace() -> None:
    members = registered(1, Recovery.REPLAY)
    assert members.handle(EnginesRestarted((0,))) == [
        Dismiss(0, 0),
        Announce(EngineLeft(0, 0, "a restart was requested", expected=True, returns=True)),
        Launch(0, 1, EngineOptions(Recovery.REPLAY), recovers=None),
    ]


def test_clients_are_told_if_an_engine_that_recovers_is_to_come_back_empty_instead() -> None:
    members = registered(1, Recovery.REPLAY)
    members.handle(EngineDied(0, 0, "killed"))
    assert members.handle(EnginesRestarted((0,))) == [
        Dismiss(0, 1, at_once=True),
        Announce(EngineLeft(0, 0, "a restart was requested", expected=True, returns=True)),
        Launch(0, 2, EngineOptions(Recovery.REPLAY), recovers=None),
    ]
    assert events(members.handle(EnginesRestarted((0,)))) == [], "which they know by now"


def test_a_stuck_engine_is_taken_down_and_recovered() -> None:
    members = registered(1, Recovery.REPLAY)
    effects = members.handle(EnginesRestarted((0,), recovers=True))
    dismissed = Dismiss(0, 0, at_once=True)  # it may hang; its contents come from its journal
    assert (effects[0], effects[-1]) == (dismissed, Launch(0, 1, EngineOptions(Recovery.REPLAY), recovers=0))


def test_an_engine_that_recovers_can_be_dismissed() -> None:
    members = registered(1, Recovery.RESTART)
    members.handle(EngineDied(0, 0, "killed"))
    (left,) = events(members.handle(EnginesDismissed((0,))))
    assert isinstance(left, EngineLeft)
    assert (left.incarnation, left.expected, left.returns) == (0, True, False)
    assert members.handle(EngineDied(0, 1, "killed")) == []
    assert (members.engines, members.recovering, members.starting) == ([], [], [])


class World:
    """Processes that carry out effects, some of which die; and the view that a client has from its events."""

    def __init__(self) -> None:
        self.members = Membership()
        self.alive: set[tuple[int, int]] = set()
        self.known: dict[int, int] = {}  # the incarnation that takes requests, as the client knows it
        self.ids: set[int] = set()
        self.gone: set[int] = set()

    def handle(self, event: MemberEvent) -> None:
        for effect in self.members.handle(event):
            match effect:
                case Launch(engine_id, incarnation):
                    assert (engine_id, incarnation) not in self.alive, "one incarnation is one process"
                    assert not any(i == engine_id for i, _ in self.alive), "an id has one process at a time"
                    self.alive.add((engine_id, incarnation))
                case Dismiss(engine_id, incarnation):
                    self.alive.discard((engine_id, incarnation))
                case Announce(EngineJoined(engine)):
                    assert engine.engine_id not in self.known, "an engine leaves before it joins again"
                    assert engine.engine_id not in self.gone, "who has left for good does not come back"
                    self.known[engine.engine_id] = engine.incarnation
                    self.ids.add(engine.engine_id)
                case Announce(EngineLeft(engine_id, incarnation, returns=returns)):
                    assert self.known.pop(engine_id, incarnation) == incarnation, "who leaves is the one that was known"
                    if not returns:
                        assert engine_id not in self.gone, "an engine leaves for good once"
                        self.gone.add(engine_id)
                case Announce(EngineFailedToStart(engine_id)):
                    assert engine_id not in self.ids | self.gone
                    self.gone.add(engine_id)


HAPPENINGS = st.tuples(
    st.sampled_from(
        ["want", "register", "hold up", "lose its node", "die", "retire", "dismiss", "restart", "recover", "old news"]
    ),
    st.integers(0, 5),
)


@given(st.sampled_from(Recovery), st.lists(HAPPENINGS, max_size=60))
def test_whatever_happens_clients_are_told_of_each_engine_in_turn(
    recovery: Recovery, happenings: list[tuple[str, int]]
) -> None:
    world = World()
    for what, number in happenings:
        process = next(((i, k) for i, k in sorted(world.alive) if i == number), None)
        match what:
            case "want":
                world.handle(EnginesWanted(number % 3, EngineOptions(recovery)))
            case "register" if process is not None and process[0] not in world.known:
                world.handle(EngineRegistered(info(*process)))
            case "die" if process is not None:
                world.alive.discard(process)
                world.handle(EngineDied(*process, "it happens"))
            case "hold up" if process is not None:
                world.handle(EngineHeldUp(*process, "there is no GPU"))
            case "lose its node" if process is not None:
                world.alive.discard(process)
                world.handle(EngineDied(*process, "its node died", displaced=True))
            case "retire":
                world.handle(EnginesRetired((number,)))
            case "dismiss":
                world.handle(EnginesDismissed((number,)))
            case "restart" | "recover":
                world.handle(EnginesRestarted((number,), recovers=what == "recover"))
            case "old news" if process is not None:
                world.handle(EngineDied(process[0], process[1] - 1, "long ago"))
        assert {e.engine_id: e.incarnation for e in world.members.engines} == world.known
        assert not {e.engine_id for e in world.members.recovering} & world.known.keys()
        assert {e.engine_id for e in world.members.recovering} <= {i for i, _ in world.alive}
        assert {w.engine_id for w in world.members.waiting}.isdisjoint(world.known)
        assert set(world.members.leaving) <= world.known.keys()
