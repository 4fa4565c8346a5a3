from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nsactors.protocol.control import (
    ClusterState,
    EngineFailedToStart,
    EngineJoined,
    EngineLeaving,
    EngineLeft,
    EngineStarting,
    EngineWaiting,
    Event,
)
from nsactors.protocol.engine_info import EngineInfo, Recovery
from nsactors.session.engine_directory import missed_events


def engine(engine_id: int, incarnation: int = 0) -> EngineInfo:
    return EngineInfo(engine_id, incarnation, pid=1, host="here", address=None, recovery=Recovery.RESTART)


def missed(
    state: ClusterState,
    *,
    known: tuple[EngineInfo, ...] = (),
    away: tuple[int, ...] = (),
    starting: tuple[int, ...] = (),
) -> list[Event]:
    return missed_events({e.engine_id: e for e in known}, away, starting, state)


def test_whoever_knows_how_things_stand_has_missed_nothing() -> None:
    state = ClusterState("c", (engine(0),), (), (engine(1),), next_id=2)
    assert missed(state, known=(engine(0), engine(1)), away=(1,)) == []


def test_an_engine_that_is_not_there_any_more_has_left() -> None:
    (left,) = missed(ClusterState("c", (), (), next_id=1), known=(engine(0),))
    assert isinstance(left, EngineLeft)
    assert (left.incarnation, left.returns) == (0, False)


def test_an_engine_that_has_been_brought_back_has_left_and_joined() -> None:
    left, joined = missed(ClusterState("c", (engine(0, 1),), (), next_id=1), known=(engine(0),))
    assert isinstance(left, EngineLeft)
    assert (left.returns, joined) == (True, EngineJoined(engine(0, 1)))


def test_an_engine_whose_death_only_the_client_knows_of_has_not_joined_again() -> None:
    assert missed(ClusterState("c", (engine(0),), (), next_id=1), known=(engine(0),), away=(0,)) == []


def test_an_engine_that_was_on_the_way_and_is_nowhere_has_failed_to_start() -> None:
    (failed,) = missed(ClusterState("c", (), (), next_id=1), starting=(0,))
    assert isinstance(failed, EngineFailedToStart)


def test_an_engine_that_was_asked_for_after_this_was_said_is_still_waited_for() -> None:
    assert missed(ClusterState("c", (), (), next_id=1), starting=(1,)) == []


def test_a_client_hears_of_engines_without_a_place_and_of_those_that_are_about_to_leave() -> None:
    waiting = EngineWaiting(1, 0, "there is no GPU")
    state = ClusterState("c", (engine(0),), (1,), next_id=2, waiting=(waiting,), leaving=(0,))
    assert missed(state, known=(engine(0),), starting=(1,)) == [EngineStarting(1), waiting, EngineLeaving(0)]


IDS = st.integers(0, 4)
ENGINES = st.dictionaries(IDS, st.integers(0, 2)).map(lambda d: {i: engine(i, k) for i, k in d.items()})


@given(ENGINES, ENGINES, st.sets(IDS), st.sets(IDS), st.sets(IDS))
def test_what_was_missed_leads_from_what_was_known_to_what_is(
    known: dict[int, EngineInfo], there: dict[int, EngineInfo], recovering: set[int], away: set[int], starting: set[int]
) -> None:
    up = {i: e for i, e in there.items() if i not in recovering}
    state = ClusterState("c", tuple(up.values()), (), tuple(e for i, e in there.items() if i in recovering), next_id=5)
    known_now, away_now, starting_now = dict(known), away & known.keys(), starting - known.keys()
    for event in missed_events(known, set(away_now), set(starting_now), state):
        match event:
            case EngineJoined(joined):
                known_now[joined.engine_id] = joined
                away_now.discard(joined.engine_id)
                starting_now.discard(joined.engine_id)
            case EngineLeft(engine_id, incarnation, returns=returns):
                assert known_now[engine_id].incarnation == incarnation
                if returns:
                    away_now.add(engine_id)
                else:
                    away_now.discard(engine_id)
                    del known_now[engine_id]
            case EngineStarting(engine_id):
                starting_now.add(engine_id)
            case EngineFailedToStart(engine_id):
                starting_now.discard(engine_id)
    assert known_now == there
    assert away_now >= recovering & there.keys()
    assert starting_now == set()
