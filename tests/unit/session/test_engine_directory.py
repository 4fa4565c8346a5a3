"""The engines that a client knows, and the notifications to listeners."""

from __future__ import annotations

import pytest

from nsactors.errors import ConnectionLost, EngineStartError
from nsactors.protocol.control import EngineLeft
from nsactors.protocol.engine_info import EngineInfo
from nsactors.session.engine_directory import EngineDirectory


class Watcher:
    """Takes notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def engine_joined(self, engine: EngineInfo) -> None:
        self.notes.append(f"{engine.engine_id} is there")

    def engine_leaving(self, engine_id: int) -> None:
        self.notes.append(f"{engine_id} is about to go")

    def engine_left(self, left: EngineLeft) -> None:
        self.notes.append(f"{left.engine_id} {'will come' if left.returns else 'will not come'}")

    def cut_off(self, reason: ConnectionLost) -> None:
        self.notes.append("nothing more")


@pytest.fixture
def roster() -> EngineDirectory:
    return EngineDirectory(lambda function: function())


@pytest.fixture
def watcher(roster: EngineDirectory) -> Watcher:
    watcher = Watcher()
    roster.watch(watcher)
    return watcher


def engine(engine_id: int, incarnation: int = 0) -> EngineInfo:
    return EngineInfo(engine_id, incarnation, 1, "here", None)


def test_an_engine_is_awaited_from_the_moment_it_is_asked_for(roster: EngineDirectory, watcher: Watcher) -> None:
    roster.expect([4])
    roster.expect([4])  # by who asked for it, and by the cluster
    roster.add(engine(4))
    assert watcher.notes == ["4 will come", "4 is there"]


def test_who_comes_later_hears_of_engines_that_are_being_started(roster: EngineDirectory) -> None:
    roster.expect([4])
    roster.watch(watcher := Watcher())
    assert watcher.notes == ["4 will come"]


def test_an_engine_that_cannot_start_is_awaited_no_longer(roster: EngineDirectory, watcher: Watcher) -> None:
    roster.expect([4])
    roster.failed_to_start(EngineStartError(4, "no reason", ""))
    roster.expect([4])  # news that came too late
    assert watcher.notes == ["4 will come", "4 will not come"]


def test_an_engine_that_is_stopped_before_it_was_there_is_awaited_no_longer(
    roster: EngineDirectory, watcher: Watcher
) -> None:
    roster.expect([4])
    roster.leave(EngineLeft(4, 0, "stopped", expected=True))
    assert watcher.notes == ["4 will come", "4 will not come"]


def test_an_engine_that_is_there_leaves_once(roster: EngineDirectory, watcher: Watcher) -> None:
    roster.expect([4])
    roster.add(engine(4))
    roster.leave(EngineLeft(4, 0, "stopped", expected=True))
    roster.leave(EngineLeft(4, 0, "stopped", expected=True))
    assert watcher.notes == ["4 will come", "4 is there", "4 will not come"]


def test_a_former_process_of_an_engine_leaves_unheard(roster: EngineDirectory, watcher: Watcher) -> None:
    roster.add(engine(4, 1))
    roster.leave(EngineLeft(4, 0, "died", expected=False))
    assert watcher.notes == ["4 is there"]
