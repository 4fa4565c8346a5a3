"""joblib on engines: its own tests of parallel loops, scikit-learn, and what they leave out."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from types import SimpleNamespace
from typing import Any

import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_backend, parallel_config
from joblib.parallel import BACKENDS
from joblib.test import test_parallel as joblibs

from nsactors import Client, Cluster, LoadBalancedView
from nsactors.errors import SerializationError, UnknownFlag
from nsactors.protocol.messages import Capability
from nsactors.testing import TIMEOUT_S, Gate
from tests.contract.conftest import ENGINES

NAME = "nsactors"
SLOWER = 10

pytestmark = [
    # joblib warns when a generator of results is dropped.
    pytest.mark.filterwarnings("ignore:.* tasks (which|have):UserWarning"),
]


@pytest.fixture(autouse=True, scope="module")
def modules_on_engines(cluster: Cluster, backend: str) -> None:
    """Loads what tasks need, and sets it aside: IPython's resets, in later tests too, would search it for garbage."""
    if backend == "ray":
        with cluster.connect_client_sync() as client:
            modules = "joblib.test.test_parallel, sklearn.ensemble, sklearn.model_selection, sklearn.svm"
            client.execute_all(f"import gc, {modules}; gc.freeze()")


@pytest.fixture(autouse=True)
def lview(rc: Client) -> Iterator[LoadBalancedView]:
    """A view that joblib knows."""
    lview = rc.load_balanced_view()
    lview.register_joblib_backend()
    yield lview
    del BACKENDS[NAME]


def cases(test: str, **choices: list[Any]) -> list[Any]:
    """A test of joblib's, with each combination of arguments; ``backend`` is ours."""
    combinations: list[dict[str, Any]] = [{}]
    for name, values in choices.items():
        combinations = [{**chosen, name: value} for chosen in combinations for value in values]
    return [
        pytest.param(test, chosen, id=f"{test}-{'-'.join(str(getattr(v, '__name__', v)) for v in chosen.values())}")
        for chosen in combinations
    ]


CONTEXTS: list[Any] = [parallel_config, parallel_backend]
GENERATORS: list[Any] = ["generator", "generator_unordered"]

# What does not apply: tests of joblib's own pools (their workers, memory maps, initialisers, limits of threads, start
# methods); those that compare BACKENDS[name] with a class, which a factory bound to a view is not; nested loops that
# name our backend on an engine, where it is not registered; and that KeyboardInterrupt raised by a task is raised as
# such: here it is a RemoteError, or it would end the caller.
QUICK = [
    *cases("test_simple_parallel", n_jobs=[1, 2, -1, -2], verbose=[2]),
    *cases("test_parallel_pretty_print", n_jobs=[1, 2]),
    *cases("test_main_thread_renamed_no_warning"),
    *cases("test_nested_loop", parent_backend=[NAME], child_backend=["threading", "sequential"]),
    *cases("test_parallel_timeout_success"),
    *cases("test_error_in_task_iterator"),
    *cases("test_batching_auto_subprocesses"),
    *cases("test_invalid_njobs"),
    *cases("test_njobs_converted_to_int", n_jobs=["2", 2.3, 2]),
    *cases("test_backend_context_manager", context=CONTEXTS),
    *cases("test_backend_nesting_level", context=CONTEXTS, outer_backend=[NAME], inner_backend=["threading"]),
    *cases("test_deadlock_with_generator", return_as=GENERATORS, n_jobs=[1, 2, -2, -1]),
    *cases("test_multiple_generator_call_separated", return_as_1=GENERATORS, return_as_2=GENERATORS, n_jobs=[2, -1]),
    *cases("test_lambda_expression"),
]
# In these tasks sleep for many seconds, and must be woken when they are not wanted any more.
INTERRUPTING = [
    *cases("test_parallel_timeout_fail"),
    *cases("test_parallel_timeout_fail_with_generator", return_as=GENERATORS),
    *cases("test_abort_backend", n_jobs=[2, -1]),
    *cases("test_parallel_unordered_generator_returns_fastest_first", n_jobs=[2, 4]),
    *cases("test_multiple_generator_call", return_as=GENERATORS, n_jobs=[2]),
    *cases("test_multiple_generator_call_managed", return_as=GENERATORS, n_jobs=[2]),
    *cases(
        "test_multiple_generator_call_separated_gc", return_as_1=GENERATORS, return_as_2=["generator"], error=[False]
    ),
]


