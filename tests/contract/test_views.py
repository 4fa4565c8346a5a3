"""What views are set to, for good or for a while."""

from __future__ import annotations

import pytest

from nsactors import AsyncResult, Client, DirectView
from nsactors.errors import NoSuchEngine, UnknownFlag
from nsactors.testing import TIMEOUT_S, Gate

pytestmark = pytest.mark.once  # decided before anything is sent


def test_flags_are_set_and_the_view_is_returned(rc: Client) -> None:
    view = rc[0].set_flags(block=True)
    assert (view.block, view.apply(abs, -1)) == (True, 1)


def test_an_unknown_flag_raises_and_changes_nothing(rc: Client) -> None:
    view = rc[0]
    with pytest.raises(UnknownFlag, match="did you mean 'block'"):
        view.set_flags(targets=1, blok=True)
    assert (view.targets, view.block) == (0, False)


def test_a_bad_target_as_a_flag_raises_and_changes_nothing(rc: Client) -> None:
    view = rc[0]
    with pytest.raises(NoSuchEngine):
        view.set_flags(block=True, targets=99)
    assert (view.targets, view.block) == (0, False)


def test_flags_are_put_back_after_a_while(rc: Client) -> None:
    view = rc[0]
    with view.temp_flags(block=True, targets=1):
        assert (view.block, view.targets) == (True, 1)
    assert (view.block, view.targets) == (False, 0)


def test_flags_are_put_back_after_an_error(rc: Client) -> None:
    view = rc[0]
    with pytest.raises(ZeroDivisionError), view.temp_flags(block=True):
        view.apply(divmod, 1, 0)
    assert view.block is False


def test_an_unknown_flag_for_a_while_raises_and_changes_nothing(rc: Client) -> None:
    view = rc[0]
    with pytest.raises(UnknownFlag), view.temp_flags(block=True, nonsense=1):
        pass
    assert view.block is False


def test_a_view_takes_flags_when_it_is_made(rc: Client) -> None:
    assert rc.direct_view(0, block=True).apply(abs, -1) == 1


def test_a_view_refuses_unknown_flags_when_it_is_made(rc: Client) -> None:
    with pytest.raises(UnknownFlag):
        rc.direct_view(0, nonsense=True)


def test_views_block_by_default_if_the_client_says_so(rc: Client) -> None:
    rc.block = True
    assert rc[0].apply(abs, -1) == 1


def test_binding_by_indexing_does_not_wait_unless_the_view_blocks(rc: Client, gate: Gate) -> None:
    rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    rc[0]["a"] = 1  # returns while the engine is busy
    gate.open()
    assert rc[0]["a"] == 1


def test_binding_by_indexing_waits_if_the_view_blocks(dv: DirectView) -> None:
    dv["a"] = 1
    assert dv.client.session.open_calls() == []


def test_updating_is_pushing(dv: DirectView) -> None:
    dv.update({"a": 1})
    assert dv["a"] == [1] * 4


def test_the_block_of_a_call_wins_over_that_of_the_view(rc: Client) -> None:
    view = rc[0].set_flags(block=True)
    result = view.push({"x": 1}, block=False)
    assert isinstance(result, AsyncResult)
    assert result.get(TIMEOUT_S) is None
    assert view.pull("x") == 1


@pytest.mark.parametrize("option", ["track"])
def test_options_of_ipyparallel_without_a_meaning_here_are_taken(rc: Client, option: str) -> None:
    rc[0].push({"x": 1}, block=True, **{option: True})
    assert rc[0]["x"] == 1


def test_a_label_replaces_the_name_of_a_call(rc: Client) -> None:
    result = rc[0].execute("x = 1", label="set up")
    assert (result.wait(TIMEOUT_S), repr(result)) == (True, "<AsyncResult(set up): finished>")


def test_a_view_shows_its_targets(rc: Client) -> None:
    assert (repr(rc[0]), repr(rc[:])) == ("<DirectView 0>", "<DirectView [0, 1, 2, 3]>")


def test_a_view_has_the_length_of_its_engines(rc: Client) -> None:
    assert (len(rc[0]), len(rc[1:3]), len(rc.direct_view("all"))) == (1, 2, 4)
