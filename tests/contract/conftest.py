"""Every test here runs on each transport, and is skipped only where one lacks a capability that the test ``needs``."""

from __future__ import annotations

import builtins
import math
import os
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nsactors import Client, Cluster, DirectView
from nsactors.protocol.messages import Capability
from nsactors.testing import TIMEOUT_S, Gate, open_gate

ENGINES = 4
PATIENCE_S = 10.0
FORKS_HERE = "NSACTORS_TESTS_FORK_HERE"
"""The variable that marks a process for tests that fork."""

# Values that the flags of tasks do not accept.
WRONG_SIZES: list[Any] = [0, -1, "2", 1.5]
WRONG_FLAGS: list[dict[str, Any]] = [
    {"priority": "x"},
    {"priority": math.nan},
    {"timeout": "5"},
    {"time_limit": "x"},
    {"retries": "x"},
]

_LACKING = pytest.StashKey[dict[str, dict[Capability, list[str]]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*capabilities): skipped on transports that lack one of them")
    config.addinivalue_line(
        "markers", "once: decided above the transports: asked of the local one, and of Ray with --full-size"
    )
    config.addinivalue_line(
        "markers",
        "sampled(*parameters): cases of a kind, decided above the transports. The local one is asked all of them; Ray"
        " the first and the last, or as many as have each value of these parameters once. --full-size asks all",
    )
    config.addinivalue_line(
        "markers",
        "forks: forks the process of the test; on Ray in a process of its own, which tests/cluster/test_forks starts",
    )
    config.addinivalue_line(
        "markers",
        "services(both_ways): calls services of the cluster. On Ray they are called by a socket, and by Ray's calls"
        " alone as well if both_ways is True, or with --full-size",
    )
    for marker in ("no_cover", "thread_unsafe"):
        config.addinivalue_line("markers", f"{marker}: of joblib's own tests, which some tests call")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out on Ray what forks elsewhere, and cases that are like others unless they are called by name."""
    on_ray = [item for item in items if isinstance(item, pytest.Function) and _transport_of(item) == "ray"]
    left_out: set[pytest.Item] = set()
    if FORKS_HERE not in os.environ:
        # A child shares what Ray's threads hold with its parent: one that had forked waited for ever in Ray's C++ code
        # when it started its next cluster, where no time limit reaches it.
        left_out.update(item for item in on_ray if item.get_closest_marker("forks") is not None)
    left_out.update(item for item in items if _services_of(item) == "calls" and _transport_of(item) == "local")
    if not config.getoption("--full-size") and not any("[" in argument for argument in config.args):
        left_out.update(
            item
            for item in on_ray
            if _services_of(item) == "calls"
            and not any(marker.kwargs.get("both_ways") for marker in item.iter_markers("services"))
        )
        kinds: dict[tuple[str, str], list[pytest.Function]] = {}
        left_out.update(item for item in on_ray if item.get_closest_marker("once") is not None)
        for item in on_ray:
            if item.get_closest_marker("sampled") is not None:
                kinds.setdefault((item.module.__name__, item.originalname), []).append(item)
        for cases in kinds.values():
            left_out.update(set(cases) - set(_sample(cases)))
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


def _transport_of(item: pytest.Function) -> str | None:
    """Return the transport that a test of the contract runs on."""
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("backend")


def _services_of(item: pytest.Item) -> str | None:
    """Return the way by which a test calls services; None if it calls none."""
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("services_by")


def _sample(cases: list[pytest.Function]) -> list[pytest.Function]:
    """Return the cases that stand for all of a test, as its mark says."""
    marker = cases[0].get_closest_marker("sampled")
    assert marker is not None
    if not marker.args:
        return [cases[0], cases[-1]]
    seen: set[tuple[str, str]] = set()
    chosen = []
    for case in cases:
        values = {(name, repr(case.callspec.params[name])) for name in marker.args}
        if values - seen:
            chosen.append(case)
            seen |= values
    return chosen


def _lacking(config: pytest.Config) -> dict[str, dict[Capability, list[str]]]:
    """For each transport that was used: what it lacks, and the tests that were skipped for it."""
    return config.stash.setdefault(_LACKING, {})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand that over to the process that reports, where several run the tests."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["lacking"] = {
            transport: {capability.name: tests for capability, tests in lacking.items()}
            for transport, lacking in _lacking(session.config).items()
        }


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collect it from a process that has run tests."""
    for transport, lacking in getattr(node, "workeroutput", {}).get("lacking", {}).items():
        known = _lacking(node.config).setdefault(transport, {})
        for name, tests in lacking.items():
            known.setdefault(Capability[name], []).extend(tests)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for transport, lacking in _lacking(config).items():
        terminalreporter.section(f"contract: what the {transport} transport lacks")
        for capability, tests in lacking.items():
            terminalreporter.line(f"{capability.name}: {capability.value}; {len(tests)} tests skipped")
            for test in tests:
                terminalreporter.line(f"    {test}")
        if not lacking:
            terminalreporter.line("nothing")


@pytest.hookimpl(tryfirst=True)  # its name is the first of each case
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat each test on every transport that there is."""
    transports: list[Any] = ["local"]
    if not metafunc.config.getoption("--without-ray"):
        transports.append(pytest.param("ray", marks=pytest.mark.ray))
    metafunc.parametrize("backend", transports, indirect=True, scope="session")
    if metafunc.definition.get_closest_marker("services") is not None:
        metafunc.parametrize("services_by", ["socket", "calls"], indirect=True)


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> str:
    """The transport that the test runs on."""
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def services_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way by which services that the test makes are called on Ray: by a socket, or by Ray's calls alone."""
    way: str = getattr(request, "param", "socket")
    if way == "calls":
        monkeypatch.setenv("NSACTORS_SOCKETS", "0")
    return way


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
def cleaner(cluster: Cluster) -> Iterator[Client]:
    """A client that empties namespaces between tests."""
    with cluster.connect_client_sync() as client:
        yield client


@pytest.fixture(scope="module")
def transport(cleaner: Client) -> Any:
    """The facts of the transport that tests may ask for: its name and its capabilities."""
    return cleaner.session.transport


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
    session = ("session.ABORT_WAIT_S", "session.EXPLAIN_WAIT_S", "other_clients.LEAVING_S")
    for wait in (*session, "memory.REPLY_WAIT_S"):
        monkeypatch.setattr(f"nsactors.session.{wait}", PATIENCE_S)
    for module in ("driver", "scheduler"):
        monkeypatch.setattr(f"nsactors.tasks.{module}.REPLY_S", PATIENCE_S)
    monkeypatch.setattr("nsactors.tasks.scheduler.STATUS_S", TIMEOUT_S)
    if backend == "ray":
        monkeypatch.setattr("nsactors.transport.ray.services.ANSWER_S", PATIENCE_S)


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
def rc(connect: Callable[..., Client], clients: list[Client], cleaner: Client) -> Iterator[Client]:
    """A client of its own for each test, of engines that nobody has used."""
    client = connect()
    assert client.ids == list(range(ENGINES)), "an earlier test has ended engines, or left some behind"
    yield client
    for one in clients:  # requests of several clients have no order: these might come after the namespaces are emptied
        if not one.session.closed:
            one.wait(timeout=TIMEOUT_S)
    assert cleaner.direct_view(list(range(ENGINES))).clear().wait(TIMEOUT_S), "an engine is still busy"


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
    rc.session.controller.stop_engines(added)


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
def no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """The history has all that there will be: clients ask it once."""
    monkeypatch.setattr("nsactors.client.find_requests.NEWS_S", 0.0)


@pytest.fixture
def nothing_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an engine that leaves not wait for requests of clients that do not know of it yet: the test sends none.

    The controller of a cluster on Ray is in a process of its own, and waits as usual.
    """
    monkeypatch.setattr("nsactors.controller.IDLE_S", 0.02)


@pytest.fixture
def told(rc: Client) -> Callable[[], None]:
    """A function that returns when engines have carried out all earlier commands, such as interrupts."""

    def told() -> None:
        assert rc.memory().silent == ()  # a query is answered after earlier commands

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
    """Return the objects that source code defines when it is typed at a prompt."""
    return _from_main
