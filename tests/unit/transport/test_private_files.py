"""What is written is for one's own eyes, and what others may have written is not read."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from nsactors.errors import AccessRefused, ClusterUnreachable
from nsactors.transport.connection import ConnectionInfo
from nsactors.transport.private_files import read_private, write_private


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

    monkeypatch.setattr("nsactors.transport.private_files.os.replace", full)
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
    with pytest.raises(ClusterUnreachable, match=r"ValueError|JSONDecodeError"):
        ConnectionInfo.load(path)


def test_a_connection_survives_its_file(tmp_path: Path) -> None:
    info = ConnectionInfo("127.0.0.1:6379", "nsactors-1", {"RAY_AUTH_MODE": "token"}, {"python": "3.11.2"})
    info.save(tmp_path / "cluster.json")
    assert ConnectionInfo.load(tmp_path / "cluster.json") == info
