"""Ctrl-C at a terminal, at random moments, over everything that a cell can be doing on its engines."""

from __future__ import annotations

import logging
import os
import random
import select
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsactors.testing import TIMEOUT_S
from tests.notebooks.prompt import Prompt

pytestmark = [pytest.mark.ray, pytest.mark.serial, pytest.mark.timeout(180)]

ENGINES = 2
PRESSES_EACH = 3
LATEST_PRESS_S = 0.4
MEDIAN_LIMIT_S, LIMIT_S = 0.3, 1.0
TASKS_LIMIT_S = 0.5
ATTEMPTS = 2  # a machine may pause for longer than the limit; not each time

# `arrive` tells the test that the engine runs this cell.
CELLS = {
    "Python loop": ["arrive()", "while True: count += 1"],
    "time.sleep": ["arrive()", "time.sleep(60)"],
    "NumPy loop": ["arrive()", "while True: np.sort(numbers)"],
    "printing": ["arrive()", "for i in range(10**9): print('line', i)"],
    "shell": ["arrive()", "!sleep 60"],
    "await": ["arrive()", "await asyncio.sleep(60)"],
    "ray.get": ["arrive()", "ray.get(slow.remote())"],
}
SETUP = [
    "import asyncio, pathlib, ray, time",
    "import numpy as np",
    "count, numbers = 0, np.random.rand(100_000)",
    "arrive = lambda: pathlib.Path({fifo!r}).write_text('.')",
    "slow = ray.remote(num_cpus=0)(lambda: time.sleep(60))",
]


class Session:
    """A prompt with engines, and the pipe on which these tell that they run a cell."""

    def __init__(self, folder: Path) -> None:
        fifo = os.fspath(folder / "arrived")
        os.mkfifo(fifo)
        self._arrived = os.open(fifo, os.O_RDWR)
        self.prompt = Prompt(folder)
        self.prompt.run("%load_ext nsactors")
        self.prompt.run("%pxconfig --progress-after -1")
        self.prompt.run(f"import nsactors; rc = nsactors.Cluster(n={ENGINES}).start_and_connect_sync()")
        self.prompt.run_cell("%%px", *(line.format(fifo=fifo) for line in SETUP))
        self._marks = 0
        self.said = ""

    def start(self, *lines: str) -> None:
        """Type a cell; returns when every engine runs it."""
        self.prompt.type_cell("%%px", *lines)
        self.await_engines()

    def await_engines(self) -> None:
        """Return when every engine runs what was typed."""
        for _ in range(ENGINES):
            assert select.select([self._arrived], [], [], TIMEOUT_S)[0], "an engine has not begun to run the cell"
            os.read(self._arrived, 1)

    def press(self) -> tuple[float, str]:
        """Press Ctrl-C; the seconds until the prompt is back, and what was said before it."""
        began = time.perf_counter()
        self.prompt.interrupt()
        said = self.prompt.until_prompt()
        return time.perf_counter() - began, said

    def press_in_the_gap(self) -> float:
        """Press Ctrl-C when there may be no cell any more; the seconds until the session obeys again."""
        began = time.perf_counter()
        self.prompt.interrupt()
        return self.settle() - began

    def settle(self) -> float:
        """Return when the session obeys again: when. How often the prompt comes depends on the moment of a press."""
        self._marks += 1
        # A question may be there, or come: an empty answer waits on, and an empty line does nothing.
        self.prompt.child.sendline("")
        self.prompt.child.sendline(f"print('mark', {self._marks})")
        self.prompt.wait_for(f"mark {self._marks}\r\n")
        at = time.perf_counter()
        self.said = self.prompt.child.before or ""
        self.prompt.until_prompt()
        return at

    def check_all_is_well(self, kept: int) -> None:
        """Check that the names exist, that the next cell runs, and that the next traceback is that of its cell."""
        assert self.prompt.run("%px print('kept', kept)") == f"[0-1] kept {kept}"
        said = self.prompt.run("%px {}['missing']")
        assert "KeyError" in said
        assert "KeyboardInterrupt" not in said

    def close(self) -> None:
        self.prompt.close()
        os.close(self._arrived)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    session = Session(tmp_path_factory.mktemp("ctrl_c"))
    try:
        yield session
        session.prompt.leave()
    finally:
        session.close()


@pytest.fixture(scope="module")
def seconds() -> list[float]:
    """The time in seconds that each press has taken."""
    return []


def test_control_c_ends_tasks_that_flood_the_screen(session: Session) -> None:
    session.prompt.run("flood = lambda item: (arrive(), all(print('line', i) is None for i in range(10**9)))")
    for attempt in range(ATTEMPTS):
        session.prompt.child.sendline("rc.load_balanced_view().map_sync(flood, range(4))")
        session.await_engines()
        session.prompt.look_on(LATEST_PRESS_S)
        took, said = session.press()
        assert "KeyboardInterrupt" in said
        session.prompt.run(f"%px kept = {attempt}")
        session.check_all_is_well(attempt)
        if took < TASKS_LIMIT_S:
            break
    assert took < TASKS_LIMIT_S


@pytest.mark.parametrize("press", range(PRESSES_EACH))
@pytest.mark.parametrize("doing", CELLS)
def test_control_c_ends_a_cell_at_once(session: Session, seconds: list[float], doing: str, press: int) -> None:
    moments = random.Random(f"{doing} {press}")
    session.prompt.run(f"%px kept = {press}")
    for _ in range(ATTEMPTS):
        session.start(*CELLS[doing])
        session.prompt.look_on(moments.uniform(0.0, LATEST_PRESS_S))
        took, said = session.press()
        assert "%px failed on 2 of 2 engines" in said
        assert "KeyboardInterrupt" in said
        session.check_all_is_well(press)
        if took < LIMIT_S:
            break
        logging.warning("Ctrl-C took %.2f s during %s", took, doing)
    seconds.append(took)
    assert took < LIMIT_S


@pytest.mark.parametrize("press", range(PRESSES_EACH))
def test_control_c_just_after_a_cell_harms_nothing(session: Session, seconds: list[float], press: int) -> None:
    session.prompt.run(f"%px kept = {press}")
    moments = random.Random(press)
    for _ in range(ATTEMPTS):
        session.start("arrive()")
        session.prompt.look_on(moments.uniform(0.0, 0.05))
        took = session.press_in_the_gap()
        session.check_all_is_well(press)
        if took < LIMIT_S:
            break
        logging.warning("Ctrl-C took %.2f s just after a cell", took)
    seconds.append(took)
    assert took < LIMIT_S


@pytest.mark.parametrize("gaps_ms", [(0, 0), (2, 3), (10, 10), (30, 60), (20, 20, 20, 20)])
def test_control_c_pressed_several_times_reaches_the_engines_and_tears_nothing(
    session: Session, gaps_ms: tuple[int, ...]
) -> None:
    session.prompt.run("%px kept = 3")
    session.start(*CELLS["time.sleep"])
    session.prompt.interrupt()
    for gap_ms in gaps_ms:
        session.prompt.look_on(gap_ms / 1000)
        session.prompt.interrupt()
    session.settle()
    assert "KeyboardInterrupt" in session.said
    assert all(word not in session.said for word in ("Custom TB Handler failed", "ray/", "exception occurred"))
    session.check_all_is_well(3)


def test_half_of_all_presses_are_hardly_noticed(seconds: list[float]) -> None:
    print("Ctrl-C to prompt, seconds:", *(f"{taken:.3f}" for taken in sorted(seconds)))
    assert len(seconds) == PRESSES_EACH * (len(CELLS) + 1)
    assert statistics.median(seconds) < MEDIAN_LIMIT_S
