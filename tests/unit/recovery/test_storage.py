from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nsactors.protocol.messages import Execute, Push, RequestId
from nsactors.protocol.serialize import Buffer, Payload, pack, unpack
from nsactors.recovery.journal import (
    Journal,
    JournalEntry,
    RequestFinished,
    RequestStarted,
    Snapshot,
    SnapshotPart,
    State,
)
from nsactors.recovery.replication import NOWHERE, JournalBatch, Position, Segment, next_span
from nsactors.recovery.storage import Draft, JournalCopy, JournalFile, find_journal, read_journal
from tests.unit.namespace.full_disk import Disk

LIMIT_BYTES = 50


def begun(seq: int, code: str = "pass") -> RequestStarted:
    return RequestStarted(RequestId("ann", seq), Execute(code), None)


def run(file: JournalFile, seq: int, code: str = "pass", *bound: str, took_s: float = 0.0) -> None:
    file.append(begun(seq, code))
    file.append(RequestFinished(State.COMPLETED, bound=bound, took_s=took_s))


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


def segments_in(folder: str) -> list[str]:
    """The files in a journal's folder, without the one that is for times without room."""
    return sorted(set(os.listdir(folder)) - {"unwritten"})


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
    file.append(RequestStarted(RequestId("ann", 1), Push(), pack({f"a{i}": np.arange(100_000) for i in range(3)})))
    payload = read_journal(folder).entries[0].payload
    assert payload is not None
    assert all(np.array_equal(array, np.arange(100_000)) for array in unpack(payload).values())


def test_more_buffers_than_the_system_takes_at_once_are_written(file: JournalFile) -> None:
    buffers = tuple(bytes([i % 256]) * (i % 100) for i in range(3_000))
    file.append(RequestStarted(RequestId("ann", 1), Push(), Payload(b"data", buffers)))
    payload = file.read().entries[0].payload
    assert payload is not None
    assert payload.buffers == buffers


