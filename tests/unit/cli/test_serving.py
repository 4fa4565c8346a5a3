"""The process that owns a cluster: what ends it, what it leaves, and what it answers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nsactors.cli import serving
from nsactors.cli.serving import STOPPED, Idleness, ServeOptions, serve
from nsactors.errors import ClusterStopped
from nsactors.system.processes import MARK, marked_processes
from nsactors.testing import TIMEOUT_S
from nsactors.transport.base import ConnectionInfo
from nsactors.transport.registry import ClusterRecord, Registry

Serve = Callable[..., bool]

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def nothing() -> None:
    pass


def a_lost_signal() -> None:
    """One that comes while Python drops what its handler raises, as in a callback of an import."""
    try:
        signal.raise_signal(signal.SIGTERM)
        for _ in range(10):  # the handler runs between two instructions
            pass
    except BaseException:
        return


def a_signal_in_a_call_of_rays() -> None:
    """Which makes an error of its own of what the handler raises."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException as error:
        raise SystemError("check_signals") from error


def gone() -> None:
    raise ClusterStopped


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A list of its own, and this process as it was afterwards."""
    monkeypatch.setenv(MARK, "")
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    yield Registry(tmp_path)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def reports() -> list[str]:
    """The names of the clusters that were reported as running."""
    return []


@pytest.fixture
def serve_a_cluster(registry: Registry, reports: list[str], monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Serves a cluster that consists of what happens when it starts, and when it is asked for its clients."""
    monkeypatch.setattr(serving, "LOOK_S", 0.0)

    def report(record: ClusterRecord, engines: int) -> None:
        reports.append(record.name)
        Path(record.log).write_text("written")

    def run(
        *,
        starting: Callable[[], None] = nothing,
        running: Callable[[], None] = nothing,
        stopping: Callable[[float | None, Callable[[str], object]], None] = lambda grace, report: None,
        **options: Any,
    ) -> bool:
        monkeypatch.setattr(serving, "_on_ray", lambda options: _Cluster(starting, running, stopping))
        return serve(ServeOptions(name="lab", **options), report, registry)

    return run


class _Cluster:
    def __init__(
        self,
        starting: Callable[[], None],
        running: Callable[[], None],
        stopping: Callable[[float | None, Callable[[str], object]], None],
    ) -> None:
        self._starting = starting
        self._running = running
        self._stopping = stopping
        controller = SimpleNamespace(clients=self._clients, running=dict)
        self.session = SimpleNamespace(controller=controller)

    def start_and_connect_sync(self) -> _Cluster:
        self._starting()
        return self

    def connection_info(self) -> ConnectionInfo:
        return ConnectionInfo("127.0.0.1:1", "nsactors-1")

    def close(self) -> None:
        pass

    def stop_cluster_sync(self, *, grace: float | None, report: Callable[[str], object]) -> None:
        self._stopping(grace, report)

    def __len__(self) -> int:
        return 1

    def _clients(self) -> list[str]:
        self._running()
        return []


def files(registry: Registry) -> list[str]:
    return sorted(path.name for path in registry.folder.iterdir())


@pytest.mark.parametrize("number", _SIGNALS)
def test_a_signal_while_it_starts_ends_it_before_it_is_told_to_run(
    serve_a_cluster: Serve, registry: Registry, reports: list[str], number: int
) -> None:
    assert not serve_a_cluster(starting=lambda: signal.raise_signal(number))
    assert (reports, files(registry)) == ([], [])


@pytest.mark.parametrize("starting", [a_lost_signal, a_signal_in_a_call_of_rays])
def test_a_signal_that_is_lost_on_its_way_while_it_starts_ends_it_all_the_same(
    serve_a_cluster: Serve, registry: Registry, reports: list[str], starting: Callable[[], None]
) -> None:
    assert not serve_a_cluster(starting=starting)
    assert (reports, files(registry)) == ([], [])


@pytest.mark.parametrize("running", [a_lost_signal, a_signal_in_a_call_of_rays])
def test_a_signal_that_is_lost_on_its_way_while_it_runs_ends_it_all_the_same(
    serve_a_cluster: Serve, registry: Registry, reports: list[str], running: Callable[[], None]
) -> None:
    assert serve_a_cluster(running=running)
    assert (reports, files(registry)) == (["lab"], [])


def test_one_that_nobody_uses_leaves_no_log(serve_a_cluster: Serve, registry: Registry) -> None:
    assert serve_a_cluster(idle_shutdown_min=1e-9)
    assert files(registry) == []


