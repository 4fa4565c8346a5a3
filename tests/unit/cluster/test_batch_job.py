"""A batch job that is about to end saves what there is, at once."""

from __future__ import annotations

import os
import signal
import stat
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nsactors.cluster import batch_job
from nsactors.cluster.batch_job import (
    END_EARLY_S,
    JobPlan,
    _Saving,
    orderly_end,
    restore_state,
    run_job,
    save_state,
    seconds_left,
)
from nsactors.errors import NoEngines
from nsactors.membership.members import EnginesWanted, Membership
from nsactors.membership.store import SqliteStore
from nsactors.protocol.engine_info import EngineOptions
from nsactors.recovery.journal import SegmentHeader
from nsactors.recovery.storage import JournalFile, read_journal, saved_at
from nsactors.system.processes import MARK
from nsactors.transport.base import ConnectionInfo
from nsactors.transport.registry import Registry


class Engines:
    """Stands in for a client, its view of all engines, and the snapshots that they take."""

    def __init__(self) -> None:
        self.mark_retrieved = 0
        self.are_done = False

    def __getitem__(self, targets: slice) -> Engines:
        return self

    def snapshot(self, *, block: bool) -> Engines:
        assert not block
        self.mark_retrieved += 1
        return self

    def done(self) -> bool:
        return self.are_done


class Copies:
    """Counts the copies that are made of the cluster's state."""

    def __init__(self) -> None:
        self.count = 0
        self.works = True

    def __call__(self) -> bool:
        self.count += 1
        return self.works


@pytest.fixture
def copies() -> Copies:
    return Copies()


@pytest.fixture
def saving(copies: Copies, tmp_path: Path) -> _Saving:
    return _Saving(copies, tmp_path / "state")


def test_what_is_there_is_copied_before_a_busy_engine_is_asked_for_a_snapshot(
    saving: _Saving, copies: Copies, capsys: pytest.CaptureFixture[str]
) -> None:
    engines: Any = Engines()
    saving.begin()
    assert (engines.mark_retrieved, copies.count) == (0, 1)
    assert not saving.look(engines), "and nothing waits for it"
    assert engines.mark_retrieved == 1
    assert "are saved in" in capsys.readouterr().out


def test_the_journals_are_shorter_once_when_the_snapshots_are_there(saving: _Saving) -> None:
    engines: Any = Engines()
    saving.begin()
    engines.are_done = True
    assert [saving.look(engines) for _ in range(2)] == [True, False]


def test_an_engine_that_stays_busy_keeps_the_snapshots_of_the_others_from_nothing(
    saving: _Saving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_job, "SNAPSHOT_S", -1.0)
    engines: Any = Engines()
    saving.begin()
    assert saving.look(engines)


def test_engines_that_keep_no_journals_are_asked_for_nothing(saving: _Saving, copies: Copies) -> None:
    copies.works = False
    engines: Any = Engines()
    saving.begin()
    assert not saving.look(engines)
    assert engines.mark_retrieved == 0


def test_a_job_without_engines_has_its_members_saved(
    saving: _Saving, copies: Copies, capsys: pytest.CaptureFixture[str]
) -> None:
    class NoOne(Engines):
        def snapshot(self, *, block: bool) -> Engines:
            raise NoEngines

    engines: Any = NoOne()
    saving.begin()
    assert not saving.look(engines)
    assert copies.count == 1
    assert "without snapshots" in capsys.readouterr().err


@pytest.mark.parametrize(("left_s", "end"), [(120.0, 1000.0 + 120.0 - END_EARLY_S), (3.0, 1000.0), (None, None)])
def test_a_job_ends_in_order_before_its_limit(left_s: float | None, end: float | None) -> None:
    assert orderly_end(left_s, 1000.0) == end


