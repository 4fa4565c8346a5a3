"""The request that a process ran last, as others find it when the process has died."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsactors.namespace.last_request import BegunFile, last_begun
from nsactors.transport.base import tail_of


def test_the_last_request_is_read_with_where_its_output_begins(tmp_path: Path) -> None:
    path = str(tmp_path / "engine-0.0")
    begun = BegunFile(path)
    assert last_begun(path) == (None, 0)
    begun.note("a client with a long name-1234:1000000", 123456)
    begun.note("ann-1:2", 7)
    begun.close()
    assert last_begun(path) == ("ann-1:2", 7)


def test_nothing_is_known_where_the_file_is_elsewhere(tmp_path: Path) -> None:
    assert last_begun(str(tmp_path / "engine-0.0")) == (None, 0)


@pytest.mark.parametrize("text", ["", "7 ann-1:2", "ann-1:2\0", "x ann\0"])
def test_a_record_that_is_not_whole_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "engine.begun").write_text(text)
    assert last_begun(str(tmp_path / "engine")) == (None, 0)


def test_where_no_file_can_be_made_requests_run_all_the_same(tmp_path: Path) -> None:
    begun = BegunFile(str(tmp_path / "missing" / "engine"))
    begun.note("ann-1:2", 7)
    begun.close()


def test_of_what_a_process_wrote_the_part_of_its_last_request_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "engine.stderr"
    path.write_text("an earlier cell\nthis one\n")
    assert tail_of(str(path), len("an earlier cell\n")) == "this one"
    assert tail_of(str(path)) == "an earlier cell\nthis one"
