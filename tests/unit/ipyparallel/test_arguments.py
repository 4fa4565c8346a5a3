"""Arguments of wrong kinds are refused by name at the call, and cost nobody else anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nsactors.ipyparallel as ipp
from nsactors.ipyparallel.arguments import check_choice, check_flags, check_function, check_seconds, check_whole
from nsactors.ipyparallel.error import NotProvided
from nsactors.testing import TIMEOUT_S

NO_SECONDS = [math.nan, "x", "5", b"x", object(), [], [math.nan]]
NO_FLAGS = [math.nan, "no", b"x", object(), [], {}]
NO_TARGETS = ["x", 7, math.nan, [7], object(), b"x"]
NO_FUNCTIONS: list[Any] = [None, 5, "f", []]
NO_COUNTS = [-1, 0.5, "5", math.nan, [1]]


@pytest.fixture(scope="module")
def rc() -> Iterator[ipp.Client]:
    with ipp.Cluster(n=2, backend="local") as rc:
        rc[:].apply_sync(abs, -1)
        yield rc


CALLS: list[tuple[str, Callable[[ipp.Client, Any], object], list[Any]]] = [
    ("timeout", lambda rc, x: rc.wait(timeout=x), NO_SECONDS),
    ("timeout", lambda rc, x: rc.wait_for_engines(3, timeout=x), NO_SECONDS),
    ("timeout", lambda rc, x: rc.wait_for_engines(3, timeout=x, block=False), NO_SECONDS),
    ("timeout", lambda rc, x: rc[:].apply_async(abs, 1).get(x), NO_SECONDS),
    ("timeout", lambda rc, x: rc[:].apply_async(abs, 1).wait(x), NO_SECONDS),
    ("timeout", lambda rc, x: rc[:].apply_async(abs, 1).wait(x, return_when=ipp.ALL_COMPLETED), NO_SECONDS),
    ("timeout", lambda rc, x: rc[:].apply_async(abs, 1).result(x), NO_SECONDS),
    ("timeout", lambda rc, x: ipp.Client("nonesuch", timeout=x), NO_SECONDS),
    ("timeout", lambda rc, x: rc.load_balanced_view(timeout=x), [math.nan, "x", [], -1]),
    ("retries", lambda rc, x: rc.load_balanced_view(retries=x), NO_COUNTS),
    ("chunksize", lambda rc, x: rc.load_balanced_view().map_sync(abs, [1], chunksize=x), [0, *NO_COUNTS]),
    ("chunksize", lambda rc, x: ipp.ParallelFunction(rc.load_balanced_view(), len, chunksize=x), NO_COUNTS),
    ("max_outstanding", lambda rc, x: rc.load_balanced_view().imap(abs, [1], max_outstanding=x), NO_COUNTS),
    ("n", lambda rc, x: rc.wait_for_engines(x), NO_COUNTS),
    ("n", lambda rc, x: ipp.Cluster(n=x, backend="local"), NO_COUNTS),
    ("block", lambda rc, x: rc[:].execute("pass", block=x), NO_FLAGS),
    ("block", lambda rc, x: rc[:].push({"a": 1}, block=x), NO_FLAGS),
    ("block", lambda rc, x: rc[:].pull("a", block=x), NO_FLAGS),
    ("block", lambda rc, x: rc[:].scatter("a", [1], block=x), NO_FLAGS),
    ("block", lambda rc, x: rc[:].gather("a", block=x), NO_FLAGS),
    ("block", lambda rc, x: rc[:].clear(block=x), NO_FLAGS),
    ("block", lambda rc, x: rc[:].map(abs, [1], block=x), NO_FLAGS),
    ("block", lambda rc, x: rc[:].set_flags(block=x), NO_FLAGS),
    ("block", lambda rc, x: rc[:].remote(block=x)(abs), NO_FLAGS),
    ("block", lambda rc, x: rc.get_result(block=x), NO_FLAGS),
    ("verbose", lambda rc, x: rc.queue_status(verbose=x), NO_FLAGS),
    ("target|engine", lambda rc, x: rc.direct_view(x), NO_TARGETS),
    ("target|engine", lambda rc, x: rc.load_balanced_view(x), NO_TARGETS),
    ("target|engine", lambda rc, x: rc.broadcast_view(x), NO_TARGETS),
    ("target|engine", lambda rc, x: rc.abort(targets=x), NO_TARGETS),
    ("target|engine", lambda rc, x: rc.queue_status(x), NO_TARGETS),
    ("f", lambda rc, x: rc[:].remote()(x), NO_FUNCTIONS),
    ("f", lambda rc, x: ipp.depend(x), NO_FUNCTIONS),
    ("fn", lambda rc, x: rc[:].apply_async(abs, 1).add_done_callback(x), NO_FUNCTIONS),
    ("function", lambda rc, x: rc[:].apply_async(x), NO_FUNCTIONS),
    ("function", lambda rc, x: rc.load_balanced_view().map_async(x, [1]), NO_FUNCTIONS),
    ("return_when", lambda rc, x: rc[:].apply_async(abs, 1).get(return_when=x), ["x", 5, []]),
    ("return_when", lambda rc, x: rc[:].apply_async(abs, 1).wait(return_when=x), ["x", 5, []]),
    ("suffix", lambda rc, x: rc.activate(suffix=x), [None, 5, []]),
    ("query", lambda rc, x: rc.db_query(x), [None, 5, "x", []]),
    ("keys", lambda rc, x: rc.db_query({}, keys=x), [5, [5], b"x"]),
    ("nonesuch", lambda rc, x: rc.get_result(x), ["nonesuch:1", ["nonesuch"]]),
]


@pytest.mark.parametrize(("name", "call", "wrong"), CALLS)
def test_a_wrong_argument_is_refused_by_name(
    rc: ipp.Client,
    name: str,
    call: Callable[[ipp.Client, Any], object],
    wrong: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nsactors.client.find_requests.NEWS_S", 0.0)  # the history has all that there will be
    for value in wrong:
        with pytest.raises((TypeError, ValueError, LookupError), match=name):
            call(rc, value)
    assert rc.wait(timeout=TIMEOUT_S)
    assert rc[:].apply_sync(abs, -1) == [1, 1]


def test_what_ipyparallel_takes_is_taken(rc: ipp.Client) -> None:
    view = rc[:]
    assert view.set_flags(block=1) is view
    assert view.apply(abs, -1) == [1, 1]
    assert view.execute("pass", block=0).get(-1) is not None
    assert rc.wait(timeout=-1)
    assert rc.wait(timeout=math.inf)
    assert rc.load_balanced_view("all").targets is None
    rc.abort(view.apply_async(abs, 1))
    check_flags("f", a=None, b=True, c=0)
    check_seconds("f", "timeout", -0.5)
    check_whole("f", "n", 0)
    check_whole("f", "n", None, others=(None,))
    check_function("f", "g", abs)
    check_choice("f", "c", "a", ("a", None))


def test_engines_of_unknown_kinds_are_refused_with_what_there_is() -> None:
    for kind in ("k8s", "x", 5, []):
        with pytest.raises(NotProvided, match="'local' or 'mpi'"):
            ipp.Cluster(engines=kind)


def test_requests_that_the_cluster_does_not_know_are_not_aborted_and_have_ended(
    rc: ipp.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsactors.client.find_requests.NEWS_S", 0.0)
    known = rc[:].apply_async(abs, -1)
    for unknown in ("nonesuch", "nonesuch:1"):
        assert rc.abort(unknown, block=True) is None
        rc.abort([unknown, known], block=True)
        assert rc.wait(unknown)
        assert rc.wait([unknown, known], TIMEOUT_S)


DISTRIBUTED: list[Callable[[ipp.Client, Any], object]] = [
    lambda rc, x: rc[:].scatter("a", [1, 2], dist=x),
    lambda rc, x: rc[:].gather("a", dist=x),
    lambda rc, x: rc[:].parallel(dist=x)(abs),
    lambda rc, x: rc.load_balanced_view().parallel(dist=x)(abs),
    lambda rc, x: ipp.ParallelFunction(rc[:], abs, dist=x),
]


@pytest.mark.parametrize("call", DISTRIBUTED)
@pytest.mark.parametrize("dist", ["x", "", None, 5, []])
def test_a_distribution_that_there_is_not_is_a_missing_key(
    rc: ipp.Client, call: Callable[[ipp.Client, Any], object], dist: Any
) -> None:
    with pytest.raises(KeyError, match=r"takes dist as 'b' .*, not ") as caught:
        call(rc, dist)
    assert isinstance(caught.value, ValueError)


MAPS: list[Callable[[ipp.Client], object]] = [
    lambda rc: rc[:].map(abs),
    lambda rc: rc[:].map_sync(abs),
    lambda rc: rc[:].imap(abs),
    lambda rc: rc.load_balanced_view().map(abs),
    lambda rc: rc.load_balanced_view().map_async(abs),
    lambda rc: rc.load_balanced_view().imap(abs),
    lambda rc: rc[:].parallel()(abs).map(),
]


@pytest.mark.parametrize("call", MAPS)
def test_a_map_over_nothing_fails_an_assertion(rc: ipp.Client, call: Callable[[ipp.Client], object]) -> None:
    with pytest.raises(AssertionError, match="needs at least one sequence") as caught:
        call(rc)
    assert isinstance(caught.value, TypeError)
