"""What every test shares: hypothesis profiles, and proof that the session left no process behind."""

import os
import sys
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A time limit per example would measure the machine's other users; pytest-timeout bounds hangs.
settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-ray", action="store_true", help="make Ray impossible to import, as where it is missing")
    parser.addoption("--full-size", action="store_true", help="also run what takes long")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--without-ray"):
        sys.modules["ray"] = None  # type: ignore[assignment]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--full-size"):
        for item in items:
            if "full_size" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes long: --full-size runs it"))


SESSION_MARK = "NSACTORS_TEST_SESSION"
GRACE_S = 10.0


@pytest.fixture(scope="session", autouse=True)
def no_process_left_behind() -> Iterator[None]:
    """Fail the session if a process it started, at any depth, is still alive at its end.

    Orphans are found too: they no longer descend from this process but inherit a mark in their environment.
    """
    try:
        import psutil
    except ImportError:
        yield
        return

    mark = uuid.uuid4().hex
    os.environ[SESSION_MARK] = mark
    yield
    del os.environ[SESSION_MARK]

    def belongs_here(process: psutil.Process) -> bool:
        try:
            return process.pid != os.getpid() and process.environ().get(SESSION_MARK) == mark
        except psutil.Error:  # gone meanwhile, or someone else's
            return False

    started = {*psutil.Process().children(recursive=True), *filter(belongs_here, psutil.process_iter())}
    _, alive = psutil.wait_procs(started, timeout=GRACE_S)
    assert not alive, f"processes left behind: {[(p.pid, p.cmdline()) for p in alive]}"
