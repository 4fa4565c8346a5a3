"""Code of the user's in the wrong places: it fails its own task, and no other, and no scheduler."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from nsactors import Client, Cluster, CompositeError, LoadBalancedView, depend
from nsactors.errors import NsactorsError, RemoteError, SchedulerLost, SerializationError
from nsactors.tasks import scheduler
from nsactors.tasks.driver import Driver
from nsactors.tasks.messages import Submitted
from nsactors.testing import TIMEOUT_S, Gate, wait_until
from tests.contract.conftest import ENGINES

RAISED = ["ValueError('no')", "SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()"]


@pytest.fixture(scope="module")
def cluster(backend: str, cluster: Cluster) -> Iterator[Cluster]:
    """Engines of this module's own, beside the shared ones: other tests are not to see these detached tasks."""
    own = Cluster(n=ENGINES, backend=backend)
    own.start_and_connect_sync()
    yield own
    own.stop_cluster_sync()


@pytest.fixture(params=[False, True], ids=["own", "detached"])
def lview(request: pytest.FixtureRequest, rc: Client) -> Iterator[LoadBalancedView]:
    """A view; its scheduler is the same, and works, at the end."""
    lview = rc.load_balanced_view(detached=request.param)
    before = lview.apply_async(abs, -1)
    assert before.get(TIMEOUT_S) == 1
    yield lview
    after = lview.apply_async(abs, -2)
    assert after.get(TIMEOUT_S) == 2
    assert before.msg_ids[0].partition(":")[0] == after.msg_ids[0].partition(":")[0]


FromMain = Callable[[str], SimpleNamespace]

LOADED = """
class Bad:
    def __init__(self, x):
        self.x = x
    def __reduce__(self):
        return blow, ()
    def __eq__(self, other):
        raise SystemExit
def blow():
    raise {error}
def make(x):
    return Bad(x) if x % 5 == 3 else x
"""


# Results.


@pytest.mark.sampled("error", "lview")
@pytest.mark.parametrize("error", RAISED)
def test_a_result_that_raises_when_it_is_loaded_is_a_failure_of_its_own(
    lview: LoadBalancedView, from_main: FromMain, error: str
) -> None:
    make = from_main(LOADED.format(error=error)).make
    lview.map_sync(abs, range(1000))
    values = lview.map_async(make, range(20), chunksize=10, return_exceptions=True).get(TIMEOUT_S)
    assert [x for x in values if isinstance(x, int)] == [x for x in range(20) if x % 5 != 3]
    assert all(
        isinstance(values[x], ValueError if "ValueError" in error else SerializationError) for x in (3, 8, 13, 18)
    )
    results = [lview.apply_async(make, x) for x in range(20)]
    assert [result.exception(TIMEOUT_S) is None for result in results] == [x % 5 != 3 for x in range(20)]


def test_a_call_whose_value_is_a_list_with_something_bad_is_one_failure(
    lview: LoadBalancedView, from_main: FromMain
) -> None:
    main = from_main(LOADED.format(error="SystemExit(3)") + "\ndef several(x): return [make(3), x]")
    with pytest.raises(SerializationError, match="SystemExit is raised when it is unpickled here"):
        lview.apply_sync(main.several, 1)


def test_an_exception_that_raises_wherever_it_is_looked_at_is_a_failure(
    lview: LoadBalancedView, from_main: FromMain
) -> None:
    main = from_main("""
        class Odd(Exception):
            def __reduce__(self): return blow, ()
            def __str__(self): raise SystemExit(3)
            def add_note(self, note): raise SystemExit(4)
            __repr__ = __str__
        def blow(): raise SystemExit(5)
        def fail(x):
            raise Odd()
    """)
    assert isinstance(lview.apply_async(main.fail, 1).exception(TIMEOUT_S), Exception)
    values = lview.map_async(main.fail, range(3), return_exceptions=True).get(TIMEOUT_S)
    assert [isinstance(value, Exception) for value in values] == [True] * 3


# Input.


class Raising(list[int]):
    """Of which the third item cannot be had, and no slice with it."""

    def __getitem__(self, index: Any) -> Any:
        raise SystemExit(3)


class Lying(list[int]):
    length: int

    def __len__(self) -> int:
        return self.length