@pytest.mark.parametrize(
    ("number", "warning_s", "left_s"),
    [(signal.SIGUSR1, 120.0, 120.0), (signal.SIGUSR2, 120.0, 60.0), (signal.SIGUSR1, 0.0, None)],
)
def test_a_warning_tells_how_long_there_is(number: int, warning_s: float, left_s: float | None) -> None:
    assert seconds_left(number, warning_s, {}) == left_s


@pytest.mark.parametrize("answer", ["", "NONE", "N/A"])
def test_a_job_of_slurm_without_a_limit_is_not_ended_by_a_warning(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _squeue(tmp_path, answer, monkeypatch)
    assert seconds_left(signal.SIGUSR1, 120.0, {"SLURM_JOB_ID": "7"}) is None
    assert "the job's time limit is not known" in capsys.readouterr().err


def test_slurm_is_asked_for_the_end_of_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _squeue(tmp_path, f"{datetime.now() + timedelta(seconds=300):%Y-%m-%dT%H:%M:%S}", monkeypatch)
    left_s = seconds_left(signal.SIGUSR1, 120.0, {"SLURM_JOB_ID": "7"})
    assert left_s is not None
    assert 120.0 < left_s <= 300.0


GRID_ENGINE = {"SGE_TASK_ID": "undefined", "QUEUE": "all.q", "HOSTNAME": "n1"}


@pytest.mark.parametrize(
    ("answer", "left_s"), [("notify                00:01:30", 90.0), ("notify INFINITY", 60.0), ("", 60.0)]
)
def test_the_queue_of_grid_engine_is_asked_how_long_there_is(
    answer: str, left_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _command("qconf", tmp_path, answer, monkeypatch)
    assert seconds_left(signal.SIGUSR2, 120.0, GRID_ENGINE) == left_s


def test_the_usual_time_is_taken_where_grid_engine_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no qconf
    assert seconds_left(signal.SIGUSR2, 120.0, GRID_ENGINE) == 60.0


def test_a_job_of_grid_engine_that_is_to_be_suspended_is_not_ended() -> None:
    assert seconds_left(signal.SIGUSR1, 120.0, GRID_ENGINE) is None


def _squeue(folder: Path, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _command("squeue", folder, answer, monkeypatch)


def _command(name: str, folder: Path, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / name).write_text(f"#!/bin/sh\necho '{answer}'\n")
    (folder / name).chmod(0o700)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


# What a cluster leaves for the next one, in files.


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """The folder of a cluster ``ab12`` with two engines: one on the head node, and one whose journal has a replica."""
    folder = tmp_path / "logs" / "nsactors-ab12"
    store = SqliteStore(os.fspath(folder / "controller"))
    members = Membership()
    members.handle(EnginesWanted(2, EngineOptions()))
    store.save(members)
    store.close()
    for name in ("engine-0.0.journal", "engine-1.3.kept"):
        JournalFile(os.fspath(folder / name)).append(SegmentHeader())
    (folder / "engine-0.0.out").write_text("what it printed")
    (folder / "sources").mkdir()
    (folder / "sources" / "0123").write_text("x = 1")
    return tmp_path / "logs"


def test_the_next_cluster_finds_members_and_journals_where_its_keeper_looks(logs: Path, tmp_path: Path) -> None:
    save_state(logs, tmp_path / "state")
    (tmp_path / "next").mkdir()
    assert restore_state(tmp_path / "state", tmp_path / "next") == "ab12"
    folder = tmp_path / "next" / "nsactors-ab12"
    assert {path.name for path in folder.iterdir()} == {
        "controller",
        "engine-0.0.kept",
        "engine-1.3.kept",
        "sources",
    }
    assert read_journal(os.fspath(folder / "engine-0.0.kept")) == read_journal(
        os.fspath(logs / "nsactors-ab12" / "engine-0.0.journal")
    )
    store = SqliteStore(os.fspath(folder / "controller"))
    assert sorted(store.load().members) == [0, 1]
    store.close()


def test_each_copy_says_when_it_was_saved_also_if_the_next_job_does_not_recover_its_engine(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((1e9, 2e9))
    monkeypatch.setattr(batch_job, "time", SimpleNamespace(time=clock.__next__))  # not that of threads of other tests
    save_state(logs, tmp_path / "state")
    (tmp_path / "next").mkdir()
    restore_state(tmp_path / "state", tmp_path / "next")
    folder = tmp_path / "next" / "nsactors-ab12"
    assert saved_at(os.fspath(folder / "engine-0.0.kept")) == 1e9
    JournalFile(os.fspath(folder / "engine-0.1.journal")).append(SegmentHeader())
    save_state(tmp_path / "next", tmp_path / "state")
    times = [saved_at(os.fspath(tmp_path / "state" / folder.name / f"engine-0.{n}.kept")) for n in (0, 1)]
    assert times == [1e9, 2e9]


def test_what_was_saved_before_gives_way_and_nothing_else_is_left(logs: Path, tmp_path: Path) -> None:
    for _ in range(2):
        save_state(logs, tmp_path / "state")
    assert {path.name for path in tmp_path.iterdir()} == {"logs", "state"}


def test_nobody_else_can_read_what_is_saved(logs: Path, tmp_path: Path) -> None:
    save_state(logs, tmp_path / "state")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_a_first_job_has_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert restore_state(tmp_path / "state", tmp_path) is None


def test_a_cluster_without_a_controller_cannot_be_saved(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    with pytest.raises(FileNotFoundError, match="no controller"):
        save_state(tmp_path / "logs", tmp_path / "state")


def test_a_copy_that_was_cut_off_costs_nothing_of_the_one_before(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(logs, tmp_path / "state")

    class Killed(BaseException):
        pass

    replace = os.replace

    def kill(source: Path, target: Path) -> None:
        raise Killed

    def kill_at_the_second(source: Path, target: Path) -> None:
        if target.name == "state":
            raise Killed
        replace(source, target)

    for step, stand_in in enumerate((kill, kill_at_the_second)):
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", stand_in)
            with pytest.raises(Killed):
                save_state(logs, tmp_path / "state")
        folder = tmp_path / f"next-{step}"
        folder.mkdir()
        assert restore_state(tmp_path / "state", folder) == "ab12"
        save_state(logs, tmp_path / "state")
        assert {path.name for path in tmp_path.glob("*state*")} == {"state"}


def test_a_disk_that_is_full_leaves_the_copy_before_and_nothing_else(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    save_state(logs, tmp_path / "state")

    def no_room(*paths: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copy2", no_room)
        with pytest.raises(OSError, match="No space"):
            save_state(logs, tmp_path / "state")
    assert {path.name for path in tmp_path.iterdir()} == {"logs", "state"}


def test_nothing_of_a_job_leads_to_its_cluster_when_ray_is_ended_which_may_end_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "job"
    JobPlan("lab", 1, 1).save(folder)
    seen: list[set[str]] = []

    def files() -> set[str]:
        return {path.name for path in (*folder.iterdir(), *Registry().folder.glob("*.json"))}

    class Node:
        """Stands in for Ray's processes of this machine."""

        address = "10.0.0.1:6379"

        def __enter__(self) -> Node:
            return self

        def __exit__(self, *failure: object) -> None:
            seen.append(files())

    class Job:
        """Stands in for the engines."""

        def __init__(self, *given: object) -> None:
            pass

        def run(self, publish: Callable[[ConnectionInfo], object]) -> int:
            publish(ConnectionInfo(Node.address, "nsactors-x"))
            seen.append(files())
            return 0

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv(MARK, "")
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    monkeypatch.setattr(batch_job, "_listen", lambda happened: None)
    monkeypatch.setattr(batch_job, "RayNode", lambda plan, ended: Node())
    monkeypatch.setattr(batch_job, "_Job", Job)
    assert run_job(folder) == 0
    while_it_ran, when_ray_ended = seen
    assert while_it_ran == {"job.json", "lab.json", "token", "node.json", "cluster"}
    assert when_ray_ended == {"job.json"}
