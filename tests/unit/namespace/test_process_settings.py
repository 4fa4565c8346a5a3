"""Settings of Python and of libraries: kept in a snapshot, or named as what it cannot keep."""

from __future__ import annotations

import decimal
import gc
import locale
import logging
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest

from nsactors.namespace.process_settings import settings
from nsactors.namespace.process_state import EngineProcess
from nsactors.testing import TIMEOUT_S


@pytest.fixture
def process() -> Iterator[EngineProcess]:
    process = EngineProcess(settings())
    before, _ = process.state()
    yield process
    process.set(before)
    process.close()


def own_filter() -> Any:
    return warnings.filters[0][2]


def soft_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_CORE)[0]


CHANGES: list[tuple[Callable[[], object], Callable[[], object], object]] = [
    (lambda: os.umask(0o027), lambda: (os.umask(0o027), os.umask(0o027))[1], 0o027),
    (lambda: sys.setrecursionlimit(3_000), sys.getrecursionlimit, 3_000),
    (lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1])), soft_limit, 0),
    (lambda: locale.setlocale(locale.LC_NUMERIC, "C.UTF-8"), lambda: locale.setlocale(locale.LC_NUMERIC), "C.UTF-8"),
    (lambda: warnings.simplefilter("error", BytesWarning), own_filter, BytesWarning),
    (lambda: logging.getLogger("mine").setLevel(15), lambda: logging.getLogger("mine").level, 15),
    (lambda: setattr(decimal.getcontext(), "prec", 5), lambda: decimal.getcontext().prec, 5),
    (lambda: np.set_printoptions(precision=3), lambda: np.get_printoptions()["precision"], 3),
    (lambda: np.seterr(divide="ignore"), lambda: np.geterr()["divide"], "ignore"),
    (lambda: pd.set_option("display.max_rows", 7), lambda: pd.get_option("display.max_rows"), 7),
    (lambda: matplotlib.rcParams.update({"lines.linewidth": 5}), lambda: matplotlib.rcParams["lines.linewidth"], 5),
]


@pytest.mark.parametrize(("change", "look", "value"), CHANGES)
def test_a_setting_comes_back(
    process: EngineProcess, change: Callable[[], object], look: Callable[[], object], value: object
) -> None:
    usual, _ = process.state()
    change()
    state, unread = process.state()
    assert unread == {}
    assert process.set(usual) == {}
    assert process.set(pickle.loads(pickle.dumps(state))) == {}
    assert look() == value


def test_what_has_been_set_to_its_default_again_is_so(process: EngineProcess) -> None:
    usual, _ = process.state()
    pd.set_option("display.max_rows", 7)
    matplotlib.rcParams["lines.linewidth"] = 5
    process.set(usual)
    assert pd.get_option("display.max_rows") == 60
    assert matplotlib.rcParams["lines.linewidth"] == matplotlib.rcParamsOrig["lines.linewidth"]


NO_BACKEND = """
import sys
import matplotlib
from nsactors.namespace.process_settings import settings
from nsactors.namespace.process_state import EngineProcess

process = EngineProcess(settings())
process.set(process.state()[0])
assert "matplotlib.pyplot" not in sys.modules
"""


def test_to_look_at_settings_imports_and_chooses_nothing() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", NO_BACKEND], check=False, capture_output=True, text=True, env=environment
    )
    assert done.stderr == ""


def test_handlers_of_loggers_are_named_and_levels_come_back(process: EngineProcess) -> None:
    logger = logging.getLogger("mine")
    logger.addHandler(handler := logging.NullHandler())
    logger.setLevel(20)
    state, _ = process.state()
    logger.removeHandler(handler)
    logger.setLevel(0)
    failed = process.set(state)
    assert "NullHandler of mine" in failed["levels and handlers of loggers"]
    assert logger.level == 20
    logger.setLevel(0)


def test_handlers_of_signals_are_named(process: EngineProcess) -> None:
    before = signal.signal(signal.SIGUSR2, lambda number, frame: None)
    try:
        assert "SIGUSR2" in process.state()[1]["handlers of signals"]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_threads_that_run_the_users_code_are_named(process: EngineProcess) -> None:
    go_on = threading.Event()
    running = threading.Event()

    def work() -> None:
        running.set()
        go_on.wait(TIMEOUT_S)

    thread = threading.Thread(target=work, name="mine")
    thread.start()
    assert running.wait(TIMEOUT_S)
    try:
        assert "mine" in process.state()[1]["threads that run your code"]
    finally:
        go_on.set()
        thread.join(TIMEOUT_S)
    assert "threads that run your code" not in process.state()[1]


def test_what_callers_have_at_hand_is_not_held(process: EngineProcess) -> None:
    class Held:
        """Something large."""

    def look() -> weakref.ref[Held]:
        held = Held()
        process.state()
        return weakref.ref(held)

    gc.disable()
    try:
        assert look()() is None
    finally:
        gc.enable()


def test_what_cannot_be_pickled_is_named(process: EngineProcess) -> None:
    np.set_printoptions(formatter={"float": lambda value: "x"})
    try:
        assert "NumPy's print options" in process.state()[1]
    finally:
        np.set_printoptions(formatter=None)
