from __future__ import annotations

import asyncio
import pickle
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from nsactors.errors import ClusterUnreachable, StoreFull
from nsactors.protocol.engine_info import EngineInfo
from nsactors.transport.base import Envelope
from nsactors.transport.ray.relays import Promise, RayRelay, RayRelays, _RelayedEngine


class Remote:
    """A method of an actor, which a test answers."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answers: list[Future[Any]] = []
        self.failing = False

    def remote(self, *args: Any) -> Any:
        if self.failing:
            raise ConnectionError("no way to it")
        self.calls.append(args)
        self.answers.append(Future())
        return self

    def future(self) -> Future[Any]:
        return self.answers[-1]


class Ray:
    """The part of Ray that relays use, with one actor."""

    def __init__(self) -> None:
        self.carry, self.more = Remote(), Remote()

    def __call__(self, *_: Any, **__: Any) -> Ray:
        return self

    remote = options = __call__


@pytest.fixture
def ray() -> Ray:
    return Ray()


@pytest.fixture
def relays(ray: Ray) -> RayRelays:
    return RayRelays(ray, threading.Event())


def to(engine_id: int, incarnation: int = 0) -> Envelope:
    return Envelope(EngineInfo(engine_id, incarnation, pid=1, host="", address=None), 0, 0)


def heard(promises: list[Promise]) -> list[Any]:
    answers: list[Any] = []
    for promise in promises:
        promise.when_kept(answers.append)
    return answers


def test_a_listener_that_fails_takes_no_answer_from_the_others(
    ray: Ray, relays: RayRelays, capsys: pytest.CaptureFixture[str]
) -> None:
    promises = relays.send([to(0), to(0)], (b"", None))

    def fail(answer: Any) -> None:
        raise RuntimeError("the listener of the first")

    promises[0].when_kept(fail)
    answers = heard(promises[1:])
    ray.carry.answers[-1].set_result(([(0, b"a"), (1, b"b")], False))
    assert answers == [b"b"]
    assert "the listener of the first" in capsys.readouterr().err


def test_answers_that_are_here_are_kept_though_no_more_can_be_asked_for(ray: Ray, relays: RayRelays) -> None:
    promises = relays.send([to(0), to(0)], (b"", None))
    answers = heard(promises)
    ray.more.failing = True
    ray.carry.answers[-1].set_result(([(1, b"b")], True))
    assert answers[0] == b"b"
    assert isinstance(answers[1], ClusterUnreachable)


def test_a_request_that_could_not_be_sent_takes_no_turn(ray: Ray, relays: RayRelays) -> None:
    ray.carry.failing = True
    with pytest.raises(ConnectionError):
        relays.send([to(0)], (b"", None))
    ray.carry.failing = False
    relays.send([to(0)], (b"", None))
    turn, newcomers, *_ = ray.carry.calls[0]
    assert (turn, list(newcomers)) == (0, [0])


def test_a_relay_is_told_of_each_incarnation_once(ray: Ray, relays: RayRelays) -> None:
    for incarnation in (0, 0, 1, 1):
        relays.send([to(0, incarnation)], (b"", None))
    assert [list(newcomers) for _, newcomers, *_ in ray.carry.calls] == [[0], [], [0], []]
    assert len(relays._relay_of) == 1


class Engine:
    """An engine's actor whose every answer is an error."""

    def __init__(self, error: Exception) -> None:
        self.handle = self
        self._error = error

    async def remote(self, *_: Any) -> Any:
        raise self._error


async def carried(engine: Any, turn: int = 0, relay: RayRelay | None = None) -> Any:
    relay = relay or RayRelay()
    return await relay.carry(turn, {0: _RelayedEngine(0, engine, None, "")}, [(0, 0, 0)], b"", None)


def test_a_full_store_is_told_as_such_by_a_relay_too() -> None:
    exceptions = pytest.importorskip("ray.exceptions")
    error = exceptions.RayTaskError("handle", "...", exceptions.ObjectStoreFullError("full"))
    answers, _ = asyncio.run(carried(Engine(error)))
    assert isinstance(pickle.loads(pickle.dumps(answers[0][1])), StoreFull)


def test_a_turn_that_fails_lets_the_next_one_come() -> None:
    pytest.importorskip("ray.exceptions")

    async def two_turns() -> Any:
        relay = RayRelay()
        with pytest.raises(AttributeError):
            await carried(None, 0, relay)
        async with asyncio.timeout(5):
            return await carried(Engine(ValueError("x")), 1, relay)

    ((_, answer),), more_to_come = asyncio.run(two_turns())
    assert isinstance(answer, ClusterUnreachable)
    assert not more_to_come