class Sequence:
    """Not a list, and of a length that it does not have."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter([1, 2, 3])


def lying(length: int) -> Lying:
    sequence = Lying([1, 2, 3])
    sequence.length = length
    return sequence


@pytest.mark.sampled("blocks", "sequence")
@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize(
    "sequence",
    [Raising([1, 2, 3]), *(make(length) for make in (lying, Sequence) for length in (0, 2, 5, 10**18, -1))],
    ids=lambda sequence: f"{type(sequence).__name__} {getattr(sequence, 'length', '')}",
)
def test_sequences_are_what_iterating_over_them_gives(lview: LoadBalancedView, sequence: Any, blocks: bool) -> None:
    result = lview.map(lambda x: 10 * x, sequence, block=blocks)
    assert (result if blocks else result.get(TIMEOUT_S)) == [10, 20, 30]


def test_an_input_that_raises_in_the_middle_raises_at_the_call(lview: LoadBalancedView) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        lview.map_async(abs, numbers())


def test_an_array_of_a_class_of_its_own_fails_item_by_item(rc: Client, from_main: FromMain) -> None:
    main = from_main("""
        import numpy as np
        class Odd(np.ndarray):
            def __getitem__(self, index):
                if isinstance(index, slice) and index.start <= 3 < index.stop:
                    raise SystemExit(3)
                return np.ndarray.__getitem__(self, index)
        odd = np.arange(6).view(Odd)
    """)
    lview = rc.load_balanced_view()
    values = lview.map_sync(int, main.odd, return_exceptions=True)
    assert isinstance(values[3], SerializationError)
    assert values[:3] + values[4:] == [0, 1, 2, 4, 5]
    assert lview.apply_sync(abs, -1) == 1


@pytest.mark.sampled
@pytest.mark.parametrize("error", RAISED)
def test_items_that_raise_when_they_are_pickled_are_failures_of_their_own(
    rc: Client, from_main: FromMain, error: str
) -> None:
    main = from_main(f"""
        class Bad:
            def __reduce__(self): raise {error}
    """)
    lview = rc.load_balanced_view()
    values = lview.map_async(type, [1, main.Bad(), 2], return_exceptions=True).get(TIMEOUT_S)
    assert (values[0], values[2]) == (int, int)
    assert isinstance(values[1], SerializationError)
    assert lview.apply_sync(abs, -1) == 1


@pytest.mark.sampled("error", "lview")
@pytest.mark.parametrize("error", RAISED)
def test_items_that_raise_when_they_are_loaded_fail_or_are_refused(
    lview: LoadBalancedView, from_main: FromMain, error: str
) -> None:
    make = from_main(LOADED.format(error=error)).make
    try:
        values = lview.map_async(str, [make(x) for x in (3, 3)], return_exceptions=True).get(TIMEOUT_S)
    except SerializationError:
        return  # detached ones are read where they are scheduled
    assert all(isinstance(value, RemoteError) for value in values)


@pytest.mark.sampled("error", "lview")
@pytest.mark.parametrize("error", RAISED)
def test_a_function_that_raises_when_it_is_pickled_raises_at_the_call(
    lview: LoadBalancedView, from_main: FromMain, error: str
) -> None:
    main = from_main(f"""
        class Bad:
            def __call__(self, x): return x
            def __reduce__(self): raise {error}
    """)
    for call in (lambda: lview.apply_async(main.Bad(), 1), lambda: lview.map_async(main.Bad(), [1])):
        with pytest.raises((SerializationError, KeyboardInterrupt, SystemExit, GeneratorExit)):
            call()


def test_a_function_of_unusual_names_is_one_like_others(lview: LoadBalancedView, from_main: FromMain) -> None:
    main = from_main("""
        class Odd:
            __module__ = "__main__"
            def __call__(self, x): return 2 * x
        odd = Odd()
        odd.__qualname__ = []
        odd.__code__ = "none"
    """)
    assert lview.map_sync(main.odd, [1, 2]) == [2, 4]
    assert lview.apply_sync(main.odd, 3) == 6


# Conditions and callbacks.


def test_a_condition_that_raises_fails_its_task(lview: LoadBalancedView) -> None:
    def ask() -> bool:
        raise SystemExit(3)

    with pytest.raises((RemoteError, NsactorsError)):
        lview.apply_sync(depend(ask)(lambda: 1))


def test_a_callback_that_exits_ends_nothing(lview: LoadBalancedView, capsys: pytest.CaptureFixture[str]) -> None:
    called = threading.Event()

    def leave(result: Any) -> None:
        called.set()
        raise SystemExit(3)

    lview.apply_async(abs, -1).add_done_callback(leave)
    assert called.wait(TIMEOUT_S)
    lview.client.session.wait_for_callbacks()
    assert "SystemExit" in capsys.readouterr().err


# Schedulers that end all the same.


@pytest.fixture
def fail_next(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Lets the scheduler of this process's client raise, the next time that it hears of a task."""
    failing: list[BaseException] = []
    dispatch = Driver.dispatch

    def failing_dispatch(driver: Driver, event: Any) -> None:
        if failing and isinstance(event, Submitted):
            raise failing.pop()
        dispatch(driver, event)

    monkeypatch.setattr(Driver, "dispatch", failing_dispatch)
    return failing.append


