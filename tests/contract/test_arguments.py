"""What calls take, and what they refuse, beside the walk over all of them that runs on one transport only."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nsactors import Client, Cluster
from nsactors.errors import InvalidArgument, ResultUnavailable, WrongType, WrongValue
from nsactors.testing import TIMEOUT_S, Gate
from tests.contract.conftest import WRONG_FLAGS, WRONG_SIZES


@pytest.mark.sampled("call")
@pytest.mark.parametrize("jobs", ["junk", "junk:x", "", 5, 2.5, b"x", [None], ["junk"], {"a": 1}, object()])
@pytest.mark.parametrize("call", ["wait", "abort"])
def test_jobs_that_mean_no_request_are_refused(rc: Client, call: str, jobs: Any) -> None:
    with pytest.raises(InvalidArgument, match=rf"{call}\(\) takes jobs as results, message ids or several of these"):
        getattr(rc, call)(jobs)


@pytest.mark.once
@pytest.mark.usefixtures("no_news")
def test_a_request_that_there_never_was_is_not_waited_for(rc: Client) -> None:
    never = f"{rc.session.name}:1000000"
    with pytest.raises(ResultUnavailable, match="1000000"):
        rc.wait(never)
    with pytest.raises(WrongValue, match=r"abort\(\) takes jobs as results or message ids of this client"):
        rc.abort(never)


def test_requests_of_ones_own_that_have_ended_have_been_waited_for(rc: Client) -> None:
    results = [rc[0].apply_async(abs, -1), rc.load_balanced_view().apply_async(abs, -1)]
    ids = [result.msg_ids[0] for result in results]
    assert [result.get(TIMEOUT_S) for result in results] == [1, 1]
    assert rc.wait(ids, TIMEOUT_S)
    rc.abort(ids)  # nothing is left to be cancelled


def test_a_request_of_another_client_is_waited_for(rc: Client, cluster: Cluster, gate: Gate) -> None:
    with cluster.connect_client_sync() as other:
        held = other[0].apply_async(gate.pass_through)
        gate.wait_arrived()
        assert not rc.wait(held.msg_ids, 0.05)
        gate.open()
        assert rc.wait(held.msg_ids, TIMEOUT_S)
        with pytest.raises(WrongValue, match="message ids of this client, or of detached tasks"):
            rc.abort(held.msg_ids)


def test_a_result_is_waited_for_whoever_has_made_it(rc: Client, cluster: Cluster, gate: Gate) -> None:
    with cluster.connect_client_sync() as other:
        held = other[0].apply_async(gate.pass_through)
        gate.wait_arrived()
        assert not rc.wait(held, 0.05)
        gate.open()
        assert rc.wait(held, TIMEOUT_S)


@pytest.mark.once
def test_numbers_and_truth_values_of_numpy_do_as_pythons(rc: Client) -> None:
    view, balanced = rc[:], rc.load_balanced_view(retries=np.int8(1), priority=np.float32(2), timeout=np.float64(60))
    seconds = np.float32(TIMEOUT_S)
    assert view.map_async(abs, [-1, -2]).get(seconds) == [1, 2]
    assert view.map(abs, [-1, -2], block=np.True_, ordered=np.True_) == [1, 2]
    assert view.apply_async(abs, -1).result(np.int64(TIMEOUT_S)) == [1] * 4
    assert list(view.imap(abs, [-1, -2, -3], chunksize=np.int64(2), max_outstanding=np.uint8(1))) == [1, 2, 3]
    assert balanced.map_async(abs, range(-9, 0), chunksize=np.int32(2)).get(seconds) == list(range(9, 0, -1))
    assert list(balanced.imap(abs, [-1, -2, -3], chunksize=np.int64(2))) == [1, 2, 3]
    assert list(balanced.executor.map(abs, [-1, -2], timeout=seconds, chunksize=np.int64(1))) == [1, 2]
    assert len(rc[np.int64(0)].execute("1", silent=np.False_, block=np.True_)) == 1
    assert rc.wait(timeout=seconds)
    assert rc.history(last=np.int64(1), engine=np.int64(0))


@pytest.mark.sampled
@pytest.mark.parametrize("timeout", [math.nan, math.inf, "5"])
def test_a_time_limit_that_is_no_length_of_time_is_refused_before_anything_is_waited_for(
    rc: Client, gate: Gate, timeout: Any
) -> None:
    held = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    for wait in (
        held.get,
        held.wait,
        held.result,
        held.exception,
        held.get_dict,
        lambda timeout: rc.wait(held, timeout),
    ):
        with pytest.raises(
            (WrongType, WrongValue), match="timeout as a number of seconds, or None or a negative number"
        ):
            wait(timeout)
    gate.open()
    held.get(TIMEOUT_S)


def test_bad_options_of_tasks_cost_their_own_call_alone(rc: Client, gate: Gate) -> None:
    balanced = rc.load_balanced_view()
    held = balanced.apply_async(gate.pass_through)
    for wrong in WRONG_SIZES:
        with pytest.raises(InvalidArgument, match="takes chunksize as a whole number, 1 or more, or None, not"):
            balanced.map(abs, [1], chunksize=wrong)
    for flags in WRONG_FLAGS:
        with pytest.raises(InvalidArgument, match=f"takes {next(iter(flags))} as"):
            balanced.with_flags(**flags)
    assert balanced.apply_sync(abs, -1) == 1
    gate.open()
    held.get(TIMEOUT_S)
