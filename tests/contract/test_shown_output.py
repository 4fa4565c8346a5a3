"""What engines print appears while somebody waits for it; here, where standard output is no terminal, as printed."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from nsactors import Client, DirectView
from nsactors.protocol.messages import Capability
from nsactors.testing import TIMEOUT_S, Gate, wait_until

Capsys = pytest.CaptureFixture[str]


def say(item: int) -> int:
    print(f"{item} first")
    print(f"{item} second")
    print(f"{item} to stderr", file=sys.stderr)
    return item


def say_or_fail(item: int) -> int:
    for line in range(3):
        print(f"item {item} line {line}")
    if item % 10 == 0:
        raise ValueError(item)
    return item


WAITS: dict[str, Callable[[Client], Any]] = {
    "apply": lambda rc: rc[0].apply_sync(say, 0),
    "get": lambda rc: rc[0].apply_async(say, 0).get(TIMEOUT_S),
    "result": lambda rc: rc[0].apply_async(say, 0).result(TIMEOUT_S),
    "execute": lambda rc: (rc[0].push({"say": say}, block=True), rc[0].execute("say(0)", block=True)),
    "map": lambda rc: rc[:].map_sync(say, [0]),
    "imap": lambda rc: list(rc[:].imap(say, [0])),
    "iteration": lambda rc: list(rc[:].map_async(say, [0])),
    "iteration in any order": lambda rc: list(rc[:].map(say, [0], block=False, ordered=False)),
    "task": lambda rc: rc.load_balanced_view().apply_sync(say, 0),
    "balanced map": lambda rc: rc.load_balanced_view().map_sync(say, [0]),
    "balanced imap": lambda rc: list(rc.load_balanced_view().imap(say, [0])),
    "iteration of a balanced map": lambda rc: list(rc.load_balanced_view().map_async(say, [0])),
    "remote function": lambda rc: rc[0].remote(block=True)(say)(0),
    "coroutine": lambda rc: asyncio.run(_awaited(rc)),
}


async def _awaited(rc: Client) -> None:
    await rc[0].apply_async(say, 0)


@pytest.mark.sampled
@pytest.mark.parametrize("wait", WAITS)
def test_what_is_waited_for_is_printed_to_the_same_streams(rc: Client, capsys: Capsys, wait: str) -> None:
    WAITS[wait](rc)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("0 first\n0 second\n", "0 to stderr\n")


def test_what_nobody_waits_for_is_kept(rc: Client, capsys: Capsys) -> None:
    result = rc[0].apply_async(say, 0)
    result.wait(TIMEOUT_S)
    assert capsys.readouterr() == ("", "")
    assert (result.stdout, result.stderr) == ("0 first\n0 second\n", "0 to stderr\n")


def test_what_a_failing_call_had_printed_is_shown(rc: Client, capsys: Capsys) -> None:
    for call in (rc[0].apply_async, rc.load_balanced_view().apply_async):
        with pytest.raises(ValueError, match=r"^0"):
            call(say_or_fail, 0).get(TIMEOUT_S)
        assert capsys.readouterr().out == "item 0 line 0\nitem 0 line 1\nitem 0 line 2\n"


@pytest.mark.once
def test_output_is_shown_once_however_often_it_is_asked_for(rc: Client, capsys: Capsys) -> None:
    result = rc[:2].apply_async(print, "hello")
    for _ in range(2):
        result.get(TIMEOUT_S)
        result.display_outputs()
    assert capsys.readouterr().out == "hello\nhello\n"
    assert result.stdout == ["hello\n", "hello\n"]


@pytest.mark.once
def test_display_outputs_shows_the_value_that_waiting_did_not(rc: Client, capsys: Capsys) -> None:
    rc[0].execute("print('text'); 6 * 7", silent=False, block=True).display_outputs()
    out = capsys.readouterr().out
    assert (out.count("text"), out.count("42")) == (1, 1)


@pytest.mark.sampled
@pytest.mark.parametrize("keeps", ["view", "client", "balanced view"])
def test_output_can_be_kept(rc: Client, capsys: Capsys, keeps: str) -> None:
    if keeps == "client":
        rc.output = "keep"
    flag = None if keeps == "client" else "keep"
    view = rc.load_balanced_view(output=flag) if keeps == "balanced view" else rc[0].with_flags(output=flag)
    result = view.apply_async(say, 0)
    result.get(TIMEOUT_S)
    view.map_sync(say, [0])
    assert capsys.readouterr() == ("", "")
    assert result.stdout == "0 first\n0 second\n"


def test_executors_keep_output_unless_their_view_says_otherwise(rc: Client, capsys: Capsys) -> None:
    with rc.load_balanced_view().executor as executor:
        future = executor.submit(say, 0)
        assert list(executor.map(say, [future.result(TIMEOUT_S)])) == [0]
    assert capsys.readouterr() == ("", "")
    assert future.stdout == "0 first\n0 second\n"
    with rc.load_balanced_view(output="show").executor as executor:
        executor.submit(say, 1).result(TIMEOUT_S)
    assert capsys.readouterr().out == "1 first\n1 second\n"


def test_output_is_shown_while_a_task_still_runs(rc: Client, gate: Gate, capsys: Capsys) -> None:
    def speak(pass_through: Callable[[], object]) -> None:
        print("under way")
        pass_through()

    first = rc.load_balanced_view().apply_async(speak, gate.pass_through)
    gate.wait_arrived()
    seen: list[str] = []

    def look() -> bool:
        with pytest.raises(TimeoutError):
            first.get(0.01)
        seen.append(capsys.readouterr().out)
        return "under way\n" in "".join(seen)

    wait_until(look)
    assert not first.done()
    gate.open()
    first.get(TIMEOUT_S)
    assert "".join([*seen, capsys.readouterr().out]) == "under way\n"


def test_every_task_of_a_batch_has_its_own_output(rc: Client, capsys: Capsys) -> None:
    results = [rc.load_balanced_view(targets=[0]).apply_async(say, n) for n in range(20)]
    for n, result in enumerate(results):
        result.get(TIMEOUT_S)
        assert capsys.readouterr().out == f"{n} first\n{n} second\n"
        assert result.stdout == f"{n} first\n{n} second\n"


def test_lines_of_several_engines_stay_whole(dv: DirectView, capsys: Capsys) -> None:
    dv.execute("import time\nfor part in ['one ', 'two ', 'three\\n'] * 20:\n    print(part, end='', flush=True)")
    assert set(capsys.readouterr().out.splitlines()) == {"one two three"}


def test_of_a_thousand_items_every_line_arrives_once_and_in_order(rc: Client, capsys: Capsys) -> None:
    view = rc.load_balanced_view()
    results = view.map_sync(say_or_fail, range(1_000), return_exceptions=True)
    assert sum(isinstance(result, ValueError) for result in results) == 100
    lines: dict[int, list[int]] = defaultdict(list)
    for line in capsys.readouterr().out.splitlines():
        item, number = map(int, re.fullmatch(r"item (\d+) line (\d)", line).groups())  # type: ignore[union-attr]
        lines[item].append(number)
    assert lines == {item: [0, 1, 2] for item in range(1_000)}


def test_a_million_lines_are_cut_and_it_is_said(rc: Client, capsys: Capsys) -> None:
    rc[0].execute("print('\\n'.join(f'line {i}' for i in range(1_000_000)))", block=True)
    shown = capsys.readouterr()
    assert shown.out.startswith("line 0\nline 1\n")
    assert shown.out.endswith("line 999999\n")
    assert len(shown.out) < 2_200_000
    assert "MB of output left out here" in shown.err
    rc.load_balanced_view().map_sync(lambda _: print(("x" * 100 + "\n") * 100_000), [0])
    shown = capsys.readouterr()
    assert "MB of output left out here" in shown.err


@pytest.mark.needs(Capability.PROCESS)
@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.stdout.close(); sys.stderr.close()",
        "import sys\nwith sys.stdout: pass",
        "import os, sys; os.close(1)",
        "import sys; sys.stdout = open('/dev/null', 'w'); sys.stdout.close()",
    ],
)
def test_closing_standard_output_does_not_silence_an_engine(rc: Client, capsys: Capsys, code: str) -> None:
    rc[0].execute(code, block=True)
    rc[0].execute("print('still'); print('here')", block=True)
    assert capsys.readouterr().out == "still\nhere\n"
