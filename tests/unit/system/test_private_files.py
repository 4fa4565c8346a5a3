"""What is written is for one's own eyes, and what others may have written is not read."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from nsactors.cluster.batch_job import JobPlan
from nsactors.errors import AccessRefused, ClusterUnreachable, FolderTooLong
from nsactors.system import private_files
from nsactors.system.private_files import (
    PrivateFolder,
    from_fields,
    is_private_token,
    parent_folder,
    private_folder_at,
    read_private,
    write_private,
)
from nsactors.system.processes import ProcessIdentity
from nsactors.transport.base import ConnectionInfo
from nsactors.transport.ray.node_process import NodePlan
from nsactors.transport.registry import ClusterRecord, Registry


def test_a_file_and_its_folder_are_for_their_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_private(path, "text")
    assert [stat.S_IMODE(p.stat().st_mode) for p in (path.parent, path)] == [0o700, 0o600]
    assert read_private(path) == "text"


def test_a_file_that_cannot_be_written_leaves_nothing_and_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(written: str, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nsactors.system.private_files.os.replace", full)
    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path / 'file'}'"):
        write_private(tmp_path / "file", "text")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    with pytest.raises(AccessRefused, match="others can write"):
        read_private(path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to somebody else, and take an id of theirs")
def test_a_file_of_somebody_elses_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(0o600)
    os.chown(path, 12345, 12345)
    with pytest.raises(AccessRefused, match="another user"):
        read_private(path)


@pytest.mark.parametrize("text", ["", "[1]", '{"address": "a"}', '{"address": "a", "namespace": "b", "more": 1}'])
def test_a_connection_file_with_something_else_in_it_says_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cluster.json"
    write_private(path, text)
    with pytest.raises(ClusterUnreachable, match="has not written this file"):
        ConnectionInfo.load(path)


def test_a_connection_survives_its_file(tmp_path: Path) -> None:
    info = ConnectionInfo("127.0.0.1:6379", "nsactors-1", {"RAY_AUTH_MODE": "token"}, {"python": "3.11.2"})
    info.save(tmp_path / "cluster.json")
    assert ConnectionInfo.load(tmp_path / "cluster.json") == info


def test_folders_on_the_way_are_private_too_and_those_that_exist_stay_as_they_are(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir(mode=0o755)
    before = os.umask(0o022)
    try:
        write_private(there / "state" / "clusters" / "lab.json", "{}")
        private_folder_at(there / "other" / "clusters")
    finally:
        os.umask(before)
    modes = {str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*/")}
    folders = {name: mode for name, mode in modes.items() if not name.endswith(".json")}
    assert folders.pop("there") == 0o755
    assert folders == dict.fromkeys(
        ("there/state", "there/state/clusters", "there/other", "there/other/clusters"), 0o700
    )


# Folders of processes that were killed are removed, and nobody else's.


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(private_files, "SOCKET_LIMIT", 1_000)
    monkeypatch.setattr(private_files, "SHORT_FOLDERS", ())
    return tmp_path


@pytest.fixture
def folder() -> Iterator[PrivateFolder]:
    folder = PrivateFolder()
    yield folder
    folder.remove()


@pytest.fixture
def ended() -> int:
    """The id of a process that there is not."""
    with subprocess.Popen(["true"]) as process:
        return process.pid


def left_by(parent: Path, pid: int, token: str = "secret") -> Path:
    folder = parent / f"nsa-{pid}-abc"
    folder.mkdir()
    (folder / "token").write_text(token)
    return folder


def test_only_its_owner_can_read_it(folder: PrivateFolder) -> None:
    assert [stat.S_IMODE(os.stat(path).st_mode) for path in (folder.path, folder.token_path)] == [0o700, 0o600]
    assert len(Path(folder.token_path).read_text()) == 64


def test_where_the_usual_path_is_too_long_for_sockets_a_short_one_is_taken_and_swept(
    parent: Path, ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = parent / "s"
    short.mkdir()
    left = left_by(short, ended)
    monkeypatch.setattr(private_files, "SOCKET_LIMIT", private_files.SOCKET_TAIL + len(str(short)))
    monkeypatch.setattr(private_files, "SHORT_FOLDERS", (str(parent / "gone"), str(short)))
    usual = parent / "much longer"
    usual.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(usual))
    folder = PrivateFolder()
    assert Path(folder.path).parent == short
    assert stat.S_IMODE(os.stat(folder.path).st_mode) == 0o700
    folder.remove()
    assert not left.exists()
    assert list(usual.iterdir()) == []


def test_where_no_folder_has_a_short_path_it_is_said_how_short_it_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_files, "SOCKET_LIMIT", private_files.SOCKET_TAIL + 20)
    with pytest.raises(FolderTooLong, match="set TMPDIR to a folder of yours whose path has at most 20 bytes"):
        parent_folder("/a/folder/that/is/much/too/long")


def test_what_a_killed_process_has_left_is_removed(parent: Path, ended: int) -> None:
    left = left_by(parent, ended)
    PrivateFolder().remove()
    assert not left.exists()


def test_the_folder_of_a_living_process_stays(parent: Path) -> None:
    kept = left_by(parent, os.getppid())
    PrivateFolder().remove()
    assert kept.exists()


def test_the_folder_of_a_process_that_cannot_be_seen_from_here_stays(parent: Path, ended: int) -> None:
    kept = left_by(parent, ended)
    with open(kept / "token", "rb") as token:
        fcntl.flock(token, fcntl.LOCK_EX)  # as its owner does, in a container of its own
        PrivateFolder().remove()
        assert kept.exists()


def test_a_folder_that_is_just_being_made_stays(parent: Path, ended: int) -> None:
    kept = left_by(parent, ended, token="")
    PrivateFolder().remove()
    assert kept.exists()


@pytest.mark.parametrize("has_empty_token", [False, True])
def test_a_folder_whose_owner_was_killed_before_it_wrote_a_token_is_removed_later(
    parent: Path, ended: int, has_empty_token: bool
) -> None:
    left = left_by(parent, ended, token="")
    if not has_empty_token:
        (left / "token").unlink()
    PrivateFolder().remove()
    assert left.exists(), "it may have been made just now, in a container of its own"
    long_ago = left.stat().st_mtime - 3600
    os.utime(left, (long_ago, long_ago))
    PrivateFolder().remove()
    assert not left.exists()


def test_a_folder_that_is_removed_takes_its_lock_along() -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    folder = PrivateFolder()
    folder.remove()
    folder.remove()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_folder_is_locked_while_its_owner_lives(folder: PrivateFolder) -> None:
    with open(folder.token_path, "rb") as token, pytest.raises(BlockingIOError):
        fcntl.flock(token, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_emptied_it_keeps_the_token(folder: PrivateFolder) -> None:
    (Path(folder.path) / "session").mkdir()
    folder.empty()
    assert os.listdir(folder.path) == ["token"]


# Files of clusters that something else has written.


INFO = ConnectionInfo("127.0.0.1:6379", "nsactors-1", {"A": "b"}, {"ray": "2.60.0"})
RECORD = ClusterRecord("lab", ProcessIdentity.of(os.getpid()), INFO, stop_with=("scancel", "7"))


@pytest.mark.parametrize(
    "value",
    [
        INFO,
        RECORD,
        ClusterRecord("lab", RECORD.owner),
        JobPlan("lab", 2, 4),
        NodePlan("token", None, labels={"a": "b"}),
    ],
)
def test_what_was_written_is_read_as_it_was(value: Any) -> None:
    assert from_fields(type(value), json.loads(json.dumps(asdict(value)))) == value


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ([], "a ConnectionInfo is a table, not list"),
        (None, "a ConnectionInfo is a table, not NoneType"),
        ({}, "a field 'address', which is missing"),
        ({"address": "a"}, "a field 'namespace', which is missing"),
        ({"address": 5, "namespace": "n"}, "ConnectionInfo.address is str, not int"),
        ({"address": None, "namespace": "n"}, "ConnectionInfo.address is str, not NoneType"),
        ({"address": "a", "namespace": "n", "settings": []}, "ConnectionInfo.settings is dict, not list"),
        ({"address": "a", "namespace": "n", "settings": {"A": 1}}, r"ConnectionInfo.settings\['A'\] is str, not int"),
        ({"address": "a", "namespace": "n", "port": 1}, "a ConnectionInfo has no field 'port'"),
    ],
)
def test_what_is_no_connection_is_a_value_error_that_names_the_field(fields: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ConnectionInfo.from_dict(fields)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"address": 5, "namespace": "n"}', "[" * 100_000])
def test_a_file_that_holds_something_else_leads_to_no_cluster(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cluster.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ClusterUnreachable, match=r"cluster\.json"):
        ConnectionInfo.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"owner": None},
        {"owner": {"pid": 1}},
        {"owner": {**asdict(RECORD.owner), "pid": "1"}},
        {"connection": "x"},
        {"connection": {"address": 1, "namespace": "n"}},
        {"started": "now"},
        {"started": True},
        {"log": None},
        {"stop_with": "scancel"},
        {"stop_with": [1]},
        {"options": []},
        {"name": "other"},
        {"name": "../lab"},
        {"name": 5},
    ],
)
def test_a_record_that_is_none_is_passed_over(tmp_path: Path, change: dict[str, Any]) -> None:
    registry = Registry(tmp_path / "clusters")
    registry.folder.mkdir(mode=0o700)
    path = registry.folder / "lab.json"
    path.write_text(json.dumps({**asdict(RECORD), **change}))
    path.chmod(0o600)
    assert registry.records() == []


def test_a_number_is_no_path_of_a_file() -> None:
    """It would be an open file of this process, which would be closed after reading."""
    with pytest.raises(TypeError, match=r"load\(\) takes path as the path of a file, not 1"):
        ConnectionInfo.load(1)  # type: ignore[arg-type]
    os.fstat(1)


def test_a_token_is_known_by_its_path_even_when_its_folder_has_gone(tmp_path: Path) -> None:
    folder = PrivateFolder()
    assert is_private_token(folder.token_path)
    folder.remove()
    assert is_private_token(folder.token_path)
    assert not is_private_token(str(tmp_path / "token"))
    assert not is_private_token("")