def test_a_write_that_stops_short_goes_on_where_it_stopped(file: JournalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, parts: whole(fd, [memoryview(parts[0])[: len(parts[0]) // 2 + 1]]))
    buffers = (bytes(100_000), b"", b"end")
    file.append(RequestStarted(RequestId("ann", 1), Push(), Payload(b"data", buffers)))
    payload = file.read().entries[0].payload
    assert payload is not None
    assert payload.buffers == buffers


def test_a_write_without_room_leaves_the_journal_sound_and_waits(
    file: JournalFile, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(file, 1, "x = 1")
    end = file.position

    def full(fd: int, parts: Sequence[Buffer]) -> int:
        os.write(fd, bytes(parts[0])[:10])
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", full)
        file.append(RequestStarted(RequestId("ann", 2), Push(), Payload(bytes(100_000))))
        assert file.failure is not None
        assert file.position == end
        assert codes(read_journal(folder)) == ["x = 1"]
        assert [entry.request.seq for entry in file.read().entries] == [1, 2], "it waits"
    file.append(RequestFinished(State.COMPLETED))
    run(file, 3, "y = 1")
    assert file.failure is None
    assert [entry.request.seq for entry in read_journal(folder).entries] == [1, 2, 3]


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
    assert segments_in(folder) == ["1.journal"]
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
    assert segments_in(folder) == ["0.journal"]
    assert codes(read_journal(folder)) == ["x = 1", "y = 1"]


def test_what_is_written_while_a_snapshot_is_being_proved_follows_it(file: JournalFile, folder: str) -> None:
    run(file, 1, "x = 1", "x", took_s=2.0)
    draft = file.draft(Snapshot(modules={"x": "x"}))
    run(file, 2, "y = 1", "y", took_s=3.0)
    file.append(begun(3, "z = 1"))
    assert codes(read_journal(folder)) == ["x = 1", "y = 1", "z = 1"]
    assert file.adopt(draft) == Snapshot(modules={"x": "x"}, taken={"ann": 1})
    file.append(RequestFinished(State.COMPLETED))
    journal = read_journal(folder)
    assert (journal.snapshot, codes(journal)) == (
        Snapshot(modules={"x": "x"}, taken={"ann": 1}),
        ["y = 1", "z = 1"],
    )
    assert [entry.state for entry in journal.entries] == [State.COMPLETED, State.COMPLETED]
    assert (journal.taken, file.replay_s, segments_in(folder)) == ({"ann": 3}, 3.0, ["1.journal"])


def test_what_a_snapshot_does_not_give_is_left_out_and_its_makers_are_kept(file: JournalFile, folder: str) -> None:
    run(file, 1, "x = 1", "x")
    run(file, 2, "y = 1", "y")
    parts = tuple(SnapshotPart((name,), Payload(b"pickle", (b"buffer",))) for name in "xy")
    draft = file.draft(Snapshot(parts, {"m": "made"}))
    run(file, 3, "z = 1", "z")
    snapshot = file.adopt(draft, {"x": "it does not load", "m": "no module"})
    assert (snapshot.names, snapshot.left_out) == ({"y"}, {"x": "it does not load", "m": "no module"})
    journal = read_journal(folder)
    assert (journal.snapshot, codes(journal)) == (snapshot, ["x = 1", "z = 1"])
    assert [entry.request.seq for entry in journal.kept] == [1]
    assert segments_in(folder) == ["1.journal"]


def test_a_draft_that_is_not_adopted_leaves_the_journal_as_it_was(file: JournalFile, folder: str) -> None:
    run(file, 1, "x = 1", "x")
    draft = file.draft(Snapshot(modules={"x": "x"}))
    assert codes(read_journal(folder)) == ["x = 1"]
    draft.discard()
    assert segments_in(folder) == ["0.journal"]


def test_without_room_for_what_was_written_meanwhile_a_draft_is_not_adopted(
    file: JournalFile, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = file.draft(Snapshot())
    run(file, 1, "x = 1", "x")

    def full(fd: int, data: Buffer) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="no space"):
            file.adopt(draft)
    run(file, 2, "y = 1", "y")
    assert (codes(read_journal(folder)), segments_in(folder)) == (["x = 1", "y = 1"], ["0.journal"])


def test_a_journal_can_begin_with_what_another_one_says(file: JournalFile, folder: str, tmp_path: Path) -> None:
    run(file, 1, "f = 1", "f")
    file.cut(Snapshot(left_out={"f": "no"}))
    run(file, 2, "x = 1", "x", took_s=2.0)
    heir = JournalFile(str(tmp_path / "heir"))
    try:
        heir.begin_with(file.read())
        assert heir.read() == file.read()
        assert heir.replay_s == 2.0
    finally:
        heir.close()


def test_a_journal_that_begins_with_another_ones_file_says_what_that_says_and_what_was_running_has_ended(
    file: JournalFile, folder: str, tmp_path: Path
) -> None:
    run(file, 1, "x = 1", "x", took_s=2.0)
    file.append(begun(2, "os._exit(1)"))
    end = file.position.offset
    file.append(begun(3, "cut off"))
    os.truncate(os.path.join(folder, "0.journal"), end + 5)
    stored = find_journal(folder)
    assert stored is not None
    assert stored.nbytes == end
    heir = JournalFile(str(tmp_path / "heir"))
    try:
        heir.begin_with(stored.journal.recovered(), stored)
        assert os.path.samefile(tmp_path / "heir" / "1.journal", os.path.join(folder, "0.journal"))
        run(heir, 4, "y = 1")
        assert codes(heir.read()) == ["x = 1", "os._exit(1)", "y = 1"]
        assert [entry.state for entry in heir.read().entries] == [State.COMPLETED, State.BEGUN, State.COMPLETED]
        assert (heir.read().taken, heir.replay_s) == ({"ann": 4}, 2.0)
        assert heir.position.offset == os.path.getsize(tmp_path / "heir" / "1.journal")
    finally:
        heir.close()


def test_where_files_cannot_be_linked_a_journal_is_written_anew(
    file: JournalFile, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", refuse)
    run(file, 1, "x = 1", "x")
    heir = JournalFile(str(tmp_path / "heir"))
    try:
        stored = find_journal(folder)
        heir.begin_with(file.read(), stored)
        assert heir.read() == file.read()
    finally:
        heir.close()


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
    copy.accept(JournalBatch(Position(0, 0), b"abc", 2))

    def full(fd: int, data: Buffer) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="no space"):
            copy.accept(JournalBatch(Position(0, 3), b"def", 2))
    assert copy.position == Position(0, 3)


def test_a_closed_journal_leaves_its_files(file: JournalFile, folder: str) -> None:
    file.append(begun(1))
    file.close()
    assert len(read_journal(folder).entries) == 1


def codes_of(snapshot: Snapshot | None, entries: Sequence[JournalEntry]) -> list[str]:
    """All that has run: what a snapshot holds of it stands in its inputs here."""
    return [*(snapshot.inputs if snapshot else ()), *codes(Journal(None, (), tuple(entries)))]


@given(
    st.lists(st.sampled_from(["run", "full", "room", "draft", "adopt", "discard", "flush"]), min_size=15, max_size=40)
)
@example(["full", "run", "room", "draft", "flush", "run", "adopt"])
@example(["full", "run", "room", "draft", "adopt"])
@example(["draft", "full", "run", "room", "flush", "adopt"])
def test_whatever_is_full_when_nothing_is_lost_or_said_twice(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as parent, pytest.MonkeyPatch.context() as patch:
        disk = Disk(Path(parent), patch)
        file = JournalFile(os.path.join(parent, "journal"))
        expected: list[str] = []
        draft: Draft | None = None
        for step in [*steps, "room", "run"]:
            match step:
                case "run":
                    expected.append(f"x = {len(expected)}")
                    run(file, len(expected), expected[-1], "x")
                case "full" | "room":
                    disk.error = errno.ENOSPC if step == "full" else 0
                case "flush":
                    file.flush()
                case "draft" if draft is None:
                    with contextlib.suppress(OSError):
                        draft = file.draft(Snapshot(inputs=tuple(expected)))
                case "adopt" if draft is not None:
                    with contextlib.suppress(OSError):
                        file.adopt(draft)
                    draft = None
                case "discard" if draft is not None:
                    draft.discard()
                    draft = None
            assert codes_of(file.read().snapshot, file.read().entries) == expected
        if draft is not None:
            draft.discard()
        assert file.failure is None
        journal = read_journal(os.path.join(parent, "journal"))
        assert codes_of(journal.snapshot, journal.entries) == expected
        file.close()
