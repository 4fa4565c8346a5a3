"""An engine's journal from one incarnation to the next, whichever of them dies when."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from nsactors.core.cluster import EngineSpec
from nsactors.core.journal import Entry, SnapshotPolicy
from nsactors.core.messages import Ok, Push, Request, RequestId
from nsactors.core.payload import pack
from nsactors.core.recovery import RecoveryReport
from nsactors.core.remote_value import RemoteValue
from nsactors.core.shipping import Batch, Position, Segment, Span
from nsactors.errors import ClusterUnreachable
from nsactors.namespace import Namespace
from nsactors.namespace.bindings import is_users
from nsactors.namespace.engine_journal import KILLED_BY, EngineJournal, _Attempts
from nsactors.namespace.journal_file import JournalCopy, JournalFile
from nsactors.namespace.plain_shell import fresh_names
from nsactors.namespace.shell import Shell

LONG_S = 10.0


class Keeper:
    """On another machine; it can be out of reach, or be lost in the middle of a reading."""

    is_elsewhere = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.reads_left: int | None = None
        self.forgot = threading.Event()

    def copy(self, incarnation: int) -> JournalCopy:
        return JournalCopy(str(self._folder / f"kept-{incarnation}"))

    def accept(self, engine_id: int, incarnation: int, batch: Batch) -> Position:
        return self.copy(incarnation).accept(batch)

    def segments(self, engine_id: int, incarnation: int) -> Sequence[Segment]:
        return self.copy(incarnation).segments

    def read(self, engine_id: int, incarnation: int, span: Span) -> Batch:
        if self.reads_left == 0:
            raise ClusterUnreachable("the keeper", "gone")
        if self.reads_left is not None:
            self.reads_left -= 1
        return self.copy(incarnation).read_span(span)

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
        )
        self._seq = 0

    @property
    def file(self) -> JournalFile:
        return self.journal._journalled.file

    @property
    def names(self) -> dict[str, Any]:
        return {name: value for name, value in self.namespace.names.items() if is_users(name, value)}

    def push(self, **names: Any) -> str:
        """What its sender is told."""
        self._seq += 1
        request, payload = Request(RequestId("ann", self._seq), Push()), pack(names)
        told = self.journal.begin(request, payload)
        self.namespace.run(request.operation, payload)
        return told + self.journal.end(Ok())

    def recover(self) -> RecoveryReport:
        return self.journal.recover(lambda entry, value, error: None)[0]


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

    def note_and_die(attempts: _Attempts, entry: Entry) -> None:
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


@pytest.mark.parametrize("with_keeper", [False, True])
def test_that_nothing_is_left_of_a_journal_is_told_as_lost_to_every_incarnation_that_looks_for_it(
    machine: Path, keeper: Keeper, *, with_keeper: bool
) -> None:
    for incarnation in (1, 2):
        report = Engine(machine, incarnation, recovers=0, keeper=keeper if with_keeper else None).recover()
        assert report.lost == (("its whole namespace", "nothing is left of its journal"),)
        assert report.shipped_only


def test_each_incarnation_that_takes_the_keepers_copy_says_so(
    machine: Path, other_machine: Path, keeper: Keeper
) -> None:
    engine = Engine(machine, 0, keeper=keeper)
    engine.push(a=5)
    engine.journal.ship()
    engine.push(b=6)
    for incarnation in (1, 2):
        heir = Engine(other_machine, incarnation, recovers=0, keeper=keeper)
        assert heir.recover().shipped_only
        assert heir.names == {"a": 5}


def test_a_copy_that_was_fetched_in_part_is_fetched_on(
    machine: Path, other_machine: Path, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsactors.namespace.engine_journal.BATCH_BYTES", 100)
    engine = Engine(machine, 0, keeper=keeper)
    engine.push(a=5)
    engine.push(b=b"x" * 1_000)
    engine.journal.ship()
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
    engine.journal.ship()
    engine.journal.snapshot()
    new = engine.file.segments[-1]
    keeper.accept(0, 0, engine.file.read_span(Span(Position(new.number, 0), new.nbytes - 1, new.base_bytes)))
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
        patch.setattr(JournalFile, "cut", full)
        told = engine.push(a=5)
    assert "could not take a snapshot ([Errno 28] no space left)" in told
    engine.push(b=6)
    heir = Engine(machine, 1, recovers=0)
    assert heir.recover().is_complete
    assert heir.names == {"a": 5, "b": 6}