def test_engines_that_had_to_be_killed_are_in_the_log_that_stays(
    serve_a_cluster: Serve, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    notice = "nsactors: engine 0 did not end within 5 s and was killed; it ran execute"
    assert serve_a_cluster(idle_shutdown_min=1e-9, stopping=lambda grace, report: report(notice))
    assert (files(registry), capsys.readouterr().err) == (["lab.log"], notice + "\n")


def test_who_ends_it_may_say_how_long_its_engines_have(serve_a_cluster: Serve, registry: Registry) -> None:
    graces = []

    def ended_by_a_command() -> None:
        registry.update(replace(registry.find("lab"), stop_grace_s=1.5))
        signal.raise_signal(signal.SIGINT)

    assert serve_a_cluster(running=ended_by_a_command, stopping=lambda grace, report: graces.append(grace))
    assert graces == [1.5]


def test_another_ctrl_c_skips_the_wait_for_engines(
    serve_a_cluster: Serve, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    def wait_for_engines(grace: float | None, report: Callable[[str], object]) -> None:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the wait has gone on")

    assert serve_a_cluster(running=lambda: signal.raise_signal(signal.SIGINT), stopping=wait_for_engines)
    assert files(registry) == ["lab.log"]
    assert capsys.readouterr().err == "nsactors: engines that had not ended were killed\n"


def test_one_that_has_died_leaves_its_log(serve_a_cluster: Serve, registry: Registry) -> None:
    assert serve_a_cluster(running=gone)
    assert files(registry) == ["lab.log"]


@pytest.mark.parametrize(
    ("serves", "error"),
    [
        ("report(record, 2)", "/no/such/folder/lab.log: No such file or directory"),
        ("return False", STOPPED),
        ("raise OSError(28, 'No space left on device', 'lab.json')", "lab.json: No space left on device"),
    ],
)
def test_it_answers_once_what_came_of_it(serves: str, error: str) -> None:
    program = f"""
from types import SimpleNamespace
from nsactors.cli import serving
record = SimpleNamespace(name="lab", log="/no/such/folder/lab.log")
def serve(options, report, registry):
    {serves}
serving.serve = serve
serving.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], input="{}", capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert json.loads(done.stdout) == {"error": error}
    assert (done.returncode, done.stderr) == (1, "")


def test_what_breaks_off_a_start_leaves_nothing_of_it(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ctrl-C does; here it is an answer that cannot be read, from a process that stays and heeds no signal."""
    state = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    server = tmp_path / "server"
    server.write_text(f"""#!{sys.executable}
import os, signal, subprocess, sys
from nsactors.system.processes import MARK
from nsactors.transport.registry import Registry
signal.signal(signal.SIGTERM, signal.SIG_IGN)
mark = Registry().reserve("lab").mark
subprocess.Popen(["sleep", "60"], env={{**os.environ, MARK: mark}}, stdout=subprocess.DEVNULL)
print(mark, flush=True)
os.close(1)
signal.pause()
""")
    server.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(server))
    with pytest.raises(json.JSONDecodeError) as broken:
        serving.start_in_background(ServeOptions())
    assert marked_processes(broken.value.doc.strip()) == []
    assert files(Registry()) == []


# A cluster ends by itself when nobody has used it for long enough, and not before.


LIMIT_S = 60.0
NOTHING = {"clients": 0, "running": 0, "completed": 0}


def test_it_is_over_when_nothing_has_happened_for_the_limit() -> None:
    idleness = Idleness(LIMIT_S, at=0)
    assert not idleness.is_over(**NOTHING, at=59)
    assert idleness.is_over(**NOTHING, at=60)


@pytest.mark.parametrize("use", [{"clients": 1}, {"running": 1}, {"completed": 1}])
def test_whoever_uses_it_begins_the_limit_anew(use: dict[str, int]) -> None:
    idleness = Idleness(LIMIT_S, at=0)
    assert not idleness.is_over(**{**NOTHING, **use}, at=100)
    after = {**NOTHING, "completed": use.get("completed", 0)}
    assert not idleness.is_over(**after, at=159)
    assert idleness.is_over(**after, at=160)


def test_work_that_came_and_went_between_two_looks_counts() -> None:
    idleness = Idleness(LIMIT_S, at=0)
    idleness.is_over(**NOTHING, at=50)
    assert not idleness.is_over(clients=0, running=0, completed=3, at=70)
