"""Clusters are found by name as long as their owners live, and only by their user."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from nsactors.errors import AccessRefused, ClusterNameTaken, ClusterNotFound, ClusterUnreachable, OutsideCluster
from nsactors.system.processes import MARK, ProcessIdentity
from nsactors.transport.base import ConnectionInfo
from nsactors.transport.registry import ClusterRecord, Registry, with_way_in

INFO = ConnectionInfo("127.0.0.1:1", "nsactors-1", {"RAY_AUTH_MODE": "token"}, {"python": "3.11.2"})


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "state" / "clusters")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is killed."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def test_a_cluster_is_found_by_its_name_with_all_that_was_written_down(registry: Registry) -> None:
    record = registry.reserve("lab", options={"recovery": "replay"}, stop_with=("scancel", "7"), origin="a job")
    record = replace(record, connection=INFO)
    registry.update(record)
    assert registry.find("lab") == record
    assert registry.find() == record


def test_only_its_user_can_read_what_is_written_down(registry: Registry) -> None:
    registry.reserve("lab")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (registry.folder, registry.folder / "lab.json")]
    assert modes == [0o700, 0o600]


def test_a_folder_that_others_can_read_is_closed(registry: Registry) -> None:
    registry.folder.mkdir(parents=True)
    registry.folder.chmod(0o755)
    registry.reserve("lab")
    assert stat.S_IMODE(registry.folder.stat().st_mode) == 0o700


def test_a_cluster_that_is_removed_leaves_no_file(registry: Registry) -> None:
    record = registry.reserve("lab")
    registry.log_path("lab").write_text("said")
    registry.remove(record)
    assert list(registry.folder.iterdir()) == []


def test_a_name_that_is_taken_is_refused(registry: Registry) -> None:
    registry.reserve("lab")
    with pytest.raises(ClusterNameTaken, match="nsactors stop lab"):
        registry.reserve("lab")


def test_a_name_that_is_taken_where_nobody_can_look_may_be_struck_off_the_list(registry: Registry) -> None:
    registry.reserve("lab", owner=replace(ProcessIdentity.of(os.getpid()), host="gone-1"))
    with pytest.raises(ClusterNameTaken, match=r"started on gone-1.*`nsactors stop --forget lab`"):
        registry.reserve("lab")


@pytest.mark.parametrize("name", ["", "../lab", "a/b", ".hidden", "a b", "x" * 64])
def test_what_cannot_be_a_file_is_no_name(registry: Registry, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        registry.reserve(name)


def test_without_a_name_the_first_free_number_is_taken(registry: Registry) -> None:
    first, second = registry.reserve(), registry.reserve()
    registry.remove(first)
    assert (first.name, second.name, registry.reserve().name) == ("cluster-1", "cluster-2", "cluster-1")


def test_many_that_start_at_once_get_names_of_their_own(registry: Registry) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = {record.name for record in pool.map(lambda _: registry.reserve(), range(24))}
    assert len(names) == 24
    assert len(registry.records()) == 24


def test_without_a_cluster_it_is_said_how_to_start_one(registry: Registry) -> None:
    with pytest.raises(ClusterNotFound, match="nsactors start`"):
        registry.find()
    with pytest.raises(ClusterNotFound, match="nsactors start --name lab"):
        registry.find("lab")


def test_with_several_clusters_one_has_to_be_named(registry: Registry) -> None:
    registry.reserve("one")
    registry.reserve("two")
    with pytest.raises(ClusterNotFound, match="'one', 'two'"):
        registry.find()
    with pytest.raises(ClusterNotFound, match="there are 'one' and 'two'"):
        registry.find("three")
    assert registry.find("two").name == "two"


def test_a_cluster_whose_owner_has_died_is_forgotten_and_its_log_stays(
    registry: Registry, sleeper: subprocess.Popen[bytes]
) -> None:
    registry.reserve("lab", owner=ProcessIdentity.of(sleeper.pid))
    registry.log_path("lab").write_text("why")
    assert len(registry.records()) == 1
    end(sleeper)
    assert registry.records() == []
    assert [path.name for path in registry.folder.iterdir()] == ["lab.log"]


def test_the_name_of_a_dead_cluster_is_free(registry: Registry, sleeper: subprocess.Popen[bytes]) -> None:
    dead = registry.reserve("lab", owner=ProcessIdentity.of(sleeper.pid))
    end(sleeper)
    assert registry.reserve("lab").mark != dead.mark


def test_what_a_dead_cluster_has_left_running_is_ended(registry: Registry, sleeper: subprocess.Popen[bytes]) -> None:
    dead = registry.reserve("lab", owner=ProcessIdentity.of(sleeper.pid))
    with subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: dead.mark}) as left:
        end(sleeper)
        assert registry.records() == []
        assert left.wait(30) == -9


def test_whoever_forgets_a_cluster_late_does_not_touch_the_next_one(registry: Registry) -> None:
    former = registry.reserve("lab")
    registry.remove(former)
    present = registry.reserve("lab")
    registry.remove(former)
    assert registry.find("lab") == present


def test_a_cluster_of_another_machine_counts_as_there(registry: Registry) -> None:
    away = replace(ProcessIdentity.of(os.getpid()), host="elsewhere", boot="other", pid=1)
    registry.reserve("lab", owner=away)
    assert registry.find("lab").owner.host == "elsewhere"


def test_a_file_that_somebody_else_may_have_written_is_passed_over(registry: Registry) -> None:
    registry.reserve("lab")
    (registry.folder / "lab.json").chmod(0o666)
    assert registry.records() == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "lab", "unheard_of": 1}', "\0"])
def test_a_file_with_something_else_in_it_is_passed_over(registry: Registry, text: str) -> None:
    registry.reserve("other")
    path = registry.folder / "lab.json"
    path.write_text(text)
    path.chmod(0o600)
    assert [record.name for record in registry.records()] == ["other"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to somebody else")
def test_a_folder_of_somebody_elses_is_refused(registry: Registry) -> None:
    registry.folder.mkdir(parents=True)
    os.chown(registry.folder, 12345, 12345)
    with pytest.raises(AccessRefused, match="another user"):
        registry.reserve("lab")


def test_the_folder_is_in_the_users_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert Registry().folder == tmp_path / "nsactors" / "clusters"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "ann"))
    assert Registry().folder == tmp_path / "ann" / ".local" / "state" / "nsactors" / "clusters"


def test_a_record_is_read_without_ray() -> None:
    program = "import sys, nsactors.transport.registry; print('ray' in sys.modules, 'numpy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False False\n"


def test_a_new_record_belongs_to_the_process_that_made_it(registry: Registry) -> None:
    record: ClusterRecord = registry.reserve()
    assert record.owner == ProcessIdentity.of(os.getpid())
    assert not record.owner.is_gone


ELSEWHERE = ClusterRecord("lab", replace(ProcessIdentity.of(os.getpid()), host="n1", boot="another"), INFO)
JOB = replace(ELSEWHERE, stop_with=("scancel", "7"), enter_with=("srun", "--jobid=7"))
CONSOLE = "`srun --jobid=7 nsactors console lab` opens a prompt on a machine of the cluster"


@pytest.mark.parametrize(
    ("record", "advice"),
    [
        (JOB, f": {CONSOLE}, and `nsactors launch join lab` lets this machine take part"),
        (
            replace(JOB, enter_with=()),
            ": `nsactors console lab` works on n1, and `nsactors launch join lab` lets this machine take part",
        ),
        (ELSEWHERE, ": `nsactors console lab` works on n1"),
        (replace(ELSEWHERE, connection=replace(INFO, address="10.0.0.2:1")), ""),  # it is another cluster
    ],
)
def test_who_is_on_no_machine_of_a_cluster_is_told_where_its_clients_run(record: ClusterRecord, advice: str) -> None:
    error = with_way_in(OutsideCluster(INFO.address), INFO, [record])
    assert str(error) == str(OutsideCluster(INFO.address)) + advice


def test_who_does_not_reach_a_batch_job_is_told_of_the_way_inside() -> None:
    error = ClusterUnreachable(INFO.address, "nothing listens there")
    assert f"nothing listens there. If it runs, {CONSOLE}" in str(with_way_in(error, INFO, [JOB]))
    assert with_way_in(error, INFO, [ELSEWHERE]) is error
