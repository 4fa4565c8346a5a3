"""Folders of processes that were killed are removed, and nobody else's."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsactors.transport.private_folder import PrivateFolder


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
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


def test_a_folder_is_locked_while_its_owner_lives(folder: PrivateFolder) -> None:
    with open(folder.token_path, "rb") as token, pytest.raises(BlockingIOError):
        fcntl.flock(token, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_emptied_it_keeps_the_token(folder: PrivateFolder) -> None:
    (Path(folder.path) / "session").mkdir()
    folder.empty()
    assert os.listdir(folder.path) == ["token"]
