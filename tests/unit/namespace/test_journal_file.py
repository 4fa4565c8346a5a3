from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from nsactors.core.journal import Begun, Ended, Journal, Snapshot, State
from nsactors.core.messages import Execute, Push, RequestId
from nsactors.core.payload import Buffer, Payload, pack, unpack
from nsactors.core.shipping import NOWHERE, Batch, Position, Segment, next_span
from nsactors.namespace.journal_file import JournalCopy, JournalFile, read_journal

LIMIT_BYTES = 50


def begun(seq: int, code: str = "pass") -> Begun:
    return Begun(RequestId("ann", seq), Execute(code), None)


def run(file: JournalFile, seq: int, code: str = "pass", *bound: str, took_s: float = 0.0) -> None:
    file.append(begun(seq, code))
    file.append(Ended(State.COMPLETED, bound=bound, took_s=took_s))


def codes(journal: Journal) -> list[str]:
    return [e.operation.code for e in (*journal.kept, *journal.entries) if isinstance(e.operation, Execute)]


def ship(file: JournalFile, copy: JournalCopy) -> None:
    while span := next_span(copy.position, file.segments, LIMIT_BYTES):
        copy.accept(file.read_span(span))
    file.release(copy.position)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "journal")


@pytest.fixture
def file(folder: str) -> Iterator[JournalFile]:
    file = JournalFile(folder)
    yield file
    file.close()


@pytest.fixture
def copy(tmp_path: Path) -> JournalCopy:
    return JournalCopy(str(tmp_path / "copy"))


def test_what_was_written_is_read(file: JournalFile, folder: str) -> None:
    run(file, 1, "x = 1", "x")
    file.append(begun(2, "os._exit(1)"))
    journal = read_journal(folder)
    assert journal == file.read()
    assert [(entry.label, entry.state, entry.bound) for entry in journal.entries] == [
        ("execute: x = 1", State.COMPLETED, ("x",)),
        ("execute: os._exit(1)", State.BEGUN, ()),
    ]


def test_a_folder_without_journal_is_an_empty_one(folder: str) -> None:
    assert read_journal(folder) == Journal()


def test_a_journal_begins_in_a_folder_of_its_own(file: JournalFile, folder: str) -> None:
    with pytest.raises(FileExistsError):
        JournalFile(folder)


def test_arrays_come_back_from_the_file(file: JournalFile, folder: str) -> None:
    file.append(Begun(RequestId("ann", 1), Push(), pack({f"a{i}": np.arange(100_000) for i in range(3)})))
    payload = read_journal(folder).entries[0].payload
    assert payload is not None
    assert all(np.array_equal(array, np.arange(100_000)) for array in unpack(payload).values())


def test_more_buffers_than_the_system_takes_at_once_are_written(file: JournalFile) -> None:
    buffers = tuple(bytes([i % 256]) * (i % 100) for i in range(3_000))
    file.append(Begun(RequestId("ann", 1), Push(), Payload(b"data", buffers)))
    payload = file.read().entries[0].payload
    assert payload is not None
    assert payload.buffers == buffers


