"""What a cluster leaves for the next one, in files."""

import os
import stat
from pathlib import Path

import pytest

from nsactors.cluster.continuing import restore_state, save_state
from nsactors.controller import SqliteStore
from nsactors.core.cluster import EngineOptions
from nsactors.core.journal import Base
from nsactors.core.membership import EnginesWanted, Membership
from nsactors.namespace.journal_file import JournalFile, read_journal


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Where a cluster ``ab12`` has two engines: one on the head node, one whose journal the keeper has."""
    folder = tmp_path / "logs" / "nsactors-ab12"
    store = SqliteStore(os.fspath(folder / "controller"))
    members = Membership()
    members.handle(EnginesWanted(2, EngineOptions()))
    store.save(members)
    store.close()
    for name in ("engine-0.0.journal", "engine-1.3.kept"):
        JournalFile(os.fspath(folder / name)).append(Base())
    (folder / "engine-0.0.out").write_text("what it printed")
    return tmp_path / "logs"


def test_the_next_cluster_finds_members_and_journals_where_its_keeper_looks(logs: Path, tmp_path: Path) -> None:
    save_state(logs, tmp_path / "state")
    (tmp_path / "next").mkdir()
    assert restore_state(tmp_path / "state", tmp_path / "next") == "ab12"
    folder = tmp_path / "next" / "nsactors-ab12"
    assert {path.name for path in folder.iterdir()} == {"controller", "engine-0.0.kept", "engine-1.3.kept"}
    assert read_journal(os.fspath(folder / "engine-0.0.kept")) == read_journal(
        os.fspath(logs / "nsactors-ab12" / "engine-0.0.journal")
    )
    store = SqliteStore(os.fspath(folder / "controller"))
    assert sorted(store.load().members) == [0, 1]
    store.close()


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
