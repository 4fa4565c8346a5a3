"""An engine's journal from one incarnation to the next, whichever of them dies when."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from nsactors.errors import ClusterUnreachable, SnapshotUnwritten
from nsactors.namespace import Namespace
from nsactors.namespace.journal_recorder import KILLED_BY, EngineJournal, _Attempts
from nsactors.namespace.plain_shell import Shell, fresh_names
from nsactors.namespace.snapshot import is_users
from nsactors.protocol.engine_info import EngineSpec, RecoveryReport
from nsactors.protocol.messages import EngineRequest, Ok, Pull, Push, RequestId
from nsactors.protocol.serialize import RemoteValue, pack
from nsactors.recovery.journal import JournalEntry, SnapshotPolicy
from nsactors.recovery.replication import JournalBatch, Position, Segment, SegmentRange
from nsactors.recovery.storage import JournalCopy, JournalFile, note_saved, saved_at
from tests.unit.namespace.full_disk import Disk
from tests.unit.namespace.in_process import InProcess

LONG_S = 10.0


class Keeper:
    """On another machine; it can be out of reach, or be lost in the middle of a reading."""

    is_elsewhere = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reads_left: int | None = None
        self.error: OSError | None = None
        self.forgot = threading.Event()

    def copy(self, incarnation: int) -> JournalCopy:
        return JournalCopy(str(self.folder / f"kept-{incarnation}"))

    def accept(self, engine_id: int, incarnation: int, batch: JournalBatch) -> Position:
        if self.error is not None:
            raise self.error
        return self.copy(incarnation).accept(batch)

    def segments(self, engine_id: int, incarnation: int) -> Sequence[Segment]:
        return self.copy(incarnation).segments

    def read(self, engine_id: int, incarnation: int, span: SegmentRange) -> JournalBatch:
        if self.reads_left == 0:
            raise ClusterUnreachable("the keeper", "gone")
        if self.reads_left is not None:
            self.reads_left -= 1
        return self.copy(incarnation).read_span(span)

    def saved_at(self, engine_id: int, incarnation: int) -> float | None:
        return saved_at(str(self.folder / f"kept-{incarnation}"))

    def forget(self, engine_id: int, incarnation: int) -> None:
        self.forgot.set()


def no_shell(names: dict[str, Any]) -> Shell:
    raise NotImplementedError


def no_store(name: str, value: Any) -> RemoteValue:
    raise NotImplementedError


class Engine:
    """One incarnation, on a machine that has ``folder``."""

    def __init__(
        self, folder: Path, incarnation: int, recovers: int | None = None, keeper: Keeper | None = None
    ) -> None:
        self.namespace = Namespace(fresh_names(), no_shell, keep=no_store)
        self.journal = EngineJournal(
            EngineSpec(0, incarnation, "test", recovers=recovers),
            self.namespace,
            lambda number: str(folder / f"{number}.journal"),
            (),
            keeper,
            prover=InProcess(),
        )
        self._seq = 0

    @property
    def file(self) -> JournalFile:
        return self.journal._journalled.file

    @property
    def names(self) -> dict[str, Any]:
        return {name: value for name, value in self.namespace.names.items() if is_users(name, value)}

    def push(self, **names: Any) -> str:
        """Push names; return the text for the sender."""
        self._seq += 1
        request, payload = EngineRequest(RequestId("ann", self._seq), Push()), pack(names)
        told = self.journal.begin(request, payload)
        self.namespace.run(request.operation, payload)
        return told + self.journal.end(Ok())

    def pull(self) -> str:
        """Run a request that changes nothing; return the text for its sender."""
        self._seq += 1
        request = EngineRequest(RequestId("ann", self._seq), Pull(("a",), single=True))
        return self.journal.begin(request, None) + self.journal.end(Ok())

    def recover(self) -> RecoveryReport:
        return self.journal.recover(lambda entry, value, error: None)[0]


@pytest.fixture
def disk(machine: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk of ``machine``."""
    return Disk(machine, monkeypatch)


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def closed() -> Iterator[threading.Event]:
    closed = threading.Event()
    yield closed
    closed.set()


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    return tmp_path / "machine"


@pytest.fixture
def other_machine(tmp_path: Path) -> Path:
    return tmp_path / "other"


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(tmp_path)


def test_an_incarnation_that_dies_before_it_counts_leaves_the_journal_to_the_next(machine: Path) -> None:
    Engine(machine, 0).push(a=5)
    for incarnation in (1, 2):
        heir = Engine(machine, incarnation, recovers=0)
        report = heir.recover()
        assert heir.names == {"a": 5}
        assert (report.is_complete, report.replayed) == (True, 1)


