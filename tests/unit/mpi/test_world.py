"""Worlds whose forming fails, played without MPI on engines in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from nsactors import Client, Cluster
from nsactors.errors import NoSuchEngine, WorldBroken, WorldNotFormed
from nsactors.mpi import engine_side
from nsactors.mpi import world as world_module
from nsactors.mpi.world import World, WorldState
from nsactors.session.session import Session
from nsactors.testing import wait_until


class Played:
    """The engines' side of worlds.

    Attributes:
        fails: whether the next world is not formed.
        barred: the engines on which MPI was barred in a new process.
        restarted: the engines that were given new processes.
    """

    def __init__(self) -> None:
        self.fails = False
        self.barred: list[int] = []
        self.restarted: list[int] = []

    def connect(self, *terms: Any) -> Any:
        if self.fails:
            raise WorldNotFormed("it was played")
        return SimpleNamespace(close=lambda: None, let_go=lambda: None)

    def call(self, session: Session, engine_ids: Sequence[int], function: Callable[..., Any], *args: Any) -> None:
        assert function is engine_side.bar_fresh
        self.barred += engine_ids


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    played = Played()
    monkeypatch.setattr(world_module, "check", lambda session, ids, launcher, timeout_s: SimpleNamespace(library=None))
    monkeypatch.setattr(world_module, "connect", played.connect)
    monkeypatch.setattr(world_module, "call", played.call)
    monkeypatch.setattr(world_module, "take_down", lambda session, ids, broken: None)
    monkeypatch.setattr(Session, "require", lambda session, capability, what: None)
    monkeypatch.setattr(Session, "restart", lambda session, ids: played.restarted.extend(ids))
    return played


@pytest.fixture
def rc() -> Iterator[Client]:
    with Cluster(n=2, backend="local") as client:
        yield client


def test_a_world_that_is_not_formed_anew_is_broken_and_can_be_tried_again(rc: Client, played: Played) -> None:
    world = World(rc[:])
    played.fails = True
    with pytest.raises(WorldNotFormed):
        world.reform()
    assert (world.state, type(world.error)) == (WorldState.BROKEN, WorldBroken)
    wait_until(lambda: sorted(played.barred) == [0, 1])
    assert played.restarted == [0, 1]
    played.fails = False
    assert world.reform().state is WorldState.READY
    assert world.error is None


def test_a_world_is_not_seen_to_be_broken_before_its_end_can_be_waited_for(
    rc: Client, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(rc[:])
    seen: list[WorldState] = []

    class Thread(threading.Thread):
        def start(self) -> None:
            seen.append(world.state)
            super().start()

    monkeypatch.setattr(world_module, "threading", SimpleNamespace(Thread=Thread))
    rc.shutdown(targets=[1])
    wait_until(lambda: world.state is WorldState.BROKEN)
    assert seen == [WorldState.READY]


def test_a_world_whose_member_does_not_return_stays_broken(rc: Client, played: Played) -> None:
    world = World(rc[:])
    rc.shutdown(targets=[1])
    wait_until(lambda: world.state is WorldState.BROKEN)
    error = world.error
    assert "engine 1 does not return: call view.mpi() on a view of other engines" in str(error)
    with pytest.raises(NoSuchEngine):
        world.reform()
    assert (world.state, world.error, played.restarted) == (WorldState.BROKEN, error, [])
