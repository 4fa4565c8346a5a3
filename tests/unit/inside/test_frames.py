"""The stack of a thread is cut where the user's code begins."""

from __future__ import annotations

import asyncio
import bdb
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from nsactors.inside.frames import other_stacks, request_stack, user_places
from nsactors.namespace.interrupts import CellEventLoop, run_user_code
from nsactors.testing import TIMEOUT_S


def outer(function: Callable[[], Any]) -> Any:
    return function()


def names(places: list[Any] | None) -> list[str]:
    return [code.co_name for code, _ in places or ()]


def test_only_functions_of_the_user_are_in_it_the_innermost_first() -> None:
    def inner() -> list[str]:
        return names(user_places(sys._getframe()))

    assert run_user_code(outer, inner) == ["inner", "outer"]


def test_functions_of_a_debugger_that_has_stopped_it_are_not_in_it() -> None:
    class Stop(bdb.Bdb):
        def user_line(self, frame: FrameType) -> None:
            stacks.append(user_places(sys._getframe()))

    def stopped() -> None:
        Stop().set_trace()
        sys.settrace(None)

    stacks: list[Any] = []
    usual = sys.gettrace()
    try:
        run_user_code(stopped)
    finally:
        sys.settrace(usual)
    assert names(stacks[0]) == ["stopped"]


def test_without_code_of_the_user_there_is_none() -> None:
    assert user_places(sys._getframe()) is None


def test_the_stack_is_described_with_lines_the_outermost_first() -> None:
    loop = CellEventLoop()

    def inner() -> Any:
        return request_stack(threading.get_ident(), loop, is_running=True)

    stack = run_user_code(outer, inner)
    frames = [frame for frame in stack.frames if frame.file == __file__]
    assert [frame.function.rpartition(".")[2] for frame in frames] == ["outer", "inner"]
    assert frames[0].source == "return function()"
    assert frames[0].own


def test_a_cell_that_awaits_is_in_the_coroutines_that_it_awaits() -> None:
    loop, seen = CellEventLoop(), []

    async def waits() -> None:
        await asyncio.sleep(0)
        await asyncio.get_running_loop().create_future()

    async def cell() -> None:
        await waits()

    async def watched() -> None:
        task = asyncio.get_running_loop().create_task(watch(asyncio.current_task()))
        try:
            await loop.user_code(cell())
        finally:
            await asyncio.gather(task, return_exceptions=True)

    async def watch(cell_task: Any) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen.append(names(user_places(None, loop)))
        cell_task.cancel()

    try:
        loop.run(watched())
    except asyncio.CancelledError:
        pass
    finally:
        loop.close()
    assert seen == [["waits", "cell"]]


def test_other_threads_are_shown_if_they_run_code_of_the_user() -> None:
    arrived, leave = threading.Event(), threading.Event()

    def works() -> None:
        arrived.set()
        leave.wait(TIMEOUT_S)

    thread = threading.Thread(target=works, name="worker of the user", daemon=True)
    idle = threading.Thread(target=leave.wait, name="a thread of a library", daemon=True)
    for one in (thread, idle):
        one.start()
    try:
        assert arrived.wait(TIMEOUT_S)
        stacks = {stack.name: stack for stack in other_stacks(threading.main_thread().ident or 0)}
    finally:
        leave.set()
        for one in (thread, idle):
            one.join(TIMEOUT_S)
    assert [frame.function.rpartition(".")[2] for frame in stacks["worker of the user"].frames if frame.own] == [
        "works"
    ]
    assert "a thread of a library" not in stacks
