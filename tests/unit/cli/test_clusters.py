"""Clusters that cannot be ended from here: what is said, and how they are taken off the list."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nsactors.cli import main
from nsactors.system.processes import ProcessIdentity
from nsactors.transport.base import ConnectionInfo
from nsactors.transport.registry import Registry

Type = Callable[..., Result]

ELSEWHERE = replace(ProcessIdentity.of(os.getpid()), host="gone-1", boot="another", pid=1)
IN_A_CONTAINER = replace(ProcessIdentity.of(os.getpid()), pid_namespace="pid:[1]")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Type:
    """Types a command, with a list of clusters of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return lambda *words: CliRunner().invoke(main, words)


@pytest.fixture
def registry(command: Type) -> Registry:
    return Registry()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is asked to end, also where those that start it are not."""
    program = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def names(registry: Registry) -> list[str]:
    return [record.name for record in registry.records()]


@pytest.mark.parametrize(("owner", "where"), [(ELSEWHERE, "on gone-1"), (IN_A_CONTAINER, "in a container")])
def test_a_cluster_of_another_machine_is_ended_there_or_forgotten(
    command: Type, registry: Registry, owner: ProcessIdentity, where: str
) -> None:
    registry.reserve("lab", owner=owner)
    done = command("stop", "lab")
    assert done.exit_code == 1
    assert f"'lab' was started {where}" in done.stderr
    assert "`nsactors stop --forget lab` removes it from the list" in done.stderr
    assert names(registry) == ["lab"]


@pytest.mark.parametrize("stop_with", [("false", "7"), ("/no/such/scancel", "7")])
def test_a_job_that_cannot_be_ended_is_told_with_its_command(
    command: Type, registry: Registry, stop_with: tuple[str, ...]
) -> None:
    registry.reserve("job", owner=ELSEWHERE, stop_with=stop_with)
    done = command("stop", "job")
    assert done.exit_code == 1
    assert f"`{' '.join(stop_with)}` has failed" in done.stderr
    assert "`nsactors stop --forget job`" in done.stderr


def test_one_that_is_forgotten_is_off_the_list_and_its_log_stays(command: Type, registry: Registry) -> None:
    registry.reserve("lab", owner=ELSEWHERE)
    registry.log_path("lab").write_text("why")
    done = command("stop", "--forget", "lab")
    assert (done.exit_code, done.output) == (0, "The cluster 'lab' is off the list; nothing has been ended.\n")
    assert names(registry) == []
    assert command("logs", "lab").output == "why\n"


def test_a_log_in_a_pipe_has_no_codes_of_terminals(command: Type, registry: Registry) -> None:
    registry.reserve("lab", owner=ELSEWHERE)
    registry.log_path("lab").write_text("\x1b[31mred\x1b[0m\n 1%\r99%\n\x1b]0;title\x07\x1b[2Jclear\x08\n")
    assert command("stop", "--forget", "lab").exit_code == 0
    assert command("logs", "lab").output == "red\n99%\nclear\\x08\n"


def test_one_that_lives_here_is_not_forgotten(
    command: Type, registry: Registry, sleeper: subprocess.Popen[bytes]
) -> None:
    registry.reserve("lab", owner=ProcessIdentity.of(sleeper.pid))
    done = command("stop", "--forget", "lab")
    assert done.exit_code == 1
    assert "`nsactors stop lab` ends it" in done.stderr
    assert names(registry) == ["lab"]
    assert sleeper.poll() is None


def test_clusters_are_forgotten_one_by_one(command: Type) -> None:
    assert command("stop", "--forget", "--all").exit_code == 2


def test_all_are_ended_though_some_cannot_be_and_that_is_told_at_the_end(
    command: Type, registry: Registry, sleeper: subprocess.Popen[bytes]
) -> None:
    registry.reserve("a", owner=ELSEWHERE)
    registry.reserve("b", owner=ELSEWHERE, stop_with=("false",))
    registry.reserve("c", owner=ProcessIdentity.of(sleeper.pid))
    done = command("stop", "--all")
    assert done.exit_code == 1
    assert done.stdout == "The cluster 'c' has ended.\n"
    assert [line.split("'")[1] for line in done.stderr.splitlines()] == ["a", "b"]
    assert names(registry) == ["a", "b"]


def test_the_log_of_a_job_is_where_the_job_says_and_afterwards_in_its_folder(
    command: Type, registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "job.log").write_text("it runs\n")
    record = registry.reserve("job", owner=ELSEWHERE, log=str(tmp_path / "job.log"))
    assert command("logs", "job").output == "it runs\n"
    registry.remove(record)
    folder = tmp_path / "nsactors" / "jobs" / "job"
    folder.mkdir(parents=True)
    (folder / "job.log").write_text("it has ended\n")
    assert command("logs", "job").output == "it has ended\n"


def test_one_in_the_foreground_keeps_no_log(command: Type, registry: Registry) -> None:
    registry.reserve("lab", connection=ConnectionInfo("127.0.0.1:1", "nsactors-1"))
    done = command("logs", "lab")
    assert done.exit_code == 1
    assert "it runs at a terminal" in done.stderr


def test_a_name_that_is_taken_elsewhere_can_be_freed(command: Type, registry: Registry) -> None:
    registry.reserve("lab", owner=ELSEWHERE)
    done = command("launch", "slurm", "--name", "lab")
    assert done.exit_code == 1
    assert "started on gone-1" in done.stderr
    assert "`nsactors stop --forget lab`" in done.stderr


def test_engines_that_had_to_be_killed_are_named_and_nothing_is_left(
    command: Type, registry: Registry, sleeper: subprocess.Popen[bytes]
) -> None:
    registry.reserve("lab", owner=ProcessIdentity.of(sleeper.pid))
    notice = "nsactors: engine 0 did not end within 2 s and was killed; it ran execute"
    registry.log_path("lab").write_text(f"something else\n{notice}\n")  # as the owner leaves it
    done = command("stop", "lab", "--grace", "2")
    assert (done.stdout, done.stderr) == ("The cluster 'lab' has ended.\n", f"{notice}\n")
    assert list(registry.folder.iterdir()) == []


def test_how_long_engines_have_is_written_down_for_the_owner_before_it_is_asked(
    command: Type, registry: Registry, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = registry.reserve("lab", owner=ProcessIdentity.of(sleeper.pid))
    kill, seen = os.kill, []

    def look_and_kill(pid: int, number: int) -> None:
        if number == signal.SIGINT:
            seen.append(registry.again(record).stop_grace_s)
        kill(pid, number)

    monkeypatch.setattr(os, "kill", look_and_kill)
    assert command("stop", "lab", "--grace", "2").exit_code == 0
    assert seen == [2.0]