def test_a_write_that_stops_short_goes_on_where_it_stopped(file: JournalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, parts: whole(fd, [memoryview(parts[0])[: len(parts[0]) // 2 + 1]]))
    buffers = (bytes(100_000), b"", b"end")
    file.append(Begun(RequestId("ann", 1), Push(), Payload(b"data", buffers)))
    payload = file.read().entries[0].payload
    assert payload is not None
    assert payload.buffers == buffers


def test_a_write_without_room_leaves_the_journal_sound(file: JournalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    run(file, 1, "x = 1")
    end = file.position

    def full(fd: int, parts: Sequence[Buffer]) -> int:
        os.write(fd, bytes(parts[0])[:10])
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", full)
        with pytest.raises(OSError, match="no space"):
            file.append(Begun(RequestId("ann", 2), Push(), Payload(bytes(100_000))))
    assert file.position == end
    run(file, 3, "y = 1")
    assert codes(file.read()) == ["x = 1", "y = 1"]


def test_a_record_that_was_cut_off_is_dropped(file: JournalFile, folder: str) -> None:
    run(file, 1, "x = 1")
    whole = file.position.offset
    file.append(begun(2, "y = 1"))
    os.truncate(os.path.join(folder, "0.journal"), file.position.offset - 1)
    assert codes(read_journal(folder)) == ["x = 1"]
    os.truncate(os.path.join(folder, "0.journal"), whole - 1)
    assert read_journal(folder).entries[0].state is State.BEGUN


def test_a_snapshot_takes_the_place_of_what_was_before_it(file: JournalFile, folder: str) -> None:
    run(file, 1, "x = 1", "x", took_s=2.0)
    assert (file.grown_bytes > 0, file.replay_s) == (True, 2.0)
    file.cut(Snapshot(modules={"x": "x"}))
    assert (file.grown_bytes, file.replay_s) == (0, 0.0)
    run(file, 2, "y = 1", "y")
    assert os.listdir(folder) == ["1.journal"]
    assert read_journal(folder).snapshot == Snapshot(modules={"x": "x"}, taken={"ann": 1})
    assert codes(read_journal(folder)) == ["y = 1"]


def test_what_made_the_names_that_a_snapshot_leaves_out_is_kept_from_cut_to_cut(file: JournalFile) -> None:
    run(file, 1, "f = open('a')", "f")
    run(file, 2, "n = 1", "n")
    for seq in (3, 4):
        file.cut(Snapshot(modules={"n": "n"}, left_out={"f": "cannot pickle"}))
        run(file, seq, "n = 2", "n")
    journal = file.read()
    assert ([e.request.seq for e in journal.kept], [e.request.seq for e in journal.entries]) == ([1], [4])


def test_a_process_that_dies_while_it_cuts_leaves_the_old_segment(file: JournalFile, folder: str) -> None:
    run(file, 1, "f = 1", "f")
    old = Path(folder, "0.journal").read_bytes()
    file.cut(Snapshot(left_out={"f": "no"}))
    new = Path(folder, "1.journal").read_bytes()
    Path(folder, "0.journal").write_bytes(old)
    for length in range(len(new)):
        Path(folder, "1.journal").write_bytes(new[:length])
        assert codes(read_journal(folder)) == ["f = 1"]
        assert read_journal(folder).snapshot is None


def test_a_snapshot_without_room_leaves_the_journal_as_it_was(
    file: JournalFile, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(file, 1, "x = 1", "x")

    def full(fd: int, data: Buffer) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="no space"):
            file.cut(Snapshot())
    run(file, 2, "y = 1", "y")
    assert os.listdir(folder) == ["0.journal"]
    assert codes(read_journal(folder)) == ["x = 1", "y = 1"]


def test_a_copy_says_the_same(file: JournalFile, copy: JournalCopy, tmp_path: Path) -> None:
    run(file, 1, "x = 1", "x")
    ship(file, copy)
    run(file, 2, "f = 1", "f")
    file.cut(Snapshot(left_out={"f": "no"}))
    run(file, 3, "y = 1", "y")
    ship(file, copy)
    assert read_journal(str(tmp_path / "copy")) == file.read()
    assert os.listdir(tmp_path / "copy") == ["1.journal"]


def test_a_copy_goes_on_where_it_was_when_its_keeper_starts_again(
    file: JournalFile, copy: JournalCopy, tmp_path: Path
) -> None:
    run(file, 1, "x = 1")
    span = next_span(copy.position, file.segments, LIMIT_BYTES)
    assert span is not None
    copy.accept(file.read_span(span))
    again = JournalCopy(str(tmp_path / "copy"))
    assert again.position == Position(0, LIMIT_BYTES)
    ship(file, again)
    assert read_journal(str(tmp_path / "copy")) == file.read()


def test_until_a_new_snapshot_has_arrived_whole_the_copy_is_what_was_before(
    file: JournalFile, copy: JournalCopy, tmp_path: Path
) -> None:
    run(file, 1, "x = 1", "x")
    ship(file, copy)
    file.cut(Snapshot(left_out={"lost": "reason" * 50}))
    for _ in range(2):
        span = next_span(copy.position, file.segments, LIMIT_BYTES)
        assert span is not None
        copy.accept(file.read_span(span))
        copy = JournalCopy(str(tmp_path / "copy"))  # also if the keeper starts again
        assert codes(read_journal(str(tmp_path / "copy"))) == ["x = 1"]
    ship(file, copy)
    assert read_journal(str(tmp_path / "copy")) == file.read()


def test_a_segment_can_be_read_until_its_keeper_has_done_with_it(file: JournalFile, copy: JournalCopy) -> None:
    run(file, 1, "x = 1", "x")
    first = file.segments[0]
    file.cut(Snapshot())
    file.cut(Snapshot())
    file.release(Position(0, 10))
    assert [segment.number for segment in file.segments] == [0, 2]
    span = next_span(Position(0, 10), file.segments, 1_000)
    assert span is not None
    assert len(file.read_span(span).data) == first.nbytes - 10
    file.release(NOWHERE)
    assert [segment.number for segment in file.segments] == [2]


def test_a_segment_that_is_just_being_begun_is_not_let_go(file: JournalFile) -> None:
    file._segments = ReleasedAtEachChange(file)
    file.cut(Snapshot())
    file.append(begun(1))
    assert [segment.number for segment in file.segments][-1] == 1


class ReleasedAtEachChange(dict[int, Segment]):
    """Segments of a file whose other thread lets go of old ones at the worst moment."""

    def __init__(self, file: JournalFile) -> None:
        super().__init__({segment.number: segment for segment in file.segments})
        self._file = file

    def __setitem__(self, number: int, segment: Segment) -> None:
        super().__setitem__(number, segment)
        self._file.release(NOWHERE)


def test_a_copy_without_room_says_how_far_it_went(copy: JournalCopy, monkeypatch: pytest.MonkeyPatch) -> None:
    copy.accept(Batch(Position(0, 0), b"abc", 2))

    def full(fd: int, data: Buffer) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="no space"):
            copy.accept(Batch(Position(0, 3), b"def", 2))
    assert copy.position == Position(0, 3)


def test_a_closed_journal_leaves_its_files(file: JournalFile, folder: str) -> None:
    file.append(begun(1))
    file.close()
    assert len(read_journal(folder).entries) == 1
