from __future__ import annotations

import pytest

from nsactors.membership.history import ENGINE_LOST, QUEUED, History, Occupancy
from nsactors.protocol.control import HistoryEntry
from nsactors.protocol.messages import RequestId


def entry(seq: int, *, client: str = "ann", engine_id: int = 0, completed: float | None = None) -> HistoryEntry:
    outcome = "running" if completed is None else "ok"
    return HistoryEntry(RequestId(client, seq), engine_id, "execute", "x = 1", float(seq), completed, outcome)


@pytest.fixture
def history() -> History:
    """A history of requests of ann and ben on engines 0 and 1; ben's last request still runs."""
    history = History()
    for ended in (entry(0, completed=1), entry(1, engine_id=1, completed=2), entry(0, client="ben", completed=3)):
        history.record(ended)
    history.record(entry(1, client="ben"))
    return history


def test_finished_requests_come_first_and_running_ones_last(history: History) -> None:
    assert [e.completed for e in history.entries()] == [1, 2, 3, None]


def test_the_requests_of_one_client_can_be_had(history: History) -> None:
    assert [e.request.seq for e in history.entries(client="ben")] == [0, 1]


def test_the_requests_to_one_engine_can_be_had(history: History) -> None:
    assert [e.request for e in history.entries(engine_id=1)] == [RequestId("ann", 1)]


@pytest.mark.parametrize(("last", "count"), [(0, 0), (1, 1), (3, 3), (99, 4), (-1, 0)])
def test_the_last_ones_can_be_had(history: History, last: int, count: int) -> None:
    assert history.entries(last=last) == history.entries()[4 - count :]


def test_a_request_that_ends_runs_no_more(history: History) -> None:
    history.record(entry(1, client="ben", completed=4))
    assert (history.running(0), history.entries()[-1].completed) == ([], 4)


def test_what_waited_before_a_request_that_has_ended_is_over_though_its_end_was_never_reported() -> None:
    """Its engine died before it reported the end, and the client announced it as waiting after that."""
    history = History()
    for engine_id in (0, 1):
        history.record(entry(7, engine_id=engine_id)._replace(outcome=QUEUED))
    history.record(entry(7, client="ben")._replace(outcome=QUEUED))
    history.record(entry(8, completed=9.0))
    still_open = [e for e in history.entries() if e.completed is None]
    assert [(e.request.client, e.engine_id) for e in still_open] == [("ann", 1), ("ben", 0)]
    assert [e.request.client for e in history.engine_lost(0, at=10.0)] == ["ben"]


def test_one_request_to_many_engines_is_an_entry_for_each() -> None:
    history = History()
    for engine_id in (0, 1):
        history.record(entry(0, engine_id=engine_id))
    history.record(entry(0, engine_id=0, completed=1))
    assert [e.engine_id for e in history.running(1)] == [1]


def test_completed_requests_are_counted_by_engine(history: History) -> None:
    assert (history.completed(0), history.completed(1), history.completed(2)) == (2, 1, 0)


def test_what_a_lost_engine_was_running_ended_with_it(history: History) -> None:
    history.engine_lost(0, at=9.0)
    last = history.entries()[-1]
    assert (last.completed, last.outcome, history.running(0)) == (9.0, "engine lost", [])


def test_what_other_engines_run_is_not_touched_by_a_loss(history: History) -> None:
    history.engine_lost(1, at=9.0)
    assert len(history.running(0)) == 1


def test_only_the_last_requests_are_remembered_and_all_are_counted() -> None:
    history = History(limit=2)
    for seq in range(5):
        history.record(entry(seq, completed=float(seq)))
    assert ([e.request.seq for e in history.entries()], history.completed(0)) == ([3, 4], 5)


def queued(seq: int, *, engine_id: int = 0) -> HistoryEntry:
    return entry(seq, engine_id=engine_id)._replace(outcome=QUEUED)


def test_a_request_that_waits_comes_last_until_it_begins() -> None:
    history = History()
    assert history.record(queued(1))
    assert history.record(queued(2))
    assert history.record(entry(1))
    assert [(e.request.seq, e.outcome) for e in history.entries()] == [(1, "running"), (2, QUEUED)]
    assert history.record(entry(2, completed=3.0))
    assert [(e.request.seq, e.outcome) for e in history.entries()] == [(2, "ok"), (1, "running")]