@pytest.mark.sampled
@pytest.mark.parametrize("error", [KeyError(3), SystemExit(3)], ids=repr)
def test_tasks_of_a_scheduler_that_fails_end_and_the_next_ones_run(
    rc: Client, gate: Gate, fail_next: Callable[[BaseException], None], error: BaseException
) -> None:
    lview = rc.load_balanced_view()
    running = lview.map_async(lambda x: gate.pass_through() and x, range(3 * ENGINES), chunksize=1)
    gate.wait_arrived(ENGINES)
    fail_next(error)
    late = lview.apply_async(abs, -1)
    for result in (running, late):
        with pytest.raises(SchedulerLost, match=f"{type(error).__name__}.*Submit it again"):
            result.get(TIMEOUT_S)
    again = lview.map_async(abs, range(100))
    gate.open()
    assert again.get(TIMEOUT_S) == list(range(100))
    assert [task for task in rc.tasks() if not task.detached] == []


def test_a_detached_task_whose_scheduler_fails_ends_and_what_was_kept_stays(
    rc: Client, gate: Gate, cluster: Cluster, backend: str, fail_next: Callable[[BaseException], None]
) -> None:
    lview = rc.load_balanced_view(detached=True)
    kept = lview.apply_async(abs, -7)
    assert kept.get(TIMEOUT_S) == 7
    running = lview.apply_async(gate.pass_through)
    mapped = lview.map_async(lambda x: x or gate.pass_through(), [1, 2, 0, 3], chunksize=1)
    gate.wait_arrived(2)
    wait_until(lambda: mapped.progress == 3)
    if backend == "ray":
        import ray

        actor = ray.get_actor("named-actor-tasks", cluster.connection_info().namespace)
        ray.get(
            actor.__ray_call__.remote(
                lambda self: self._target._task_scheduler._commands.put(partial({}.__getitem__, 3))
            )
        )
    else:
        fail_next(KeyError(3))
        lview.apply_async(abs, -1)
    with pytest.raises(SchedulerLost, match=r"KeyError: 3.*Submit it again"):
        running.get(TIMEOUT_S)
    with pytest.raises(CompositeError, match="1 of 4 items"):
        mapped.get(TIMEOUT_S)
    gate.open()
    assert rc.get_result(kept.msg_ids[0]).get(TIMEOUT_S) == 7
    assert [value for value in rc.get_result(mapped.msg_ids[0]).get(return_exceptions=True) if type(value) is int] == [
        1,
        2,
        3,
    ]
    assert lview.apply_async(abs, -2).get(TIMEOUT_S) == 2


@pytest.mark.once
def test_a_scheduler_that_fails_again_and_again_is_not_started_for_ever(
    own_cluster: Callable[..., Cluster], fail_next: Callable[[BaseException], None]
) -> None:
    rc = own_cluster(1).start_and_connect_sync()
    lview = rc.load_balanced_view()
    for _ in range(scheduler.FAILURES):
        fail_next(KeyError(3))
        with pytest.raises(SchedulerLost):
            lview.apply_async(abs, -1).get(TIMEOUT_S)
    with pytest.raises(SchedulerLost, match="in a row"):
        lview.apply_async(abs, -1).get(TIMEOUT_S)
