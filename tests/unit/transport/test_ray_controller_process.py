"""The calls by which the controller notices the death of an engine."""

from __future__ import annotations

import asyncio
import sys
import types
from concurrent.futures import Future
from typing import Any

import pytest

from nsactors.transport.ray import controller_process


class RayError(Exception):
    """Ray's class of the same name."""


class ActorUnavailableError(RayError):
    """Ray's class of the same name."""


class ActorDiedError(RayError):
    """Ray's class of the same name."""


class FakeEngine:
    """An engine's actor whose parked calls end with the given errors, one after the other."""

    def __init__(self, *endings: Exception) -> None:
        self.calls: list[str] = []
        self._endings = list(endings)
        self.is_here = types.SimpleNamespace(remote=lambda: self.calls.append("is_here"))
        self.end = types.SimpleNamespace(remote=self._end)

    def _end(self, _: Any) -> asyncio.Future[None]:
        self.calls.append("end")
        result: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        result.set_exception(self._endings.pop(0))
        return result


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray in whose controller no engine is asked to end."""

    class Reference:
        def future(self) -> Future[None]:
            return Future()

    remote = types.SimpleNamespace(remote=lambda *_: Reference())
    controller = types.SimpleNamespace(end_requested=types.SimpleNamespace(options=lambda **_: remote))
    context = types.SimpleNamespace(current_actor=controller)
    fake = types.ModuleType("ray")
    task_error = type("RayTaskError", (RayError,), {})
    errors = types.SimpleNamespace(RayTaskError=task_error, ActorUnavailableError=ActorUnavailableError)
    monkeypatch.setattr(fake, "exceptions", errors, raising=False)
    monkeypatch.setattr(fake, "get_runtime_context", lambda: context, raising=False)
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(controller_process, "PARK_AGAIN_S", 0.0)


@pytest.mark.usefixtures("ray")
def test_each_parked_call_follows_a_call_that_shows_whether_there_is_an_engine() -> None:
    engine = FakeEngine(ActorUnavailableError(), ActorUnavailableError(), ActorDiedError("died"))

    async def watch() -> None:
        launcher = controller_process._RayLauncher("lab", None)
        with pytest.raises(ActorDiedError):
            await launcher._park((0, 1), engine)

    asyncio.run(watch())
    assert engine.calls == ["is_here", "end"] * 3
