"""Failures that nobody asks for are reported; those that somebody saw, or brought about, are not (ER4)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

import pytest

from nsactors import Client, Cluster
from nsactors.testing import TIMEOUT_S, Gate


def test_a_failure_that_nobody_asked_for_is_reported_when_the_client_is_closed(connect: Callable[..., Client]) -> None:
    told: list[str] = []
    client = connect(report=told.append)
    result = client[1].execute("1/0")
    assert result.wait(TIMEOUT_S)
    client.close()
    assert len(told) == 1
    assert all(part in told[0] for part in ("1 call failed", "ZeroDivisionError", "engine 1")), told[0]


@pytest.mark.once
def test_equal_failures_that_nobody_asked_for_are_reported_once(connect: Callable[..., Client]) -> None:
    told: list[str] = []
    client = connect(report=told.append)
    assert client[:].execute("1/0").wait(TIMEOUT_S)
    client.close()
    assert (told[0].count("ZeroDivisionError"), "4 calls failed" in told[0]) == (1, True), told[0]


@pytest.mark.once
@pytest.mark.parametrize("ask", ["get", "result", "exception", "successful"])
def test_a_failure_that_somebody_asked_for_is_not_reported(connect: Callable[..., Client], ask: str) -> None:
    told: list[str] = []
    client = connect(report=told.append)
    result = client[0].execute("1/0")
    assert result.wait(TIMEOUT_S)
    with contextlib.suppress(ZeroDivisionError):
        getattr(result, ask)()
    client.close()
    assert told == []


@pytest.mark.sampled
@pytest.mark.parametrize("ask", ["get", "result", "exception"])
def test_a_failure_that_somebody_waited_for_is_not_reported(
    connect: Callable[..., Client], gate: Gate, ask: str
) -> None:
    told: list[str] = []
    client = connect(report=told.append)
    client[0].push({"pass_gate": gate.pass_through}, block=True)
    result = client[0].execute("pass_gate(); 1/0")
    gate.wait_arrived()
    opener = threading.Timer(0.05, gate.open)  # later than the question, or the test proves less
    opener.start()
    with contextlib.suppress(ZeroDivisionError):
        getattr(result, ask)(timeout=TIMEOUT_S)
    opener.join()
    client.close()
    assert told == []


@pytest.mark.once
def test_a_failure_that_somebody_awaited_is_not_reported(connect: Callable[..., Client], gate: Gate) -> None:
    told: list[str] = []
    client = connect(report=told.append)
    client[0].push({"pass_gate": gate.pass_through}, block=True)

    async def main() -> None:
        result = client[0].execute("pass_gate(); 1/0")
        asyncio.get_running_loop().call_later(0.05, gate.open)
        with contextlib.suppress(ZeroDivisionError):
            await asyncio.wait_for(result, TIMEOUT_S)

    asyncio.run(main())
    client.close()
    assert told == []


@pytest.mark.once
def test_a_result_that_was_cancelled_is_not_reported(connect: Callable[..., Client], gate: Gate) -> None:
    told: list[str] = []
    client = connect(report=told.append)
    held = client[0].apply_async(gate.pass_through)
    queued = client[0].apply_async(abs, -1)
    gate.wait_arrived()
    queued.cancel()
    gate.open()
    held.get(TIMEOUT_S)
    assert client.wait(timeout=TIMEOUT_S)
    client.close()
    assert told == []


def test_a_failure_is_told_on_stderr_unless_somebody_else_takes_it(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    with cluster.connect_client_sync() as client:
        assert client[0].execute("1/0").wait(TIMEOUT_S)
    assert "ZeroDivisionError" in capsys.readouterr().err