def test_a_machine_that_dies_as_its_engine_is_back_takes_nothing_along(
    machine: Path, other_machine: Path, keeper: Keeper
) -> None:
    Engine(machine, 0).push(a=5)
    Engine(machine, 1, recovers=0, keeper=keeper).recover()
    heir = Engine(other_machine, 2, recovers=1, keeper=keeper)
    heir.recover()
    assert heir.names == {"a": 5}


def test_when_an_incarnation_counts_the_former_journal_goes_and_its_own_is_whole(
    machine: Path, closed: threading.Event
) -> None:
    Engine(machine, 0).push(a=5)
    first = Engine(machine, 1, recovers=0)
    first.recover()
    first.journal.settled(closed)
    assert os.listdir(machine) == ["1.journal"]
    second = Engine(machine, 2, recovers=1)
    assert second.recover().is_complete
    assert second.names == {"a": 5}


def test_deaths_after_all_entries_have_run_blame_none_of_them(machine: Path) -> None:
    Engine(machine, 0).push(a=5)
    for incarnation in range(1, KILLED_BY + 2):
        heir = Engine(machine, incarnation, recovers=0)
        assert heir.recover().not_replayed == ()


def test_an_entry_that_recoveries_die_of_is_left_out(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(machine, 0)
    engine.push(a=5)
    engine.push(a=6)
    note = _Attempts.note

    def note_and_die(attempts: _Attempts, entry: JournalEntry) -> None:
        note(attempts, entry)
        if entry.request.seq == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(_Attempts, "note", note_and_die)
        for incarnation in range(1, KILLED_BY + 1):
            with pytest.raises(Killed):
                Engine(machine, incarnation, recovers=0).recover()
    heir = Engine(machine, KILLED_BY + 1, recovers=0)
    report = heir.recover()
    assert heir.names == {"a": 5}
    assert [skipped.request.seq for skipped in report.not_replayed] == [2]


def test_a_component_that_recoveries_die_of_is_left_out_for_good(
    machine: Path, monkeypatch: pytest.MonkeyPatch, closed: threading.Event
) -> None:
    engine = Engine(machine, 0)
    engine.push(a=[5])
    engine.push(b=[6])
    engine.journal.snapshot()
    note = _Attempts.note_load

    def note_and_die(attempts: _Attempts, name: str) -> None:
        note(attempts, name)
        if name == "b":
            raise Killed

    monkeypatch.setattr(_Attempts, "note_load", note_and_die)
    for incarnation in range(1, KILLED_BY + 1):
        with pytest.raises(Killed):
            Engine(machine, incarnation, recovers=0).recover()
    for incarnation, former in ((KILLED_BY + 1, 0), (KILLED_BY + 2, KILLED_BY + 1)):
        heir = Engine(machine, incarnation, recovers=former)
        report = heir.recover()
        assert heir.names == {"a": [5]}
        assert report.lost == (("b", "loading it ended the engine whenever that was tried"),)


@pytest.mark.parametrize("with_keeper", [False, True])
def test_that_nothing_is_left_of_a_journal_is_told_as_lost_to_every_incarnation_that_looks_for_it(
    machine: Path, keeper: Keeper, *, with_keeper: bool
) -> None:
    for incarnation in (1, 2):
        report = Engine(machine, incarnation, recovers=0, keeper=keeper if with_keeper else None).recover()
        assert report.lost == (("its whole namespace", "nothing is left of its journal"),)
        assert report.shipped_only


def test_a_copy_from_which_a_cluster_continues_misses_nothing_and_its_time_is_told(
    machine: Path, other_machine: Path, keeper: Keeper
) -> None:
    engine = Engine(machine, 0, keeper=keeper)
    engine.push(a=5)
    engine.journal.replicate()
    note_saved(str(keeper.folder / "kept-0"), 1e9)
    report = Engine(other_machine, 1, recovers=0, keeper=keeper).recover()
    assert (report.saved_at, report.shipped_only, report.is_complete) == (1e9, False, True)
    assert "missing" not in str(report)
    assert "as it was when the previous job saved it, at 2001-09-" in str(report)


def test_each_incarnation_that_takes_the_keepers_copy_says_so(
    machine: Path, other_machine: Path, keeper: Keeper
) -> None:
    engine = Engine(machine, 0, keeper=keeper)
    engine.push(a=5)
    engine.journal.replicate()
    engine.push(b=6)
    for incarnation in (1, 2):
        heir = Engine(other_machine, incarnation, recovers=0, keeper=keeper)
        assert heir.recover().shipped_only
        assert heir.names == {"a": 5}


def test_a_copy_that_was_fetched_in_part_is_fetched_on(
    machine: Path, other_machine: Path, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsactors.namespace.journal_recorder.BATCH_BYTES", 100)
    engine = Engine(machine, 0, keeper=keeper)
    engine.push(a=5)
    engine.push(b=b"x" * 1_000)
    engine.journal.replicate()
    keeper.reads_left = 5
    with pytest.raises(ClusterUnreachable):
        Engine(other_machine, 1, recovers=0, keeper=keeper).recover()
    keeper.reads_left = None
    heir = Engine(other_machine, 2, recovers=0, keeper=keeper)
    heir.recover()
    assert heir.names == {"a": 5, "b": b"x" * 1_000}


def test_a_snapshot_that_the_keeper_has_a_part_of_does_not_hide_what_came_before_it(
    machine: Path, other_machine: Path, keeper: Keeper
) -> None:
    engine = Engine(machine, 0, keeper=keeper)
    engine.push(a=5)
    engine.journal.replicate()
    engine.journal.snapshot()
    new = engine.file.segments[-1]
    keeper.accept(0, 0, engine.file.read_span(SegmentRange(Position(new.number, 0), new.nbytes - 1, new.base_bytes)))
    heir = Engine(other_machine, 1, recovers=0, keeper=keeper)
    report = heir.recover()
    assert heir.names == {"a": 5}
    assert report.lost == ()


def test_the_keeper_forgets_the_former_journal_when_it_has_the_new_one(
    machine: Path, keeper: Keeper, closed: threading.Event
) -> None:
    Engine(machine, 0, keeper=keeper).push(a=5)
    heir = Engine(machine, 1, recovers=0, keeper=keeper)
    heir.recover()
    assert not keeper.forgot.is_set()
    heir.journal.settled(closed)
    assert keeper.forgot.wait(LONG_S)
    assert keeper.copy(1).position == heir.file.position


def test_an_automatic_snapshot_without_room_does_not_end_the_journal(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(machine, 0)
    engine.journal._journalled._policy = SnapshotPolicy(journal_bytes=1)

    def full(file: JournalFile, *args: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(JournalFile, "draft", full)
        told = engine.push(a=5)
    assert "could not take a snapshot ([Errno 28] no space left)" in told
    engine.push(b=6)
    heir = Engine(machine, 1, recovers=0)
    assert heir.recover().is_complete
    assert heir.names == {"a": 5, "b": 6}


FULL = pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])


@FULL
def test_a_journal_goes_on_when_there_is_room_again_and_every_reply_tells_until_then(
    machine: Path, disk: Disk, error: int
) -> None:
    engine = Engine(machine, 0)
    assert engine.push(a=1) == ""
    disk.error = error
    for told, count in ((engine.push(b=2), "last request"), (engine.push(c=bytes(100_000)), "last 2 requests")):
        assert f"cannot write its journal ({os.strerror(error)})" in told
        assert count in told
    assert "last 2 requests" in engine.pull()
    disk.error = 0
    assert "is complete" in engine.push(d=4)
    assert engine.push(e=5) == engine.pull() == ""
    heir = Engine(machine, 1, recovers=0)
    assert heir.recover().is_complete
    assert heir.names == {"a": 1, "b": 2, "c": bytes(100_000), "d": 4, "e": 5}


def test_a_request_that_changes_nothing_lets_the_journal_go_on_too(machine: Path, disk: Disk) -> None:
    engine = Engine(machine, 0)
    disk.error = errno.ENOSPC
    engine.push(a=1)
    disk.error = 0
    assert "is complete" in engine.pull()
    heir = Engine(machine, 1, recovers=0)
    heir.recover()
    assert heir.names == {"a": 1}


@FULL
def test_what_dies_while_the_disk_is_full_comes_back_and_names_what_is_missing(
    machine: Path, disk: Disk, closed: threading.Event, error: int
) -> None:
    first = Engine(machine, 0)
    first.push(a=1)
    disk.error = error
    first.push(b=2)
    second = Engine(machine, 1, recovers=0)
    report, taken = second.journal.recover(lambda *told: None)
    second.journal.settled(closed)
    assert second.names == {"a": 1}
    assert [(missing.request.seq, missing.reason) for missing in report.not_replayed] == [
        (2, "there was no room on the disk to write it down")
    ]
    assert taken == {"ann": 2}, "it is not run once more for its client"
    second._seq = 2
    assert "cannot write its journal" in second.push(c=3)
    third = Engine(machine, 2, recovers=1)
    report = third.recover()
    third.journal.settled(closed)
    assert third.names == {"a": 1}
    assert [missing.request.seq for missing in report.not_replayed] == [2, 3]
    disk.error = 0
    third._seq = 3
    assert "cannot write" not in third.push(d=4)
    third.push(e=5)
    assert os.listdir(machine) == ["2.journal"]
    last = Engine(machine, 3, recovers=2)
    assert last.recover().is_complete
    assert last.names == {"a": 1, "d": 4, "e": 5}


def test_a_disk_that_can_only_be_read_is_recovered_from_and_nothing_is_called_complete(
    machine: Path, disk: Disk, closed: threading.Event
) -> None:
    engine = Engine(machine, 0)
    engine.push(a=1)
    disk.error, disk.refuses_new = errno.EROFS, True
    heir = Engine(machine, 1, recovers=0)
    heir.recover()
    heir.journal.settled(closed)
    assert heir.names == {"a": 1}
    assert "cannot write its journal" in heir.push(b=2)
    disk.error, disk.refuses_new = 0, False
    assert "is complete" in heir.push(c=3)
    last = Engine(machine, 2, recovers=1)
    assert last.recover() == RecoveryReport(0, replayed=3, took_s=ANY)
    assert last.names == {"a": 1, "b": 2, "c": 3}


def test_an_engine_that_starts_without_room_says_so_and_its_heir_too(machine: Path, disk: Disk) -> None:
    disk.error = errno.ENOSPC
    engine = Engine(machine, 0)
    assert "cannot write its journal" in engine.push(a=1)
    report = Engine(machine, 1, recovers=0).recover()
    assert report.lost == (("its last requests", "the disk had no room for a journal"),)
    assert not report.is_complete
    disk.error = 0
    assert "is complete" in engine.push(b=2)
    heir = Engine(machine, 2, recovers=0)
    assert heir.recover().is_complete
    assert heir.names == {"a": 1, "b": 2}


def test_payloads_do_not_wait_in_memory_for_ever_and_a_snapshot_has_what_they_made(
    machine: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsactors.recovery.storage.WAITING_BYTES", 1_000)
    engine = Engine(machine, 0)
    disk.error = errno.ENOSPC
    engine.push(a=1)
    engine.push(b=bytes(2_000))
    lost = Engine(machine, 1, recovers=0)
    assert [missing.request.seq for missing in lost.recover().not_replayed] == [1, 2]
    disk.error = 0
    engine.journal._journalled._retry_at = 0.0
    assert "is complete" in engine.push(c=3)
    heir = Engine(machine, 2, recovers=0)
    report = heir.recover()
    assert (report.is_complete, report.replayed) == (True, 0), "all comes from the snapshot"
    assert heir.names == {"a": 1, "b": bytes(2_000), "c": 3}


def test_a_snapshot_without_room_is_an_error_and_with_room_it_has_what_waited(machine: Path, disk: Disk) -> None:
    engine = Engine(machine, 0)
    disk.error = errno.ENOSPC
    engine.push(a=1)
    with pytest.raises(SnapshotUnwritten, match="No space left on device; 1 request and their effects"):
        engine.journal.snapshot()
    disk.error = 0
    assert engine.journal.snapshot().names == {"a"}
    assert "is complete" in engine.push(b=2)
    heir = Engine(machine, 1, recovers=0)
    assert (heir.recover().replayed, heir.names) == (1, {"a": 1, "b": 2})


def test_more_requests_than_have_a_place_of_their_own_are_counted(machine: Path, disk: Disk) -> None:
    engine = Engine(machine, 0)
    disk.error = errno.ENOSPC
    for n in range(2_000):
        engine.push(a=n)
    report, taken = Engine(machine, 1, recovers=0).journal.recover(lambda *told: None)
    assert "2000 requests, the last of them: push" in report.not_replayed[-1].label
    assert taken == {"ann": 2_000}


def test_a_keeper_without_room_is_told_with_every_reply_until_it_has_some(
    machine: Path, keeper: Keeper, closed: threading.Event
) -> None:
    engine = Engine(machine, 0, keeper=keeper)
    keeper.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    engine.push(a=1)
    with pytest.raises(OSError, match="No space left"):
        engine.journal.replicate()
    for _ in range(2):
        assert "is not copied to the head node (No space left on device)" in engine.push(b=2)
    keeper.error = None
    engine.journal.replicate()
    assert engine.push(c=3) == ""


def test_a_keepers_copy_is_read_where_there_is_no_room_for_it(
    machine: Path, other_machine: Path, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsactors.namespace.journal_recorder.BATCH_BYTES", 100)
    engine = Engine(machine, 0, keeper=keeper)
    engine.push(a=1, b=bytes(1_000))
    engine.journal.replicate()
    disk = Disk(other_machine, monkeypatch)
    disk.error = errno.ENOSPC
    heir = Engine(other_machine, 1, recovers=0, keeper=keeper)
    heir.recover()
    assert heir.names == {"a": 1, "b": bytes(1_000)}