@pytest.mark.sampled("test")
@pytest.mark.parametrize(("test", "arguments"), QUICK)
def test_joblibs_own_test_passes(test: str, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run(test, arguments, monkeypatch)


@pytest.mark.sampled("test")
@pytest.mark.needs(Capability.SIGNALS)
@pytest.mark.parametrize(("test", "arguments"), INTERRUPTING)
def test_joblibs_own_test_of_ending_work_passes(
    test: str, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(test, arguments, monkeypatch)


def run(test: str, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # Its limits of a few seconds are for machines that have nothing else to do.
    clock = SimpleNamespace(**{**vars(time), "time": lambda: time.time() / SLOWER})
    monkeypatch.setattr(joblibs, "time", clock)
    function = getattr(joblibs, test)
    given = {"backend": NAME, "monkeypatch": monkeypatch, **arguments}
    function(**{name: given[name] for name in inspect.signature(function).parameters})


# Beside joblib's own.


def test_a_grid_search_gives_the_serial_answer() -> None:
    from sklearn.datasets import make_classification  # a second, for which every process that collects would wait
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    features, classes = make_classification(n_samples=200, random_state=0)
    grid = {"C": [0.1, 1.0, 10.0], "gamma": [0.01, 0.1]}
    serial = GridSearchCV(SVC(), grid).fit(features, classes)
    with parallel_config(backend=NAME):
        spread = GridSearchCV(SVC(), grid, n_jobs=-1).fit(features, classes)
    assert spread.best_params_ == serial.best_params_
    for column, values in serial.cv_results_.items():
        if "score" in column and "time" not in column:
            np.testing.assert_array_equal(spread.cv_results_[column], values)


@pytest.mark.once
def test_a_forest_whose_trees_grow_in_loops_within_tasks_gives_the_serial_answer() -> None:
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GridSearchCV

    features, classes = make_classification(n_samples=100, random_state=0)
    grid = {"n_estimators": [5, 10]}
    serial = GridSearchCV(RandomForestClassifier(random_state=0), grid, cv=2).fit(features, classes)
    with parallel_config(backend=NAME):
        spread = GridSearchCV(RandomForestClassifier(random_state=0, n_jobs=2), grid, cv=2, n_jobs=-1)
        spread.fit(features, classes)
    np.testing.assert_array_equal(spread.cv_results_["mean_test_score"], serial.cv_results_["mean_test_score"])


@pytest.mark.once
def test_all_engines_are_used_unless_a_number_is_given() -> None:
    with parallel_config(backend=NAME):
        assert joblib.effective_n_jobs(-1) == ENGINES
        assert joblib.effective_n_jobs(-2) == ENGINES - 1
        assert joblib.effective_n_jobs(100) == ENGINES
        assert joblib.effective_n_jobs(None) == 1
        assert Parallel().n_jobs == -1


def test_no_more_engines_run_tasks_than_were_asked_for(gate: Gate) -> None:
    loop = Parallel(n_jobs=2, backend=NAME, batch_size=1, pre_dispatch="all")
    thread = threading.Thread(target=loop, args=([delayed(gate.pass_through)() for _ in range(ENGINES)],))
    thread.start()
    gate.wait_arrived(2)
    assert not gate.has_visitor()
    gate.open()
    thread.join()


def test_a_large_argument_is_stored_once_for_all_tasks(
    lview: LoadBalancedView, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[int] = []
    transport = lview.client.session.transport
    keep = transport.keep
    monkeypatch.setattr(transport, "keep", lambda payload: (stored.append(payload.nbytes), keep(payload))[1])
    large, small = np.ones(1_000_000), np.ones(10)
    sums = Parallel(n_jobs=2, backend=NAME)(delayed(np.dot)(large, b=large) for _ in range(8))
    assert sums == [1_000_000.0] * 8
    assert stored == [pytest.approx(large.nbytes, rel=0.01)]
    assert Parallel(n_jobs=2, backend=NAME)(delayed(np.sum)(small) for _ in range(8)) == [10.0] * 8
    assert len(stored) == 1


@pytest.mark.once
def test_flags_of_the_view_may_be_given() -> None:
    with parallel_config(backend=NAME, label="my loop"):
        assert Parallel()(delayed(abs)(-n) for n in range(5)) == list(range(5))
    with pytest.raises(UnknownFlag, match="colour"), parallel_config(backend=NAME, colour="red"):
        pass


def test_what_tasks_print_is_shown_if_the_view_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for output, shown in [(None, ""), ("show", "a\na\n")]:
        with parallel_config(backend="nsactors", output=output):
            Parallel()(delayed(print)("a") for _ in range(2))
        assert capsys.readouterr().out == shown


@pytest.mark.once
def test_some_engines_can_be_a_backend_by_another_name(rc: Client) -> None:
    rc[[1, 3]].register_joblib_backend("odd")
    try:
        with parallel_config(backend="odd"):
            assert joblib.effective_n_jobs(-1) == 2
            assert Parallel()(delayed(abs)(-n) for n in range(5)) == list(range(5))
    finally:
        del BACKENDS["odd"]


@pytest.mark.once
def test_what_cannot_be_pickled_ends_the_loop() -> None:
    with pytest.raises(SerializationError):
        Parallel(n_jobs=2, backend=NAME)(delayed(print)(threading.Lock() if n == 9 else n) for n in range(10))


@pytest.mark.once
def test_a_loop_may_take_its_input_from_another_one() -> None:
    first = Parallel(n_jobs=2, backend=NAME, return_as="generator")(delayed(abs)(-n) for n in range(50))
    second = Parallel(n_jobs=2, backend=NAME, return_as="generator")(delayed(pow)(n, 2) for n in first)
    assert list(second) == [n**2 for n in range(50)]


def test_a_failure_is_told_once(connect: Callable[..., Client]) -> None:
    told: list[str] = []
    client = connect(report=told.append)
    client.load_balanced_view().register_joblib_backend()
    with pytest.raises(ZeroDivisionError):
        Parallel(n_jobs=2, backend=NAME)(delayed(divmod)(1, n) for n in (1, 0, 0, 2, 0))
    assert client.wait(timeout=TIMEOUT_S)
    client.close()
    assert told == []


@pytest.mark.once
def test_a_loop_ends_when_all_engines_have_gone(own_cluster: Callable[..., Cluster], gate: Gate) -> None:
    with own_cluster(n=2, recovery="none").start_and_connect_sync() as client:
        client.load_balanced_view().register_joblib_backend()
        loop = Parallel(n_jobs=2, backend=NAME, return_as="generator")
        results = loop(delayed(gate.pass_through)() for _ in range(4))
        gate.wait_arrived(2)
        client.shutdown()
        with pytest.raises(BrokenExecutor):
            next(results)
