"""The chunks of balanced maps, from the pieces in which items have ended."""

from __future__ import annotations

from typing import Any

import pytest

from nsactors.ipyparallel.client.chunks import ChunkIds, ChunkTable, Piece, task_id_of
from nsactors.ipyparallel.client.metadata import Metadata


def piece(start: int, stop: int, engine_id: int = 0, **known: Any) -> Piece:
    times = {"started": start, "completed": stop, "received": stop + 1}
    return Piece(start, stop, Metadata({"engine_id": engine_id, "status": "ok", **times, **known}))


def table(*pieces: Piece, length: int = 10, size: int = 3) -> ChunkTable:
    return ChunkTable(ChunkIds("me:1", length, size), length, size, pieces, {"submitted": -1})


def test_an_id_tells_the_map_and_the_first_item() -> None:
    assert list(ChunkIds("me:1", 5, 2)) == ["me:1/items:0", "me:1/items:2", "me:1/items:4"]
    assert task_id_of("me:1/items:2") == task_id_of("me:1") == "me:1"


def test_the_number_of_a_chunk_is_found_by_its_id() -> None:
    ids = ChunkIds("me:1", 10**9, 2)
    assert len(ids) == 5 * 10**8
    assert ids[-1] == "me:1/items:999999998"
    assert ids[:2] == ["me:1/items:0", "me:1/items:2"]
    assert [ids.number_of(msg_id) for msg_id in (ids[0], ids[-1])] == [0, len(ids) - 1]
    for other in ("me:1", "me:2/items:0", "me:1/items:1", "me:1/items:-2", "me:1/items:1000000000", "me:1/items:x"):
        with pytest.raises(KeyError):
            ids.number_of(other)


def test_a_table_is_kept_with_the_pieces_of_its_last_chunks() -> None:
    found = table(piece(0, 5, stdout="abc"), piece(5, 8, stdout="de", data={"x": 1}), piece(8, 10)).shortened(1, 2)
    assert [each[:2] for each in found._pieces] == [(5, 8), (8, 10)]
    assert [row["status"] for row in found] == [None, None, "ok", "ok"]
    assert found[1]["stdout"] == ""
    assert (found[2]["stdout"], found[2]["data"]) == ("", {})


def test_a_chunk_has_ended_when_all_its_items_have() -> None:
    found = table(piece(0, 2), piece(4, 6, 1))
    assert found.pending_ids() == {"me:1/items:0", "me:1/items:3", "me:1/items:6", "me:1/items:9"}
    assert [row["status"] for row in found] == [None] * 4
    found = table(piece(0, 2), piece(2, 4, 1), piece(4, 6, 2), piece(9, 10, 3))
    assert found.pending_ids() == {"me:1/items:6"}
    assert [row["engine_id"] for row in found] == [1, 2, None, 3]
    assert (found[1]["started"], found[1]["completed"], found[1]["received"]) == (2, 6, 7)
    assert [row["submitted"] for row in found] == [-1] * 4
    assert table().pending_ids() == set(ChunkIds("me:1", 10, 3))
    assert table(piece(0, 10)).pending_ids() == set()


def test_one_failed_piece_is_the_failure_of_its_chunks() -> None:
    error = ValueError("x")
    found = table(piece(0, 1), piece(1, 2, 5, status="error", error=error), piece(2, 10, 6))
    assert (found[0]["status"], found[0]["error"], found[0]["engine_id"]) == ("error", error, 5)
    assert [row["status"] for row in found[1:]] == ["ok"] * 3


def test_output_is_that_of_the_chunk_in_which_its_piece_begins() -> None:
    found = table(piece(0, 2, stdout="a"), piece(2, 5, stdout="b", data={"x": 1}), piece(5, 10, stdout="c"))
    assert [row["stdout"] for row in found] == ["ab", "c", "", ""]
    assert [row["data"] for row in found] == [{"x": 1}, {}, {}, {}]
