"""Interrupts under stress: they reach user code of the request they were meant for, quickly, and nothing else."""

import random
import statistics
import threading
import time
from collections.abc import Iterator

import pytest

from nsactors import AsyncResult, Client, Cluster, DirectView
from nsactors.errors import RemoteError
from nsactors.protocol.control import Interrupt
from nsactors.testing import TIMEOUT_S, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.serial, pytest.mark.timeout(300)]

AT_ONCE_S = 0.3
LONGEST_S = 1.0

ENDLESS = {
    "a loop": "while True: pass",
    "a sleep": "time.sleep(600)",
    "NumPy": "import numpy as np\na = np.ones((600, 600))\nwhile True: a @ a",
    "printing": "while True: print('x' * 50)",
    "a shell command": "!sleep 600",
    "an await": "import asyncio\nawait asyncio.sleep(600)",
    "a busy coroutine": "import asyncio\nasync def spin():\n    while True: pass\nawait spin()",
    "a task of its own": "import asyncio\nasync def spin():\n    while True: pass\nawait asyncio.create_task(spin())",
}


@pytest.fixture(scope="module")
def rc() -> Iterator[Client]:
    with Cluster(n=1) as client:
        client[0].execute("import time", block=True)
        yield client


@pytest.fixture
def engine(rc: Client) -> DirectView:
    return rc[0]


def is_running(rc: Client, result: AsyncResult) -> bool:
    """Return whether this request runs, and no earlier one."""
    running = [entry for entry in rc.history(client=rc.name, last=1) if entry.outcome == "running"]
    return [str(entry.request) for entry in running] == result.msg_ids


def interrupt_when_running(rc: Client, engine: DirectView, code: str, delay_s: float) -> float:
    """Run an endless cell, interrupt it a moment after it has begun, and say how long it took to stop."""
    result = engine.execute("begun = True\n" + code)
    wait_until(lambda: is_running(rc, result))
    threading.Event().wait(delay_s)
    sent = time.monotonic()
    rc.interrupt(0)
    with pytest.raises(RemoteError, match="KeyboardInterrupt"):
        result.get(TIMEOUT_S)
    return time.monotonic() - sent


@pytest.mark.parametrize("what", ENDLESS)
def test_endless_code_stops_at_once_and_the_namespace_stays(rc: Client, engine: DirectView, what: str) -> None:
    randomness = random.Random(what)
    engine["kept"] = what
    delays = [interrupt_when_running(rc, engine, ENDLESS[what], randomness.uniform(0, 0.2)) for _ in range(3)]
    assert statistics.median(delays) < AT_ONCE_S
    assert max(delays) < LONGEST_S
    assert engine["kept"] == what
    with pytest.raises(ZeroDivisionError) as failure:
        engine.execute("1/0", block=True)
    assert "1/0" in failure.value.__notes__[-1]


def test_interrupts_around_short_cells_never_stray(
    rc: Client, engine: DirectView, request: pytest.FixtureRequest
) -> None:
    many = 1000 if request.config.getoption("--full-size") else 300
    randomness = random.Random(0)
    engine.execute("count = 0", block=True)
    cells = ["count += 1", "count += 1; print(count)", "count += 1; time.sleep(0.003)", "count += 1\ncount"]
    interrupted = 0
    for _ in range(many):
        result = engine.execute(randomness.choice(cells), silent=randomness.random() < 0.5)
        threading.Event().wait(randomness.uniform(0, 0.004))
        requests = frozenset(call.request_id for call in rc.session.open_calls())
        rc.session.controller.command([0], Interrupt(requests))
        failure = result.exception(TIMEOUT_S)
        if failure is not None:
            assert isinstance(failure, RemoteError)
            assert failure.ename == "KeyboardInterrupt"
            interrupted += 1
        # This one comes right after: a signal that strays would hit it.
        assert engine.apply_sync(abs, -1) == 1
    assert 0 < interrupted < many  # the moments were well chosen: some hit, some came too late
    assert many - interrupted <= engine["count"] <= many


def test_an_interrupted_await_leaves_no_task_behind(rc: Client, engine: DirectView) -> None:
    code = """
import asyncio
late = False
async def leave_a_trace():
    while not late: await asyncio.sleep(0.01)
    globals()['came_late'] = True
task = asyncio.create_task(leave_a_trace())
await asyncio.sleep(600)
"""
    interrupt_when_running(rc, engine, code, 0.05)
    engine.execute("late = True; await asyncio.sleep(0.2)", block=True)
    with pytest.raises(NameError):
        engine.get("came_late")


def test_a_call_past_its_time_limit_is_interrupted_and_says_so(engine: DirectView) -> None:
    with pytest.raises(TimeoutError, match=r"time limit of 0\.3 s"):
        engine.execute("time.sleep(600)", timeout=0.3).get(TIMEOUT_S)
    assert engine.apply_sync(abs, -2) == 2


def test_a_view_can_limit_the_time_of_its_calls(engine: DirectView) -> None:
    with engine.temp_flags(timeout=0.3), pytest.raises(TimeoutError):
        engine.apply_sync(time.sleep, 600)  # noqa: TID251 (this call will be interrupted)
    assert engine.apply_sync(abs, -2) == 2


def test_a_restarted_engine_keeps_its_id_and_loses_its_names(rc: Client, engine: DirectView) -> None:
    engine["gone"] = 1
    endless = engine.execute("while True: pass")
    rc.shutdown(0, restart=True)
    with pytest.raises(Exception, match="engine 0"):
        endless.get(TIMEOUT_S)
    rc.wait_for_engines(1, timeout=TIMEOUT_S)
    assert rc.ids == [0]
    with pytest.raises(NameError):
        engine.get("gone")
    engine.execute("import time", block=True)
