"""What is left of the traceback of an interrupt."""

from __future__ import annotations

import contextlib
import linecache
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from nsactors.namespace.interrupts import CellEventLoop, InterruptHandler, run_user_code, user_traceback
from nsactors.protocol.control import Obstacle
from nsactors.protocol.tasks import MapItems
from nsactors.views.map_parts import MapPart


def struck(*args: Any) -> None:
    """Calls our signal handler, as the interpreter does below what it has stopped."""
    targeted_gate()._on_sigint(2, None)


def targeted_gate() -> InterruptHandler:
    """A handler that has been asked to interrupt the running request."""
    loop: Any = SimpleNamespace(awaiting=True)
    gate = InterruptHandler(loop)
    gate.enter("request")
    gate._target = "request"
    return gate


def frames_of(function: Callable[..., Any], *args: Any) -> list[str]:
    with pytest.raises(KeyboardInterrupt) as caught:
        run_user_code(function, *args)
    return [frame.name for frame in traceback.extract_tb(user_traceback(caught.value))]


def test_our_own_frames_below_the_users_are_left_out() -> None:
    assert frames_of(struck) == ["struck"]


def test_the_users_function_inside_a_map_is_kept() -> None:
    def of_item(item: int) -> None:
        struck()

    mapped = partial(MapPart(of_item, "map"), items=MapItems(range(3), spares=False).as_value(), engine_id=0)
    assert frames_of(mapped, range(3))[-2:] == ["of_item", "struck"]


def test_nothing_is_left_where_only_our_own_code_was_struck() -> None:
    assert frames_of(targeted_gate()._on_sigint, 2, None) == []


@pytest.fixture
def gate() -> Iterator[InterruptHandler]:
    """A gate that SIGINT reaches."""
    before = signal.getsignal(signal.SIGINT)
    gate = InterruptHandler(CellEventLoop())
    gate.install()
    gate.enter("request")
    yield gate
    gate.leave()
    signal.signal(signal.SIGINT, before)


def test_an_obstacle_in_c_code_is_told_with_the_line_that_called_it(gate: InterruptHandler) -> None:
    told: list[Obstacle | None] = []
    arrived, opened = os.pipe(), os.pipe()

    def interrupt() -> None:
        os.read(arrived[0], 1)
        gate.interrupt("request")
        told.append(gate.obstacle("request"))
        os.write(opened[1], b".")

    helper = threading.Thread(target=interrupt)
    helper.start()
    # A thread that takes no signals stands for code in C that does not return: its handler does not run either.
    lines = ["mask(True)", "os.write(arrived[1], b'.')", "os.read(opened[0], 1)", "mask(False)"]
    code = compile("\n".join(lines), "<engine 3, cell 7>", "exec")
    linecache.cache["<engine 3, cell 7>"] = (1, None, [line + "\n" for line in lines], "")
    with pytest.raises(KeyboardInterrupt):
        run_user_code(exec, code, {"os": os, "arrived": arrived, "opened": opened, "mask": mask_interrupts})
    helper.join()
    assert told == [Obstacle("native", "os.read(opened[0], 1) (<cell 7>, line 3)")]
    for fd in (*arrived, *opened):
        os.close(fd)


def mask_interrupts(masked: bool) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK if masked else signal.SIG_UNBLOCK, {signal.SIGINT})


def test_code_that_has_caught_its_interrupt_is_told_as_the_obstacle(gate: InterruptHandler) -> None:
    told: list[Obstacle | None] = []
    caught, asked = threading.Event(), threading.Event()

    def interrupt() -> None:
        gate.interrupt("request")
        caught.wait(60)
        told.append(gate.obstacle("request"))
        asked.set()

    def catch() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            helper.start()
            threading.Event().wait(60)
        caught.set()
        asked.wait(60)

    helper = threading.Thread(target=interrupt)
    run_user_code(catch)
    helper.join()
    assert [(obstacle.kind, "asked.wait(60)" in obstacle.where) for obstacle in told if obstacle] == [("caught", True)]


def test_what_does_not_run_has_no_obstacle(gate: InterruptHandler) -> None:
    assert gate.obstacle("another") is None


def test_an_interrupt_ends_a_request_that_has_got_to_a_debuggers_prompt_meanwhile(gate: InterruptHandler) -> None:
    looks = iter([False, True])  # the prompt comes behind the first look, and signals have no effect there
    gate.instead = lambda: next(looks)
    gate._cell_loop.awaiting = False
    assert gate.interrupt("request")
    gate.remind()  # or this would strike the next command
    assert list(looks) == []


def test_an_interrupt_of_a_debuggers_command_does_nothing_at_the_prompt(gate: InterruptHandler) -> None:
    ended: list[str] = []
    gate.instead = lambda: bool(ended.append("request"))
    gate.is_at_prompt = lambda: True
    assert gate.interrupt("request", is_of_command=True)
    assert ended == []
