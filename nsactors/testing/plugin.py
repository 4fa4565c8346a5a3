"""Fixtures for pytest: ``pytest_plugins = ["nsactors.testing.plugin"]`` in a ``conftest.py`` loads them.

Installing nsactors does not load them: test suites that use no engines should not pay for them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import pytest

from nsactors import Client, Cluster, embed
from nsactors.testing.gates import TIMEOUT_S, Gate, open_gate

ENGINES = 2
STAYS_S: float | None = None  # the time limit for a client to come and go: no limit


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--nsactors-embed``."""
    parser.addoption(
        "--nsactors-embed",
        action="store_true",
        help="when a test fails, make the names of its frame an engine, and wait until a client has come and gone",
    )


def pytest_exception_interact(
    node: pytest.Item | pytest.Collector, call: pytest.CallInfo[Any], report: pytest.TestReport | pytest.CollectReport
) -> None:
    """With ``--nsactors-embed``, let clients look at the frame of a failure, and wait for them."""
    if not node.config.getoption("--nsactors-embed") or call.excinfo is None or not isinstance(node, pytest.Item):
        return
    frame = frame_of_test(call.excinfo.tb, str(node.path))
    names = {**frame.f_globals, **frame.f_locals}
    with embed(names, name=f"test-{os.getpid()}", serve="between") as session:
        capture = node.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture is not None else contextlib.nullcontext():
            print(
                f"\n{node.nodeid} failed: its names are the engine {session.name}. In another terminal: "
                f"nsactors console {session.name}",
                flush=True,
            )
        session.wait(STAYS_S)


def frame_of_test(traceback: TracebackType, path: str) -> FrameType:
    """Return the innermost frame of a traceback whose code is in the file ``path``, or else the innermost frame."""
    frames = []
    at: TracebackType | None = traceback
    while at is not None:
        frames.append(at.tb_frame)
        at = at.tb_next
    return next((frame for frame in reversed(frames) if frame.f_code.co_filename == path), frames[-1])


@pytest.fixture(scope="session")
def local_cluster() -> Iterator[Cluster]:
    """Two engines for all tests of a session. They are threads of this process, and Ray is not used.

    Override it in a ``conftest.py`` for another number of engines, or for engines on Ray.
    """
    cluster = Cluster(n=ENGINES, backend="local")
    cluster.start_and_connect_sync().close()
    yield cluster
    cluster.stop_cluster_sync()


@pytest.fixture
def local_client(local_cluster: Cluster) -> Iterator[Client]:
    """A new client for each test. The namespaces of its engines are empty, and are emptied again after the test."""
    with local_cluster.connect_client_sync() as client:
        yield client
        if not client.wait(timeout=TIMEOUT_S) or not client[:].clear(block=False).wait(TIMEOUT_S):
            raise AssertionError(f"engines are still busy {TIMEOUT_S:g} s after the test")


@pytest.fixture
def gate(local_client: Client, tmp_path: Path) -> Iterator[Gate]:
    """A gate for code on the engines of ``local_client``. It opens at the end of the test, before they are emptied."""
    with open_gate(tmp_path / "nsactors-gate") as gate:
        yield gate
