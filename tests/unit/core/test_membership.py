from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.core.cluster import EngineFailedToStart, EngineInfo, EngineJoined, EngineLeft
from nsactors.core.membership import (
    Announce,
    Dismiss,
    EngineDied,
    EngineRegistered,
    EnginesDismissed,
    EnginesWanted,
    Launch,
    Membership,
)


def info(engine_id: int, incarnation: int = 0) -> EngineInfo:
    return EngineInfo(engine_id, incarnation, pid=1, host="here", address=None)


def launched(effects: list[object]) -> list[int]:
    return [effect.engine_id for effect in effects if isinstance(effect, Launch)]


def events(effects: list[object]) -> list[object]:
    return [effect.event for effect in effects if isinstance(effect, Announce)]


@pytest.fixture
def members() -> Membership:
    """Engines 0 and 1, registered."""
    members = Membership()
    members.handle(EnginesWanted(2))
    for engine_id in (0, 1):
        members.handle(EngineRegistered(info(engine_id)))
    return members


def test_engines_that_are_wanted_are_launched_under_new_ids() -> None:
    members = Membership()
    assert [launched(members.handle(EnginesWanted(n))) for n in (2, 0, 1)] == [[0, 1], [], [2]]


def test_an_engine_is_starting_until_it_registers() -> None:
    members = Membership()
    members.handle(EnginesWanted(2))
    assert events(members.handle(EngineRegistered(info(1)))) == [EngineJoined(info(1))]
    assert (members.starting, members.engines) == ([0], [info(1)])


def test_an_engine_that_dies_has_left_unexpectedly(members: Membership) -> None:
    assert events(members.handle(EngineDied(0, 0, "killed"))) == [EngineLeft(0, 0, "killed", expected=False)]
    assert members.engines == [info(1)]


def test_an_engine_that_dies_before_it_registers_has_failed_to_start() -> None:
    members = Membership()
    members.handle(EnginesWanted(1))
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
    members.handle(EnginesWanted(1))
    members.handle(EnginesDismissed((0,)))
    assert members.handle(EngineRegistered(info(0))) == [Dismiss(0, 0)]
    assert (members.engines, members.starting) == ([], [])


def test_an_engine_that_nobody_counts_is_ended(members: Membership) -> None:
    assert members.handle(EngineRegistered(info(7))) == [Dismiss(7, 0)]


def test_the_death_of_another_incarnation_buries_nobody(members: Membership) -> None:
    assert members.handle(EngineDied(0, 5, "old news")) == []
    assert members.engines == [info(0), info(1)]


def test_an_id_is_not_used_again_after_its_engine_has_died(members: Membership) -> None:
    members.handle(EngineDied(1, 0, "killed"))
    assert launched(members.handle(EnginesWanted(1))) == [2]


@given(st.lists(st.tuples(st.sampled_from(["want", "register", "die", "dismiss"]), st.integers(0, 5)), max_size=30))
def test_whatever_happens_clients_are_told_of_each_engine_once_in_and_once_out(
    happenings: list[tuple[str, int]],
) -> None:
    members = Membership()
    told: list[object] = []
    ids: list[int] = []
    for what, number in happenings:
        match what:
            case "want":
                effects = members.handle(EnginesWanted(number % 3))
                ids += launched(effects)
            case "register" if number in ids and number not in [
                e.engine.engine_id for e in told if isinstance(e, EngineJoined)
            ]:
                effects = members.handle(EngineRegistered(info(number)))
            case "die":
                effects = members.handle(EngineDied(number, 0, "it happens"))
            case "dismiss":
                effects = members.handle(EnginesDismissed((number,)))
            case _:
                continue
        told += events(effects)
    joined = [e.engine.engine_id for e in told if isinstance(e, EngineJoined)]
    gone = [e.engine_id for e in told if isinstance(e, EngineLeft | EngineFailedToStart)]
    assert (len(set(ids)), len(set(joined)), len(set(gone))) == (len(ids), len(joined), len(gone))
    assert {e.engine_id for e in members.engines} == set(joined) - set(gone)
