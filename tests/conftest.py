"""What every test shares: hypothesis profiles, and proof that the session left no process behind."""

import gc
import os
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from nsactors.testing import no_process_left_behind
from tests.repeats import Repeats

# A time limit per example would measure the machine's other users; pytest-timeout bounds hangs.
settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
EXAMPLES = 40  # examples of a property, in place of Hypothesis' hundred, which --full-size tries


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-ray", action="store_true", help="make Ray impossible to import, as if it were missing")
    parser.addoption("--full-size", action="store_true", help="also run what takes long")
    parser.addoption(
        "--repeat-failed",
        type=int,
        default=0,
        metavar="N",
        help="repeat tests on Ray that have failed, if no more than N",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A script lets the processes that it starts in the background ignore SIGINT.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):  # readline in the parent process has set these to 80 by 24
        for name in ("COLUMNS", "LINES"):
            os.environ.pop(name, None)
    if not config.getoption("--full-size"):
        settings.register_profile("quick", settings(), max_examples=EXAMPLES)
        settings.load_profile("quick")
    if config.getoption("--without-ray"):
        sys.modules["ray"] = None  # type: ignore[assignment]
    if (limit := config.getoption("--repeat-failed")) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Repeats(limit))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect tests without a search for garbage among them."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    leave_out_of_searches()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Leave what the tests of a file have imported, and what they leave behind, to none that follow."""
    yield
    if nextitem is not None and nextitem.path != item.path:
        leave_out_of_searches()


def leave_out_of_searches() -> None:
    """Leave what there is now out of later searches for garbage.

    Many tests, and IPython at each reset, search for garbage: among ten thousand tests and the libraries of all of them
    that took half a second.
    """
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--full-size"):
        for item in items:
            if "full_size" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes long: --full-size runs it"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse a test module that imports Ray: clusters set Ray's environment first, and none could start any more."""
    if sys.modules.get("ray") is not None:
        raise pytest.UsageError("Ray was imported while tests were collected: let tests or fixtures import it")


SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
GRACE_S = 60.0  # for Ray's processes to end, on a machine that has much else to do


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail the session if a process that it started, at any depth, is still alive at its end."""
    with no_process_left_behind(GRACE_S):
        yield


@pytest.fixture(autouse=True)
def process_is_as_before() -> Iterator[None]:
    """Fail a test that leaves handlers of signals, or an IPython shell, to the tests that follow it in the process."""
    handlers, shell = {number: signal.getsignal(number) for number in SIGNALS}, shell_of_process()
    yield
    changed = [number.name for number, handler in handlers.items() if signal.getsignal(number) != handler]
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert not changed
    assert shell_of_process() is shell


def shell_of_process() -> object:
    """Return IPython's shell of this process, if one has been made."""
    module = sys.modules.get("IPython.core.interactiveshell")
    return None if module is None else module.InteractiveShell._instance
