"""Collections of every kind, mapped over as Python does, and scattered with their types kept."""

from __future__ import annotations

import array
import itertools
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsactors import Client, CompositeError, DirectView
from nsactors.errors import InvalidArgument, WrongType, WrongValue
from nsactors.testing import TIMEOUT_S

Map = Callable[..., list[Any]]


@pytest.fixture(params=["direct", "dealt out", "direct imap", "balanced", "balanced imap", "executor"])
def mapped(request: pytest.FixtureRequest, rc: Client) -> Map:
    """A way to map a function over iterables."""
    view, lview = rc[:], rc.load_balanced_view()
    ways: dict[str, Map] = {
        "direct": lambda *args: view.map(*args, block=True),
        "dealt out": lambda *args: view.map(*args, block=True, dist="r"),
        "direct imap": lambda *args: list(view.imap(*args)),
        "balanced": lambda *args: lview.map(*args, block=True),
        "balanced imap": lambda *args: list(lview.imap(*args)),
        "executor": lambda *args: list(lview.executor.map(*args)),
    }
    return ways[request.param]


@pytest.mark.sampled
def test_a_map_gives_what_the_built_in_one_gives(mapped: Map) -> None:
    pd, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    sparse = pytest.importorskip("scipy.sparse")
    frame = pd.DataFrame({"a": range(9), "b": range(9)})
    makers: list[Callable[[], tuple[Any, ...]]] = [
        lambda: (str, frame),
        lambda: (str, frame["a"]),
        lambda: (str, pd.Index(["x", "y"])),
        lambda: (len, frame.groupby("a")),
        lambda: (str, {"a": 1, "b": 2}.values()),
        lambda: (pow, (i for i in range(3)), itertools.repeat(2)),
        lambda: (pow, itertools.count(), [1, 2, 3]),
        lambda: (pow, itertools.cycle([2, 3]), (i for i in range(5))),
        lambda: (pow, {1, 2, 3}, [2]),
        lambda: (pow, {1: 0, 2: 0, 3: 0}, [2, 2]),
        lambda: (pow, deque([1, 2, 3]), [2]),
        lambda: (pow, {1: 0, 2: 0}.keys(), deque([2])),
        lambda: (pow, iter([2, 3]), iter([4])),
        lambda: (float, array.array("d", [1.5, 2.5])),
        lambda: (int, memoryview(array.array("i", [1, -2]))),
        lambda: (str, pa.table({"a": [1, 2]}).column_names),
        lambda: (str, pa.array([1, 2, 3])),
        lambda: (abs, ()),
    ]
    for make in makers:
        assert mapped(*make()) == list(map(*make()))
    rows = sparse.csr_array([[1, 0], [0, 2], [3, 0]])
    assert mapped(float, (row.sum() for row in rows)) == [1, 2, 3]


@pytest.mark.once
def test_what_never_ends_is_refused_or_taken_as_results_are(rc: Client) -> None:
    for view in (rc[:], rc.load_balanced_view()):
        with pytest.raises(ValueError, match="imap"):
            view.map(pow, itertools.count(), itertools.repeat(2))
        assert list(itertools.islice(view.imap(pow, itertools.count(), itertools.repeat(2)), 3)) == [0, 1, 4]


@pytest.mark.parametrize("dist", ["b", "r"])
def test_gather_inverts_scatter_and_keeps_types(dv: DirectView, dist: str) -> None:
    pd, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    sparse = pytest.importorskip("scipy.sparse")

    def there_and_back(seq: Any) -> Any:
        dv.scatter("x", seq, dist=dist)
        kinds = dv["type(x).__name__"]
        assert kinds == [type(seq).__name__] * len(dv)
        joined = dv.gather("x", dist=dist)
        assert type(joined) is type(seq)
        return joined

    for seq in (
        range(3, 20, 2),
        array.array("d", [1.5, 2.5]),
        bytearray(b"abcde"),
        deque("abc", maxlen=9),
        b"",
        "text",
    ):
        assert there_and_back(seq) == seq
    frame = pd.DataFrame({"a": range(6), "b": pd.Categorical(list("xyxyxy"))})
    pd.testing.assert_frame_equal(there_and_back(frame), frame)
    pd.testing.assert_index_equal(there_and_back(pd.Index(list("abc"))), pd.Index(list("abc")))
    table = pa.table({"a": [1, None, 3], "s": list("xyz")})
    assert there_and_back(table).equals(table)
    matrix = sparse.csr_matrix([[1, 0], [0, 2], [3, 0], [0, 0], [5, 6]])
    assert there_and_back(matrix).toarray().tolist() == matrix.toarray().tolist()


@pytest.mark.sampled
@pytest.mark.parametrize("seq", [{"a": 1}, {1, 2}, memoryview(b"ab"), {"a": 1}.items()])
def test_what_would_lose_its_type_is_refused_before_anything_is_sent(rc: Client, seq: Any) -> None:
    for call in (lambda: rc[:].scatter("x", seq), lambda: rc[:].parallel()(len)(seq)):
        with pytest.raises(WrongType, match="in place of a"):
            call()
    assert rc.session.open_calls() == []
    with pytest.raises(WrongType, match="in place of a"):
        rc.load_balanced_view().parallel()(len)(seq)


