"""What people say when they mean requests of a cluster."""

from __future__ import annotations

import pytest

from nsactors.client.finding import find_requests, left_behind
from nsactors.core.cluster import HistoryEntry
from nsactors.core.messages import RequestId
from nsactors.errors import ResultUnavailable


def entry(
    client: str, seq: int, *, engine_id: int = 0, ended: float | None = None, queued: bool = False
) -> HistoryEntry:
    outcome = "queued" if queued else "running" if ended is None else "ok"
    return HistoryEntry(RequestId(client, seq), engine_id, "execute", "x = 1", float(seq), ended, outcome)


HISTORY = [
    entry("ann-1", 0, ended=1.0),
    entry("ann-2", 1, ended=2.0),
    entry("ann-2", 2, engine_id=1, ended=3.0),
    entry("ben-1", 7),
    entry("ann-2", 5, engine_id=1),
    entry("ann-2", 9, engine_id=1, queued=True),
]


@pytest.mark.parametrize(
    ("said", "positions"),
    [
        ("ann-2:1", [1]),
        ("ann", [0, 1, 2, 4, 5]),
        (-1, [5]),
        (0, [0]),
        (HISTORY[3], [3]),
        (RequestId("ben-1", 7), [3]),
        ([HISTORY[3], "ann-1", "ann-1:0"], [3, 0]),
        ("ann-2", [1, 2, 4, 5]),
    ],
)
def test_requests_are_found_in_the_order_in_which_they_are_named_or_were_sent(
    said: object, positions: list[int]
) -> None:
    assert find_requests(HISTORY, said) == [HISTORY[i] for i in positions]


@pytest.mark.parametrize("said", ["eve", "ann-2:77", 6, -7, RequestId("eve", 0)])
def test_what_is_not_in_the_history_is_an_error(said: object) -> None:
    with pytest.raises(ResultUnavailable):
        find_requests(HISTORY, said)


def test_what_means_nothing_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"2\.5 is no message id"):
        find_requests(HISTORY, 2.5)


def test_left_behind_is_what_has_not_ended_and_else_the_last_on_each_engine() -> None:
    """Of the client that left last, which ben is not: he is still there."""
    assert left_behind(HISTORY, ["ben-1"]) == [HISTORY[i] for i in (1, 4, 5)]


def test_nothing_is_left_behind_as_long_as_everybody_is_there() -> None:
    with pytest.raises(ResultUnavailable, match="a client that has left"):
        left_behind(HISTORY, ["ann-1", "ann-2", "ben-1"])


def test_requests_of_a_client_come_as_it_has_sent_them_and_not_as_they_ended() -> None:
    history = [entry("ann-1", seq, ended=ended) for seq, ended in ((2, 1.0), (0, 2.0), (1, 3.0))]
    assert [found.request.seq for found in find_requests(history, "ann")] == [0, 1, 2]
