"""The figures of the object store in Ray's logs, and warnings about objects that go to disk."""

import itertools
import logging
import os
import threading
from pathlib import Path

import pytest

from nsactors.errors import StoreFull
from nsactors.protocol.engine_info import StoreMemory
from nsactors.transport.ray import object_store
from nsactors.transport.ray.object_store import SPARE_BYTES, SpillCheck, StoreFile

MB = 1_000_000
RAY_LOGGER = logging.getLogger("ray._raylet")


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of MB that are used in a store of 100 MB; a test may change it."""
    used = [0]
    monkeypatch.setattr(object_store, "store_memory", lambda: StoreMemory("host", "node", 100 * MB, used[0] * MB, 0))
    return used


def megabytes(number: int) -> list[bytes]:
    return [bytes(number * MB)]


def test_what_fits_is_put_without_a_word(used: list[int]) -> None:
    assert SpillCheck().before_put(megabytes(100)) is None


def test_what_does_not_fit_is_told_with_what_is_free(used: list[int]) -> None:
    used[0] = 70
    warning = SpillCheck().before_put(megabytes(20) * 2)
    assert warning is not None
    assert (warning.nbytes, warning.free_bytes, warning.capacity_bytes) == (40 * MB, 30 * MB, 100 * MB)


def test_a_full_store_is_told_once_and_again_when_it_has_been_emptied(used: list[int]) -> None:
    check = SpillCheck(clock=itertools.count(step=10).__next__)
    told = []
    for used[0] in (90, 95, 10, 95):
        told.append(check.before_put(megabytes(20)) is not None)
    assert told == [True, False, False, True]


def test_a_burst_of_puts_asks_once_while_there_is_plenty_of_room(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def store_memory() -> StoreMemory:
        asked.append(len(asked))
        return StoreMemory("host", "node", 1000 * MB, 0, 0)

    monkeypatch.setattr(object_store, "store_memory", store_memory)
    check = SpillCheck(clock=lambda: 0.0)
    for _ in range(10):
        check.before_put(megabytes(25))
    assert len(asked) == 1
    check.before_put(megabytes(25))
    check.before_put(megabytes(25))
    assert len(asked) == 2


def test_a_small_put_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "store_memory", lambda: pytest.fail("asked"))
    assert SpillCheck().before_put(megabytes(1)) is None


def test_where_ray_does_not_tell_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "store_memory", lambda: None)
    assert SpillCheck().before_put(megabytes(20)) is None
    assert object_store._listener.ask(None) == ""


def test_an_answer_is_taken_out_of_the_log_and_other_lines_are_not(caplog: pytest.LogCaptureFixture) -> None:
    def log_usage() -> None:
        other = threading.Thread(target=RAY_LOGGER.error, args=("from another thread",))
        other.start()
        other.join()
        RAY_LOGGER.warning("capacity: 100")

    level = RAY_LOGGER.level
    assert object_store._listener.ask(log_usage) == "capacity: 100"
    assert caplog.messages == ["from another thread"]
    assert (RAY_LOGGER.level, RAY_LOGGER.filters) == (level, [])


def test_lines_that_ray_would_not_have_logged_stay_unlogged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def log_usage() -> None:
        other = threading.Thread(target=RAY_LOGGER.warning, args=("from another thread",))
        other.start()
        other.join()

    monkeypatch.setattr(logging.getLogger("ray"), "level", logging.ERROR)
    assert object_store._listener.ask(log_usage) == ""
    assert caplog.messages == []


@pytest.fixture
def store_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoreFile:
    """The file of a store that has 10 MB of memory, on a file system with 20 MB left."""
    path = tmp_path / "plasma"
    path.write_bytes(os.urandom(10 * MB))
    real = os.statvfs(path)
    fields = list(real)
    fields[1], fields[4] = 1, 20 * MB  # f_frsize, f_bavail
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(fields))
    return StoreFile(str(path), "/dev/shm")


def test_a_value_that_memory_is_left_for_needs_no_question(store_file: StoreFile) -> None:
    store_file.require_room("a value", 20 * MB - SPARE_BYTES, pytest.fail)


def test_memory_that_objects_have_left_is_written_again(store_file: StoreFile) -> None:
    made = os.stat(store_file._path).st_blocks * 512
    store_file.require_room("a value", 20 * MB, lambda: made - 5 * MB)


@pytest.mark.parametrize("used", [10 * MB, None], ids=["all is in use", "nothing is known"])
def test_a_value_without_memory_is_refused_with_what_is_left(store_file: StoreFile, used: int | None) -> None:
    with pytest.raises(StoreFull, match=r"a value \(20 MB\): /dev/shm, .* has 20(\.\d)? MB left"):
        store_file.require_room("a value", 20 * MB, lambda: used)


def test_the_store_of_a_process_that_is_gone_is_not_known() -> None:
    assert StoreFile.of_raylet(2**22 + 1) is None