def test_it_is_no_news_that_a_request_waits_which_has_begun_or_ended() -> None:
    history = History()
    history.record(entry(1, completed=1.0))
    history.record(entry(2))
    assert not history.record(queued(1))
    assert not history.record(queued(2))
    assert [e.outcome for e in history.entries()] == ["ok", "running"]


def test_what_waits_for_an_engine_is_lost_with_it() -> None:
    history = History()
    history.record(queued(1))
    history.record(queued(2, engine_id=1))
    assert [e.request.seq for e in history.engine_lost(0, 5.0)] == [1]
    assert [(e.request.seq, e.outcome) for e in history.entries()] == [(1, ENGINE_LOST), (2, QUEUED)]


@pytest.mark.parametrize("again", [queued(1), entry(1), entry(1, completed=6.0)])
def test_what_was_lost_with_its_engine_and_goes_on_is_there_once(again: HistoryEntry) -> None:
    history = History()
    history.record(entry(0, completed=1.0))
    history.record(entry(1))
    history.engine_lost(0, 5.0)
    assert history.record(again)
    assert history.entries()[1:] == [again]


def test_of_too_many_requests_that_wait_the_newest_are_remembered() -> None:
    history = History(limit=2)
    for seq in range(4):
        history.record(queued(seq))
    assert [e.request.seq for e in history.entries()] == [2, 3]


# Which engines have work of which client, from reports of requests in any order.


def waiting(seq: int, client: str = "ann", engine_id: int = 0) -> HistoryEntry:
    return HistoryEntry(RequestId(client, seq), engine_id, f"call {seq}", "", 1.0, None, QUEUED)


def running(seq: int, client: str = "ann", engine_id: int = 0) -> HistoryEntry:
    return waiting(seq, client, engine_id)._replace(outcome="running")


def ended(seq: int, client: str = "ann", engine_id: int = 0) -> HistoryEntry:
    return waiting(seq, client, engine_id)._replace(completed=2.0, outcome="ok")


def label(occupancy: Occupancy, engine_id: int = 0) -> str | None:
    entry = occupancy.busy_with(engine_id)
    return None if entry is None else entry.label


def test_an_engine_is_busy_from_the_first_that_is_told_of_a_request_to_its_end() -> None:
    occupancy = Occupancy()
    assert occupancy.record(waiting(3))
    assert occupancy.record(running(3))
    assert (label(occupancy), label(occupancy, 1), occupancy.engine_ids) == ("call 3", None, [0])
    assert occupancy.record(ended(3))
    assert (label(occupancy), occupancy.engine_ids) == (None, [])


def test_what_is_told_again_or_too_late_is_no_news() -> None:
    occupancy = Occupancy([running(3)])
    assert not occupancy.record(running(3))
    assert not occupancy.record(ended(2))
    assert occupancy.record(ended(3))
    assert not any(occupancy.record(late) for late in (running(3), waiting(2), ended(3)))
    assert label(occupancy) is None


def test_the_end_of_a_request_nobody_was_told_of_makes_its_beginning_no_news() -> None:
    occupancy = Occupancy()
    assert not occupancy.record(ended(3))
    assert not occupancy.record(running(3))


def test_an_engine_is_busy_until_the_last_that_is_known_has_ended() -> None:
    occupancy = Occupancy([waiting(3), waiting(9), waiting(5)])
    assert label(occupancy) == "call 3"
    assert occupancy.record(ended(5))
    assert occupancy.busy_with(0) is not None
    assert occupancy.record(ended(9))
    assert occupancy.busy_with(0) is None


def test_of_several_clients_that_is_shown_whose_request_runs() -> None:
    occupancy = Occupancy([waiting(3), running(1, "ben")])
    assert label(occupancy) == "call 1"
    occupancy.record(ended(1, "ben"))
    assert label(occupancy) == "call 3"


def test_an_engine_that_is_gone_has_no_work() -> None:
    occupancy = Occupancy([running(3), running(4, engine_id=1)])
    occupancy.engine_gone(0)
    assert occupancy.engine_ids == [1]


def test_one_can_be_made_like_another() -> None:
    occupancy = Occupancy([running(3), waiting(9), running(1, "ben"), waiting(7, engine_id=2)])
    copy = Occupancy(occupancy.entries())
    assert sorted(copy.entries()) == sorted(occupancy.entries())
    assert copy.record(ended(3))
    assert copy.busy_with(0) is not None
