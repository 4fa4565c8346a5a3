from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from nsactors.errors import ProcessLimit
from nsactors.system.resources import available_cores, check_processes, store_bytes, thread_environment


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("9999999 100000", 8)],
)
def test_the_limit_of_a_control_group_counts(tmp_path: Path, limit: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert available_cores(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("300000", 3)])
def test_the_limit_of_an_old_control_group_counts(tmp_path: Path, quota: str, cores: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert available_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({"/jobs/step": "300000 100000"}, 3),
        ({"/jobs": "200000 100000", "/jobs/step": "300000 100000"}, 2),
        ({"/jobs": "200000 100000", "/jobs/step": "max 100000"}, 2),
        ({"": "400000 100000", "/jobs/step": "max 100000"}, 4),
        ({"/jobs/another": "100000 100000"}, 8),
    ],
)
def test_the_quotas_of_ones_own_nested_group_and_of_those_around_it_count(
    tmp_path: Path, quotas: dict[str, str], cores: int
) -> None:
    (tmp_path / "membership").write_text("0::/jobs/step\n")
    for group, quota in quotas.items():
        folder = tmp_path / "cgroup" / group.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(f"{quota}\n")
    assert available_cores(tmp_path / "cgroup", tmp_path / "membership") == cores


@pytest.mark.parametrize("mounted", ["cpu", "cpu,cpuacct"])
def test_the_quotas_of_ones_own_old_nested_group_and_of_those_around_it_count(tmp_path: Path, mounted: str) -> None:
    (tmp_path / "membership").write_text("3:cpuset:/\n2:cpu,cpuacct:/slurm/job_7\n1:name=systemd:/user\n0::/\n")
    for group, quota in {"": -1, "slurm": 500_000, "slurm/job_7": 300_000, "user": 100_000}.items():
        folder = tmp_path / mounted / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cores(tmp_path, tmp_path / "membership") == 3


def test_a_group_whose_path_is_the_hosts_has_the_quota_of_what_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "membership").write_text("0::/../docker/4a7f\n")
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    assert available_cores(tmp_path, tmp_path / "membership") == 2


def test_without_a_control_group_the_cores_that_this_process_may_run_on_count(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == 8


@pytest.mark.parametrize(("cores", "engines", "threads"), [(8, 2, "4"), (8, 3, "2"), (2, 4, "1"), (4, 0, "4")])
def test_each_engine_gets_its_share_of_the_cores(cores: int, engines: int, threads: str) -> None:
    assert thread_environment(cores, engines, {})["OMP_NUM_THREADS"] == threads


def test_what_the_user_has_set_is_passed_on() -> None:
    environment = thread_environment(8, 2, {"OMP_NUM_THREADS": "7", "HOME": "/home/ann"})
    assert (environment["OMP_NUM_THREADS"], environment["OPENBLAS_NUM_THREADS"]) == ("7", "4")
    assert "HOME" not in environment


def test_the_size_of_the_object_store_may_be_text() -> None:
    assert store_bytes("2GB", None) == 2_000_000_000
    assert store_bytes(None, "host:6379") is None


@pytest.mark.parametrize(
    ("amount", "address", "message"),
    [
        ("much", None, "no amount of memory"),
        ("10MB", None, "at least 79 MB"),
        ("2GB", "host:6379", "the Ray cluster at host:6379 has its object store"),
    ],
)
def test_an_object_store_that_cannot_be_is_refused(amount: str, address: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        store_bytes(amount, address)


@pytest.fixture
def processes(tmp_path: Path) -> Path:
    """A folder like /proc: two processes of this user, with five threads together."""
    for pid, threads in ((7, 2), (8, 3)):
        for thread in range(threads):
            (tmp_path / str(pid) / "task" / str(pid + thread)).mkdir(parents=True)
    (tmp_path / "self").mkdir()
    return tmp_path


@pytest.mark.parametrize("limit", [15, 1000, 200_000, resource.RLIM_INFINITY])
def test_who_may_start_enough_processes_is_not_refused(
    limit: int, processes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    check_processes(10, processes)


def test_who_may_not_start_enough_processes_is_told_the_limit_and_how_many_run(
    processes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (14, 14))
    with pytest.raises(ProcessLimit, match=r"at least 10 .* may have 14 .*, of which 5 run"):
        check_processes(10, processes)
    monkeypatch.setattr(os, "geteuid", lambda: 0)  # for whom there is no limit
    check_processes(10, processes)
