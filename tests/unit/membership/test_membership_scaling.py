"""Engines that have no place, lose their place, or finish their requests and leave."""

from __future__ import annotations

import pytest

from nsactors.membership.members import (
    MAX_ATTEMPTS,
    Adopt,
    Announce,
    ControllerRestarted,
    Dismiss,
    Drain,
    EngineDied,
    EngineHeldUp,
    EngineRegistered,
    EnginesDismissed,
    EnginesRestarted,
    EnginesRetired,
    EnginesWanted,
    Launch,
    Membership,
)
from nsactors.protocol.control import EngineFailedToStart, EngineJoined, EngineLeaving, EngineLeft, EngineWaiting
from nsactors.protocol.engine_info import EngineInfo, EngineOptions, Recovery

OPTIONS = EngineOptions(Recovery.RESTART, num_gpus=1)
INFO = EngineInfo(0, 0, pid=1, host="here", address=None)


@pytest.fixture
def starting() -> Membership:
    members = Membership()
    members.handle(EnginesWanted(1, OPTIONS))
    return members


@pytest.fixture
def members(starting: Membership) -> Membership:
    starting.handle(EngineRegistered(INFO))
    return starting


def test_an_engine_without_a_place_waits_for_one_and_everybody_is_told(starting: Membership) -> None:
    waiting = EngineWaiting(0, 0, "no GPU")
    assert starting.handle(EngineHeldUp(0, 0, "no GPU")) == [Announce(waiting)]
    assert (starting.waiting, starting.starting) == ([waiting], [0])


def test_clients_are_told_that_a_node_may_come_for_an_engine_also_those_that_join_later(starting: Membership) -> None:
    waiting = EngineWaiting(0, 0, "no GPU", nodes_may_come=True)
    assert starting.handle(EngineHeldUp(0, 0, "no GPU", nodes_may_come=True)) == [Announce(waiting)]
    assert starting.waiting == [waiting]


def test_an_engine_that_has_found_a_place_waits_no_more(starting: Membership) -> None:
    starting.handle(EngineHeldUp(0, 0, "no GPU"))
    assert starting.handle(EngineRegistered(INFO)) == [Announce(EngineJoined(INFO))]
    assert starting.waiting == []


@pytest.mark.parametrize("late", [EngineHeldUp(0, 0, "no GPU"), EngineHeldUp(7, 0, "no GPU")])
def test_an_engine_that_is_there_or_unknown_does_not_wait(members: Membership, late: EngineHeldUp) -> None:
    assert (members.handle(late), members.waiting) == ([], [])


def test_an_engine_that_waits_for_a_place_can_be_taken_back(starting: Membership) -> None:
    starting.handle(EngineHeldUp(0, 0, "no GPU"))
    assert starting.handle(EnginesRetired((0,)))[-1] == Dismiss(0, 0, at_once=True)
    assert (starting.waiting, starting.starting) == ([], [])


def test_a_new_engine_whose_node_has_gone_is_started_on_another_one(starting: Membership) -> None:
    assert starting.handle(EngineDied(0, 0, "its node died", displaced=True)) == [Launch(0, 1, OPTIONS)]
    assert starting.starting == [0]


def test_an_engine_that_finds_no_node_that_lasts_is_given_up(starting: Membership) -> None:
    for incarnation in range(MAX_ATTEMPTS - 1):
        starting.handle(EngineDied(0, incarnation, "its node died", displaced=True))
    last = MAX_ATTEMPTS - 1
    effects = starting.handle(EngineDied(0, last, "its node died", displaced=True))
    assert effects == [Announce(EngineFailedToStart(0, last, "its node died"))]


def test_an_engine_that_leaves_is_told_of_and_ended_when_it_has_nothing_to_do(members: Membership) -> None:
    assert members.handle(EnginesRetired((0,))) == [Announce(EngineLeaving(0)), Drain(0, 0)]
    assert (members.leaving, members.engines) == ([0], [INFO])
    assert members.handle(EnginesDismissed((0,)))[-1] == Dismiss(0, 0)
    assert (members.leaving, members.engines) == ([], [])


def test_an_engine_leaves_once(members: Membership) -> None:
    members.handle(EnginesRetired((0,)))
    assert members.handle(EnginesRetired((0, 7))) == []


def test_an_engine_that_dies_while_it_leaves_is_not_brought_back(members: Membership) -> None:
    members.handle(EnginesRetired((0,)))
    effects = members.handle(EngineDied(0, 0, "killed"))
    assert effects == [Announce(EngineLeft(0, 0, "killed", expected=False))]


def test_an_engine_that_leaves_is_not_restarted(members: Membership) -> None:
    members.handle(EnginesRetired((0,)))
    assert members.handle(EnginesRestarted((0,))) == []


def test_a_new_controller_goes_on_to_wait_for_engines_that_leave(members: Membership) -> None:
    members.handle(EnginesRetired((0,)))
    assert members.handle(ControllerRestarted({(0, 0)})) == [Adopt(0, 0, OPTIONS), Drain(0, 0)]


def test_an_engine_that_is_being_brought_back_finishes_what_is_held_for_it_before_it_goes(members: Membership) -> None:
    members.handle(EngineDied(0, 0, "killed"))
    back = EngineInfo(0, 1, pid=2, host="here", address=None)
    assert members.handle(EnginesRetired((0,))) == [Announce(EngineLeaving(0))]
    assert members.handle(EngineRegistered(back)) == [
        Announce(EngineJoined(back)),
        Announce(EngineLeaving(0)),
        Drain(0, 1),
    ]


def test_a_new_controller_waits_for_an_engine_to_be_back_before_it_sees_it_leave(members: Membership) -> None:
    members.handle(EngineDied(0, 0, "killed"))
    members.handle(EnginesRetired((0,)))
    assert members.handle(ControllerRestarted({(0, 1)})) == [Adopt(0, 1, OPTIONS)]


def test_an_engine_that_leaves_is_tried_again_if_it_dies_before_it_is_back(members: Membership) -> None:
    members.handle(EngineDied(0, 0, "killed"))
    members.handle(EnginesRetired((0,)))
    assert members.handle(EngineDied(0, 1, "killed again")) == [Launch(0, 2, OPTIONS)]
