"""CPython's own tests of executors, where the standard library comes with its tests: many distributions leave them out.

Left out are those that start a pool by its class (its workers, how it ends with the interpreter), which a view is not,
and those in which somebody sleeps: on a machine that pauses for a second they find what should be left done, or the
other way round. ``test_executor`` has the like of them with gates.
"""

from __future__ import annotations

import importlib
import unittest
from typing import Any

import pytest

from nsactors import Client

PACKAGE = "test.test_concurrent_futures"
HOMES = {  # since Python 3.12; before, all of it is one module
    "ExecutorTest": "executor",
    "WaitTests": "test_wait",
    "AsCompletedTests": "test_as_completed",
    "ExecutorShutdownTest": "test_shutdown",
}
LEFT_OUT = {
    "test_cancel_futures",
    "test_first_completed",
    "test_first_completed_some_already_completed",
    "test_first_exception",
    "test_first_exception_one_already_failed",
    "test_first_exception_some_already_complete",
    "test_future_times_out",
    "test_hang_gh83386",
    "test_interpreter_shutdown",
    "test_map_timeout",
    "test_max_workers_negative",
    "test_submit_after_interpreter_shutdown",
    "test_timeout",
    "test_zero_timeout",
}


def home_of(mixin: str) -> Any:
    package = importlib.import_module(PACKAGE)
    return package if hasattr(package, mixin) else importlib.import_module(f"{PACKAGE}.{HOMES[mixin]}")


def own_tests() -> list[Any]:
    try:
        mixins = [getattr(home_of(name), name) for name in HOMES]
    except (ImportError, AttributeError):
        skip = pytest.mark.skip(reason="this Python comes without its own tests of executors")
        return [pytest.param(None, "", marks=skip, id="not-there")]
    return [
        pytest.param(mixin, name, id=name)
        for mixin in mixins
        for name in unittest.defaultTestLoader.getTestCaseNames(mixin)
        if name not in LEFT_OUT
    ]


@pytest.mark.sampled
@pytest.mark.parametrize(("mixin", "name"), own_tests())
def test_cpythons_own_test_passes(mixin: Any, name: str, rc: Client) -> None:
    class Case(mixin, unittest.TestCase):  # type: ignore[misc]  # known at run time only
        worker_count = len(rc)

        def executor_type(self, max_workers: int) -> Any:
            return rc.load_balanced_view().executor

        def setUp(self) -> None:
            self.executor = rc.load_balanced_view().executor

        def tearDown(self) -> None:
            self.executor.shutdown()

    result = Case(name).run()
    assert result is not None
    assert [trace for _, trace in result.errors + result.failures] == []
    assert result.testsRun == 1
