"""What Ray's logs say of the object store, and when a put is told to go to disk."""

import itertools
import logging
import threading

import pytest

from nsactors.core.memory import StoreMemory
from nsactors.transport import ray_memory
from nsactors.transport.ray_memory import SpillCheck

MB = 1_000_000
RAY_LOGGER = logging.getLogger("ray._raylet")


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many MB of a store of 100 MB are used; a test may change it."""
    used = [0]
    monkeypatch.setattr(ray_memory, "store_memory", lambda: StoreMemory("host", "node", 100 * MB, used[0] * MB, 0))
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

    monkeypatch.setattr(ray_memory, "store_memory", store_memory)
    check = SpillCheck(clock=lambda: 0.0)
    for _ in range(10):
        check.before_put(megabytes(25))
    assert len(asked) == 1
    check.before_put(megabytes(25))
    check.before_put(megabytes(25))
    assert len(asked) == 2


def test_a_small_put_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_memory, "store_memory", lambda: pytest.fail("asked"))
    assert SpillCheck().before_put(megabytes(1)) is None


def test_where_ray_does_not_tell_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_memory, "store_memory", lambda: None)
    assert SpillCheck().before_put(megabytes(20)) is None
    assert ray_memory._listener.ask(None) == ""


def test_an_answer_is_taken_out_of_the_log_and_other_lines_are_not(caplog: pytest.LogCaptureFixture) -> None:
    def log_usage() -> None:
        other = threading.Thread(target=RAY_LOGGER.error, args=("from another thread",))
        other.start()
        other.join()
        RAY_LOGGER.warning("capacity: 100")

    level = RAY_LOGGER.level
    assert ray_memory._listener.ask(log_usage) == "capacity: 100"
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
    assert ray_memory._listener.ask(log_usage) == ""
    assert caplog.messages == []
