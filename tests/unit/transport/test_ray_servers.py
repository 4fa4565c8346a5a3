"""The monitor of Ray's servers, on processes and sockets of the test's own."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

from nsactors.testing import TIMEOUT_S
from nsactors.transport.ray.servers import (
    OLD_AFTER_S,
    ServerDeath,
    ServerMonitor,
    ServerProcess,
    ServerSocket,
    take_death_reports,
)

Child = subprocess.Popen[bytes]


@pytest.fixture
def child() -> Iterator[Child]:
    """A process that lives until its stdin is closed or it is killed."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield child
        child.kill()


@pytest.fixture
def pause_s(monkeypatch: pytest.MonkeyPatch) -> float:
    """A shorter pause before a new connection."""
    monkeypatch.setattr("nsactors.transport.ray.servers.PAUSE_S", 0.05)
    return 0.05


@pytest.fixture
def deaths() -> SimpleQueue[ServerDeath]:
    return SimpleQueue()


def test_a_killed_server_is_told_with_what_killed_it(child: Child, deaths: SimpleQueue[ServerDeath]) -> None:
    monitor = ServerMonitor([ServerProcess("Ray's raylet", child.pid, child)], deaths.put)
    child.kill()
    told = deaths.get(timeout=TIMEOUT_S)
    assert told == ServerDeath(f"Ray's raylet (process {child.pid})", "was killed by SIGKILL", holds_store=True)
    monitor.stop()


def test_a_server_that_ended_for_want_of_its_agent_says_so(
    child: Child, deaths: SimpleQueue[ServerDeath], tmp_path: Path
) -> None:
    line = "The raylet exited immediately because one Ray agent failed, agent_name = runtime_env_agent."
    (tmp_path / "raylet.out").write_text(line)
    monitor = ServerMonitor([ServerProcess("Ray's raylet", child.pid, logs=str(tmp_path))], deaths.put)
    child.send_signal(signal.SIGTERM)
    assert deaths.get(timeout=TIMEOUT_S).reason == "ended because its runtime env agent had died"
    monitor.stop()


def test_what_dies_after_the_monitor_was_stopped_was_meant_to(child: Child, deaths: SimpleQueue[ServerDeath]) -> None:
    ServerMonitor([ServerProcess("Ray's GCS", child.pid, child)], deaths.put).stop()
    child.kill()
    child.wait()
    with pytest.raises(Empty):
        deaths.get_nowait()


@pytest.mark.usefixtures("pause_s")
def test_a_server_that_closes_silent_connections_lives(deaths: SimpleQueue[ServerDeath]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIMEOUT_S)
        monitor = ServerMonitor([ServerSocket("Ray's GCS", *server.getsockname())], deaths.put)
        for _ in range(3):
            server.accept()[0].close()
        last, _ = server.accept()  # it has come back each time
    with last:
        assert deaths.empty()
    told = deaths.get(timeout=TIMEOUT_S)
    assert (told.reason, told.holds_store) == ("has died", False)
    monitor.stop()


def test_a_server_that_closes_at_once_is_connected_to_after_a_pause(pause_s: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIMEOUT_S)
        watched = ServerSocket("Ray's GCS", *server.getsockname())
        began = time.monotonic()
        for _ in range(3):
            server.accept()[0].close()
            assert watched.death() is None
        assert time.monotonic() - began >= 3 * pause_s
        watched.close()


def test_a_monitor_without_servers_ends_when_it_is_stopped(deaths: SimpleQueue[ServerDeath]) -> None:
    monitor = ServerMonitor([], deaths.put)
    monitor.stop()
    monitor.stop()


# The watchdog, over a process that ends as Ray would end it.


# Writes what Ray writes into a driver's log, if it is to, and ends at once.
PROGRAM = """
import os, sys
from pathlib import Path
from nsactors.transport.ray.servers import Watchdog
logs, folder, how = sys.argv[1:]
watchdog = Watchdog(4711, logs, Path(folder))
if how != "killed":
    Path(logs, f"python-core-driver-01ff_{os.getpid()}.log").write_text(
        "W connection.cc:216: The connection to the plasma store is failed. Terminate the process. Status: IOError"
    )
if how == "told":
    watchdog.stop()
print(os.getpid(), flush=True)
os._exit(1)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ended"


def run(tmp_path: Path, folder: Path, how: str) -> tuple[int, str]:
    """Run the program; its process id, and what was said of its end."""
    logs = tmp_path / "logs"
    logs.mkdir()
    done = subprocess.run(  # waits for the watchdog, too, which holds stderr
        [sys.executable, "-c", PROGRAM, str(logs), str(folder), how], capture_output=True, text=True, check=False
    )
    return int(done.stdout), done.stderr


def test_a_process_that_ray_has_ended_is_told_and_told_again_to_the_next_client(tmp_path: Path, folder: Path) -> None:
    pid, said = run(tmp_path, folder, "ended")
    assert said.startswith(f"nsactors: Ray's raylet (process 4711) has died, and Ray has ended this process ({pid})")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert take_death_reports(folder) == [said.strip()]
    assert take_death_reports(folder) == []


@pytest.mark.parametrize("how", ["killed", "told"])
def test_nothing_is_said_of_a_process_that_ended_otherwise(tmp_path: Path, folder: Path, how: str) -> None:
    _, said = run(tmp_path, folder, how)
    assert said == ""
    assert take_death_reports(folder) == []


def test_what_is_old_is_dropped(folder: Path) -> None:
    import os
    import time

    folder.mkdir(parents=True)
    (folder / "1.txt").write_text("nsactors: long ago\n")
    past = time.time() - OLD_AFTER_S - 1
    os.utime(folder / "1.txt", (past, past))
    assert take_death_reports(folder) == []
    assert list(folder.iterdir()) == []