@pytest.mark.once
def test_a_single_row_of_a_frame_is_a_frame(dv: DirectView) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": range(len(dv))})
    dv.scatter("x", frame, flatten=True)
    assert dv["x['a'].tolist()"] == [[i] for i in range(len(dv))]


@pytest.mark.once
def test_a_result_that_is_gathered_is_iterated_over_as_the_whole(dv: DirectView) -> None:
    pd = pytest.importorskip("pandas")
    dv.scatter("x", pd.DataFrame({"a": range(8), "b": range(8)}))
    assert list(dv.gather("x", block=False)) == ["a", "b"]
    dv.execute("y = 3")
    assert list(dv.gather("y", block=False)) == [3] * len(dv)


@pytest.mark.once
def test_functions_of_parts_get_rows_and_their_results_are_joined(rc: Client) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": range(8)})
    for parallel in (rc[:].parallel(block=True), rc.load_balanced_view().parallel(block=True)):
        joined = parallel(lambda part: part * 2)(frame)
        pd.testing.assert_frame_equal(joined, frame * 2)


# Partitioners of the user's.


def _first_gets_half(length: int, parts: int) -> list[range]:
    rest = length - length // 2
    cuts = [0, *(length // 2 + rest * i // (parts - 1) for i in range(parts))]
    return [range(start, stop) for start, stop in itertools.pairwise(cuts)]


class _ByKey:
    """Items of one key are on one engine."""

    def __init__(self, keys: Any) -> None:
        self._keys = keys

    def __call__(self, length: int, parts: int) -> list[Any]:
        assert length == len(self._keys)
        return [np.flatnonzero(self._keys % parts == part) for part in range(parts)]


@pytest.mark.once
def test_a_partitioner_says_which_engine_gets_what(dv: DirectView) -> None:
    dv.scatter("x", range(20), dist=_first_gets_half)
    assert dv["list(x)"] == [[*range(10)], [10, 11, 12], [13, 14, 15], [16, 17, 18, 19]]
    dv.execute("x = [10 * i for i in x]")
    assert dv.gather("x", dist=_first_gets_half) == [10 * i for i in range(20)]
    assert dv.map_sync(lambda x: x + 1, range(20), dist=_first_gets_half) == list(range(1, 21))


@pytest.mark.once
def test_items_come_back_to_their_places_wherever_they_were(dv: DirectView) -> None:
    keys = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])
    by_key = _ByKey(keys)
    frame = pd.DataFrame({"key": keys, "value": np.arange(10.0)})
    dv.scatter("part", frame, dist=by_key)
    assert dv["set(part['key'] % 4)"] == [{0}, {1}, {2}, {3}]
    dv.execute("part['sum'] = part.groupby('key')['value'].transform('sum')")
    expected = frame.assign(sum=frame.groupby("key")["value"].transform("sum"))
    pd.testing.assert_frame_equal(dv.gather("part", dist=by_key), expected)
    assert dv.map_sync(lambda k, i: (k, i), keys.tolist(), range(10), dist=by_key) == [
        (k, i) for i, k in enumerate(keys)
    ]


@pytest.mark.once
def test_engines_without_items_have_no_part_in_a_map(dv: DirectView) -> None:
    last = lambda length, parts: [[]] * (parts - 1) + [range(length)]  # noqa: E731
    result = dv.map_async(lambda x: 1 // x, [0, 1, 2], dist=last, return_exceptions=True)
    values = result.get(TIMEOUT_S)
    assert isinstance(values[0], ZeroDivisionError)
    assert values[1:] == [1, 0]
    assert set(result.engine_id) == {dv.client.ids[-1]}
    assert dv.map_sync(abs, [], dist=last) == []


@pytest.mark.once
def test_items_keep_their_numbers(dv: DirectView) -> None:
    reverse = lambda length, parts: [range(length)[::-1][part::parts] for part in range(parts)]  # noqa: E731
    draw = lambda x, rng: (x, rng.random())  # noqa: E731
    assert dv.map_sync(draw, range(9), dist=reverse, seed=1) == dv.map_sync(draw, range(9), seed=1)
    with pytest.raises(CompositeError) as failure:
        dv.map_sync(lambda x: threading.Lock() if x == 7 else x, range(9), dist=reverse)
    assert "item 7" in str(failure.value.exceptions[0])


@pytest.mark.once
def test_what_is_no_partitioner_fails_its_call_alone(dv: DirectView) -> None:
    def fails(length: int, parts: int) -> Any:
        raise KeyError("mine")

    for call in (partial(dv.scatter, "y", range(9)), partial(dv.map, abs, range(9))):
        with pytest.raises(WrongValue, match="left out position 0"):
            call(dist=lambda length, parts: [[]] * parts)
        with pytest.raises(KeyError, match="mine"):
            call(dist=fails)
        with pytest.raises(InvalidArgument, match="a partitioner"):
            call(dist=3)
    assert dv["'y' in globals()"] == [False] * len(dv)
    dv.scatter("y", range(9))
    with pytest.raises(KeyError, match="mine"):
        dv.gather("y", dist=fails)
    later = dv.gather("y", dist=fails, block=False)
    with pytest.raises(KeyError, match="mine"):
        later.get(TIMEOUT_S)
    with pytest.raises(ValueError, match="dist='b' concatenates them as they are"):
        dv.gather("y", dist=_first_gets_half)
    assert dv.gather("y") == range(9)
