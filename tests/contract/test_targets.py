"""Which engines are meant (RQ5, D10 to D12)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nsactors import Client, DirectView
from nsactors.errors import InvalidTarget, NoEngines, NoSuchEngine, TargetError

pytestmark = pytest.mark.once  # decided before anything is sent


@pytest.fixture
def numbered(rc: Client) -> Client:
    for engine_id in rc.ids:
        rc[engine_id].push({"me": engine_id}, block=True)
    return rc


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (0, 0),
        (-1, 3),
        ([2], [2]),
        ([2, 0], [2, 0]),
        ([-1, 1], [3, 1]),
        (slice(None), [0, 1, 2, 3]),
        (slice(1, None, 2), [1, 3]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        ("all", [0, 1, 2, 3]),
        (range(3), [0, 1, 2]),
    ],
)
def test_targets_name_engines_in_their_order(numbered: Client, targets: Any, expected: Any) -> None:
    assert numbered[targets].pull("me", block=True) == expected


def test_a_call_may_name_other_targets_than_its_view(numbered: Client) -> None:
    assert numbered[0].pull("me", targets=[3, 1], block=True) == [3, 1]


def test_a_call_on_a_list_of_one_engine_gives_a_list(numbered: Client) -> None:
    assert numbered[0].pull("me", targets=[0], block=True) == [0]


@pytest.mark.parametrize("targets", [99, -5, [0, 99]])
def test_an_id_that_does_not_exist_raises_before_anything_is_sent(rc: Client, targets: Any) -> None:
    with pytest.raises(NoSuchEngine):
        rc[0].push({"x": 1}, targets=targets, block=True)
    with pytest.raises(NameError):
        rc[0].pull("x", block=True)


@pytest.mark.sampled
@pytest.mark.parametrize("targets", [1.5, ["0"], [0, 0], b"all", object(), True])
def test_what_cannot_name_engines_raises_at_the_call(rc: Client, targets: Any) -> None:
    with pytest.raises(InvalidTarget):
        rc.direct_view(targets)


def test_a_slice_that_selects_nothing_raises_at_the_call(rc: Client) -> None:
    with pytest.raises(NoEngines):
        rc[10:]


def test_the_target_error_of_a_bad_id_is_an_index_error_that_names_the_engines_there_are(rc: Client) -> None:
    with pytest.raises(IndexError, match="there are engines 0-3"):
        rc[17]


def test_all_is_looked_up_at_each_call_and_a_slice_only_once(
    rc: Client, add_engines: Callable[[int], list[int]]
) -> None:
    everybody, those_there_were = rc.direct_view("all"), rc[:]
    add_engines(1)
    assert (len(everybody), len(those_there_were)) == (5, 4)


def test_a_view_of_an_engine_that_has_gone_raises_at_the_call(
    victim: DirectView, end_engine: Callable[[int], None]
) -> None:
    end_engine(victim.targets)
    with pytest.raises(TargetError):
        victim.execute("1")


def test_indexing_the_client_by_a_name_pushes_to_and_pulls_from_all(rc: Client) -> None:
    rc["d"] = {"k": [1]}
    assert rc["d"] == [{"k": [1]}] * 4


def test_indexing_a_view_by_a_name_pulls_from_its_engines(rc: Client) -> None:
    rc["d"] = 5
    assert (rc[0]["d"], rc[1:3]["d"]) == (5, [5, 5])


def test_the_client_is_a_sequence_of_views_of_one_engine(rc: Client) -> None:
    assert ([view.targets for view in rc], len(rc)) == ([0, 1, 2, 3], 4)


def test_the_client_binds_only_names_by_indexing(rc: Client) -> None:
    with pytest.raises(TypeError, match="text"):
        rc[0] = 1
