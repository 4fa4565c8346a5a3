"""Every test here runs on each transport, and is skipped only where one lacks a capability that the test ``needs``."""

from __future__ import annotations

import builtins
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nsactors import Client, Cluster, DirectView
from nsactors.core.messages import Capability
from tests.gates import TIMEOUT_S, Gate, open_gate

ENGINES = 4
PATIENCE_S = 10.0

_LACKING = pytest.StashKey[dict[str, dict[Capability, list[str]]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*capabilities): skipped on transports that lack one of them")
    for marker in ("no_cover", "thread_unsafe"):
        config.addinivalue_line("markers", f"{marker}: of joblib's own tests, which some tests call")


def _lacking(config: pytest.Config) -> dict[str, dict[Capability, list[str]]]:
    """For each transport that was used: what it lacks, and the tests that were skipped for it."""
    return config.stash.setdefault(_LACKING, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for transport, lacking in _lacking(config).items():
        terminalreporter.section(f"contract: what the {transport} transport lacks")
        for capability, tests in lacking.items():
            terminalreporter.line(f"{capability.name}: {capability.value}; {len(tests)} tests skipped")
            for test in tests:
                terminalreporter.line(f"    {test}")
        if not lacking:
            terminalreporter.line("nothing")


@pytest.fixture(scope="session", params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def backend(request: pytest.FixtureRequest) -> str:
    """The transport that the test runs on."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def cluster(backend: str) -> Iterator[Cluster]:
    """Four engines, shared by all tests: whoever ends an engine starts one of its own to end."""
    cluster = Cluster(n=ENGINES, backend=backend)
    client = cluster.start_and_connect_sync()
    if Capability.PROCESS in client.session.transport.capabilities:
        # IPython collects garbage at each reset: 1 ms in place of 15 with what was there at the start set aside.
        client.execute_all("import gc; gc.freeze()")
    yield cluster
    cluster.stop_cluster_sync()


@pytest.fixture(scope="module")
def transport(cluster: Cluster) -> Any:
    """What tests may ask of the transport: its name and its capabilities."""
    with cluster.connect_client_sync() as client:
        return client.session.transport


@pytest.fixture(autouse=True)
def _needed_capabilities(request: pytest.FixtureRequest, transport: Any) -> None:
    lacking = _lacking(request.config).setdefault(
        transport.name, {capability: [] for capability in Capability if capability not in transport.capabilities}
    )
    needed = {capability for marker in request.node.iter_markers("needs") for capability in marker.args}
    missing = [capability for capability in Capability if capability in needed and capability in lacking]
    for capability in missing:
        lacking[capability].append(request.node.nodeid)
    if missing:
        pytest.skip(f"the {transport.name} transport lacks {', '.join(c.name for c in missing)}")


@pytest.fixture(autouse=True)
def _patience(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients wait for engines that are slow to answer: people at a prompt would not, but machines have pauses."""
    for wait in ("session.ABORT_WAIT_S", "announcing.LEAVING_S", "memory.ANSWER_WAIT_S"):
        monkeypatch.setattr(f"nsactors.client.{wait}", PATIENCE_S)
    for module in ("asking", "farm"):
        monkeypatch.setattr(f"nsactors.client.tasks.{module}.ANSWER_S", PATIENCE_S)
    if backend == "ray":
        monkeypatch.setattr("nsactors.transport.ray_hosting.ANSWER_S", PATIENCE_S)


@pytest.fixture
def clients() -> Iterator[list[Client]]:
    """The clients of a test; they are closed at the end."""
    clients: list[Client] = []
    yield clients
    for client in clients:
        client.close()


@pytest.fixture
def connect(cluster: Cluster, clients: list[Client]) -> Callable[..., Client]:
    """Makes more clients of the cluster."""

    def connect(name: str | None = None, report: Callable[[str], object] = lambda text: None) -> Client:
        clients.append(cluster.connect_client_sync(name, report))
        return clients[-1]

    return connect


@pytest.fixture
def rc(connect: Callable[..., Client], clients: list[Client]) -> Iterator[Client]:
    """A client of its own for each test, of engines that nobody has used."""
    client = connect()
    assert client.ids == list(range(ENGINES)), "an earlier test has ended engines, or left some behind"
    yield client
    for one in clients:  # requests of several clients have no order: these might come after the namespaces are emptied
        if not one.session.closed:
            one.wait(timeout=TIMEOUT_S)
    everywhere = connect()
    assert everywhere.direct_view(list(range(ENGINES))).clear().wait(TIMEOUT_S), "an engine is still busy"


@pytest.fixture
def dv(rc: Client) -> DirectView:
    """All engines; calls block."""
    view: DirectView = rc[:]
    view.block = True
    return view


@pytest.fixture
def gate(rc: Client, tmp_path: Path) -> Iterator[Gate]:
    """A gate for engine code; it opens before the namespaces are emptied."""
    with open_gate(tmp_path / "gate") as gate:
        yield gate


@pytest.fixture
def gates(rc: Client, tmp_path: Path) -> Iterator[Callable[[], Gate]]:
    """Makes gates, for tests that need several."""
    with ExitStack() as stack:
        numbers = iter(range(100))
        yield lambda: stack.enter_context(open_gate(tmp_path / f"gate-{next(numbers)}"))


@pytest.fixture
def own_cluster(backend: str, cluster: Cluster) -> Iterator[Callable[..., Cluster]]:
    """Makes clusters beside the shared one (which keeps Ray up); they are stopped at the end."""
    made: list[Cluster] = []

    def make(n: int = 1, **options: Any) -> Cluster:
        made.append(Cluster(n=n, backend=backend, **options))
        return made[-1]

    yield make
    for one in made:
        one.stop_cluster_sync()


@pytest.fixture
def add_engines(cluster: Cluster, rc: Client) -> Iterator[Callable[[int], list[int]]]:
    """Starts engines that the test may end; they are gone after it."""
    added: list[int] = []
    joined = threading.Semaphore(0)
    rc.on_join(lambda engine_id: joined.release())

    def add(count: int) -> list[int]:
        ids = cluster.start_engines(count, recovery="none")
        added.extend(ids)
        for _ in ids:
            assert joined.acquire(timeout=TIMEOUT_S)
        return ids

    yield add
    # Not through the client, which may not have heard yet of one that has just been ended.
    rc.session.transport.controller.stop_engines(added)


@pytest.fixture
def end_engine(rc: Client) -> Callable[[int], None]:
    """Ends an engine and returns when the client knows."""

    def end(engine_id: int) -> None:
        gone = threading.Event()
        rc.on_leave(lambda left: gone.set() if left == engine_id else None)
        rc.shutdown(targets=engine_id)
        assert gone.wait(TIMEOUT_S)

    return end


@pytest.fixture
def told(rc: Client) -> Callable[[], None]:
    """Returns when engines have obeyed all that they were told before, such as to interrupt what they run."""

    def told() -> None:
        assert rc.memory().silent == ()  # a question is answered in its turn

    return told


@pytest.fixture
def victim(rc: Client, add_engines: Callable[[int], list[int]]) -> DirectView:
    """One engine that may be ended."""
    view: DirectView = rc[add_engines(1)[0]]
    return view


def _from_main(source: str) -> SimpleNamespace:
    names: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    exec(textwrap.dedent(source), names)
    return SimpleNamespace(**names)


@pytest.fixture
def from_main() -> Callable[[str], SimpleNamespace]:
    """What source defines when it is typed at a prompt."""
    return _from_main
