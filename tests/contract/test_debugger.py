"""The debugger: frames of failures on engines, at the prompt of their client."""

from __future__ import annotations

import contextlib
import linecache
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from nsactors import Client, DirectView
from nsactors.errors import CompositeError, DebuggerUnavailable, RemoteError
from nsactors.protocol.messages import Capability
from nsactors.testing import TIMEOUT_S, Gate, wait_until

CODE = """\
def halve(x):
    part = [x, x + 1]
    return part[0] / (x - x)
halve(engine_number)
"""


class Prompt:
    """A user at the client's prompt: types lines, and leaves at the end; a function in place of a line is called."""

    def __init__(self) -> None:
        self.lines: list[str | Callable[[], object]] = []

    def __call__(self, prompt: str) -> str:
        while self.lines:
            line = self.lines.pop(0)
            if isinstance(line, str):
                return line
            line()
        raise EOFError


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> Prompt:
    """A user at a terminal, for all clients that are made from now on."""
    prompt = Prompt()
    monkeypatch.setattr("nsactors.session.session.user_input", lambda: prompt)
    monkeypatch.setattr("nsactors.session.session.UserPrompt.can_ask", lambda self: True)
    return prompt


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    return lambda: capsys.readouterr().out.splitlines()  # noqa: PLW0108 - of the moment of the call


def fail(client: Client, code: str = CODE, targets: Any = "all") -> Exception:
    view = client.direct_view(targets)
    with pytest.raises((RemoteError, CompositeError)) as caught:
        view.execute(code).get(TIMEOUT_S)
    return caught.value


@pytest.fixture
def numbered(rc: Client) -> Client:
    """A client of engines that know their numbers."""
    for engine_id in rc.ids:
        rc[engine_id].push({"engine_number": engine_id}, block=True)
    return rc


def test_the_locals_of_the_failing_frames_take_one_command(
    numbered: Client, prompt: Prompt, shown: Callable[[], list[str]]
) -> None:
    fail(numbered)
    prompt.lines = ["all locals", "engine 2", "part[1]", "up", "all p len(part)"]
    numbered.debug()
    lines = shown()
    assert lines[:2] == ["[engines 0-3]", "ZeroDivisionError: division by zero (execute)"]
    assert lines[2].startswith("halve() <cell ")
    assert "---> 3     return part[0] / (x - x)" in lines
    assert [lines[lines.index("[engine 3]") + n] for n in (1, 2)] == ["x = 3", "part = [3, 4]"]
    assert "3" in lines
    assert any(line.startswith("---> 4 halve(engine_number)") for line in lines)
    assert "[engines 0-1, 3] 2" in lines


def test_an_error_opens_its_own_frames_and_no_newer_ones(
    rc: Client, prompt: Prompt, shown: Callable[[], list[str]]
) -> None:
    older, newer = fail(rc, "x = 5\n1 / 0", 0), fail(rc, "{}[3]", 1)
    prompt.lines = ["x"]
    assert rc.session.debug_error(older)
    assert [line for line in shown() if line in ("5", "[engine 1]")] == ["5"]
    fail(rc, "int('')", 0)
    assert not rc.session.debug_error(older)
    assert "no engine keeps the frames of a failure" in shown()[-1]
    assert rc.session.debug_error(newer)


def test_a_result_opens_its_failures(rc: Client, prompt: Prompt, shown: Callable[[], list[str]]) -> None:
    def work(amount: int) -> float:
        share = amount * 2
        return share / 0

    result = rc[:2].apply_async(work, 4)
    result.wait(TIMEOUT_S)
    prompt.lines = ["all share"]
    result.debug()
    assert "[engines 0-1] 8" in shown()
    rc.debug(result=result)
    fine = rc[0].apply_async(len, "")
    fine.wait(TIMEOUT_S)
    with pytest.raises(DebuggerUnavailable, match="engines keep no frames of this result"):
        fine.debug()


def test_source_that_only_the_client_has_is_shown(rc: Client, shown: Callable[[], list[str]]) -> None:
    source = "def typed(x):\n    return 1 / x\n"
    name = "<ipython-input-of-the-client>"
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), names)
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    try:
        result = rc[:].apply_async(names["typed"], 0)
        result.wait(TIMEOUT_S)
        result.debug()
    finally:
        del linecache.cache[name]
    assert "---> 2     return 1 / x" in shown()


def test_an_item_of_a_map_that_failed_can_be_looked_at(
    rc: Client, prompt: Prompt, shown: Callable[[], list[str]]
) -> None:
    def part(x: int) -> float:
        return 10 / (x - 3)

    result = rc.load_balanced_view().map_async(part, range(5))
    result.wait(TIMEOUT_S)
    prompt.lines = ["x"]
    result.debug()
    assert "3" in shown()


def test_the_engine_serves_requests_meanwhile_and_their_output_is_their_own(
    rc: Client, prompt: Prompt, shown: Callable[[], list[str]]
) -> None:
    fail(rc, "x = 5\n1 / 0", 0)
    served: list[Any] = []

    def serve() -> None:
        served.append(rc[0].execute("for i in range(3): print('of the cell', i)").get(TIMEOUT_S).stdout)

    prompt.lines = ["print('of the debugger')", serve, "x"]
    rc.debug(0)
    assert served == ["of the cell 0\nof the cell 1\nof the cell 2\n"]
    assert [line for line in shown() if line in ("of the debugger", "5")] == ["of the debugger", "5"]


def test_two_clients_look_at_their_own_failures(
    rc: Client, connect: Callable[..., Client], prompt: Prompt, shown: Callable[[], list[str]]
) -> None:
    other = connect("other")
    fail(rc, "x = 'mine'\n1 / 0", 0)
    fail(other, "x = 'theirs'\nint('')", 0)
    prompt.lines = [lambda: other.debug(0)]
    rc.debug(0)
    titles = [line for line in shown() if "Error: " in line]
    assert titles[0].startswith("ZeroDivisionError")
    assert titles[1].startswith("ValueError")


def test_released_frames_are_not_opened(rc: Client) -> None:
    fail(rc, "1 / 0", [0, 1])
    rc.debug(0, forget=True)
    with pytest.raises(DebuggerUnavailable, match="no engine keeps the frames"):
        rc.debug(0)
    rc.debug()
    rc[1].clear(block=True)
    with pytest.raises(DebuggerUnavailable):
        rc.debug()


def test_for_a_client_without_a_prompt_no_frames_are_kept(
    connect: Callable[..., Client], rc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsactors.session.session.UserPrompt.can_ask", lambda self: False)
    script = connect("script")
    error = fail(script, "1 / 0", 0)
    assert isinstance(error, RemoteError)
    assert error.failure.kept == ""
    assert not script.session.debug_error(error)
    with pytest.raises(DebuggerUnavailable):
        script.debug()


def test_without_a_prompt_the_debugger_says_so(rc: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(rc, "1 / 0", 0)
    monkeypatch.setattr("nsactors.session.session.user_input", lambda: None)
    with pytest.raises(DebuggerUnavailable, match="it needs a prompt"):
        rc.debug()


@pytest.mark.needs(Capability.SIGNALS)
def test_the_place_at_which_a_call_was_interrupted_can_be_looked_at(
    rc: Client, prompt: Prompt, shown: Callable[[], list[str]], gate: Gate
) -> None:
    def wait(gate: Gate, count: int) -> None:
        gate.pass_through()

    result = rc[0].apply_async(wait, gate, 7)
    gate.wait_arrived()
    rc.interrupt(0)
    result.wait(TIMEOUT_S)
    prompt.lines = ["up", "up", "count"]
    result.debug()
    assert "7" in shown()


def test_a_debugger_of_an_engine_that_ends_ends_too(
    rc: Client, prompt: Prompt, shown: Callable[[], list[str]], victim: DirectView, end_engine: Callable[[int], None]
) -> None:
    engine_id = victim._resolve(None)[0]
    fail(rc, "1 / 0", engine_id)
    prompt.lines = [lambda: end_engine(engine_id), "p 1", "p 2"]
    rc.debug(engine_id)
    assert "*** the engine is gone" in shown()
    assert prompt.lines == ["p 2"]


# Breakpoints.

STOPS = """\
total = 0
for i in range(2):
    total += i
breakpoint()
total += 10
total += 100
"""


def stopped(client: Client, count: int) -> Callable[[], None]:
    """Return a wait until the client knows of so many engines that are stopped."""
    return lambda: wait_until(lambda: len(client.session.stops.engine_ids) == count)


def untraced(client: Client) -> bool:
    return client[:].apply_sync(sys.gettrace) == [None] * len(client.ids)


@pytest.mark.parametrize("call", ["breakpoint()", "import pdb; pdb.Pdb().set_trace()"])
def test_a_cell_stops_at_a_breakpoint_and_steps_from_statement_to_statement(
    rc: Client, prompt: Prompt, shown: Callable[[], list[str]], call: str
) -> None:
    code = STOPS.replace("breakpoint()", call)
    here = stopped(rc, 4)
    prompt.lines = [here, "engines", "all total", "all n", "all n", "all total", "all total = 1000", "all n"]
    rc[:].execute(code).get(TIMEOUT_S)
    lines = shown()
    assert any(line.startswith("---> 4 ") for line in lines)
    assert [line for line in lines if line.startswith("[engines 0-3] ")] == ["[engines 0-3] 1", "[engines 0-3] 11"]
    assert rc["total"] == [1100] * 4
    assert untraced(rc)


def test_the_prompt_opens_when_all_engines_of_the_call_have_stopped(
    rc: Client, prompt: Prompt, shown: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsactors.inside.debug_console.GATHER_S", TIMEOUT_S)
    began = time.monotonic()
    prompt.lines = ["all c"]
    rc[:3].execute("breakpoint()\nx = 2").get(TIMEOUT_S)
    assert time.monotonic() - began < TIMEOUT_S / 2
    assert shown()[0].startswith("[engines 0-2]")


AWAITS = """\
import asyncio
async def f():
    a = 1
    breakpoint()
    await asyncio.sleep(0)
    b = 2
    return a + b
r = await f()
await asyncio.sleep(0)
r += 10
"""


def test_steps_go_from_line_to_line_where_code_awaits(
    rc: Client, prompt: Prompt, shown: Callable[[], list[str]]
) -> None:
    prompt.lines = ["n", "n", "n", "n", "n", "n", "r = 50", "n", "n"]
    rc[0].execute(AWAITS).get(TIMEOUT_S)
    places = [line.split()[1] for line in shown() if line.startswith("---> ")]
    assert places[:4] == ["4", "5", "6", "7"]
    assert places[-2:] == ["9", "10"]
    assert rc[0]["r"] == 60
    assert untraced(rc)


def test_functions_and_tasks_stop_and_go_on(rc: Client, prompt: Prompt, shown: Callable[[], list[str]]) -> None:
    def double(x: int) -> int:
        y = 2 * x
        breakpoint()
        return y

    prompt.lines = ["y", "y = 7", "c"]
    assert rc[0].apply_async(double, 2).get(TIMEOUT_S) == 7
    prompt.lines = ["all y = 8 ;; c"] * 4
    assert set(rc.load_balanced_view().map_async(double, range(4)).get(TIMEOUT_S)) == {8}
    assert "4" in shown()
    assert untraced(rc)


def test_names_of_commands_are_looked_at_and_changed_where_code_has_stopped(
    rc: Client, prompt: Prompt, shown: Callable[[], list[str]]
) -> None:
    def total(x: int) -> int:
        q, c, n = [10, 20], 3j, x
        breakpoint()
        return n + int(c.imag) + sum(q)

    prompt.lines = ["q[0]", "c.imag", "n + 1", "n = sum(x for _ in q)", "q = [v + x for v in q]", "n += 1", "c"]
    assert rc[0].apply_async(total, 5).get(TIMEOUT_S) == 54
    assert [line for line in shown() if line in ("10", "3.0", "6")] == ["10", "3.0", "6"]
    assert untraced(rc)


def test_a_breakpoint_that_is_set_at_the_prompt_stops_again(
    rc: Client, prompt: Prompt, shown: Callable[[], list[str]]
) -> None:
    code = "breakpoint()\ndef f(x):\n    y = x + 1\n    return y\nr = [f(i) for i in range(2)]"
    prompt.lines = ["n", "n", "b f", "c", "p x", "c", "p x", "cl", "c"]
    rc[0].execute(code).get(TIMEOUT_S)
    assert [line for line in shown() if line in ("0", "1")] == ["0", "1"]
    assert rc[0]["r"] == [1, 2]
    assert untraced(rc)


def test_an_engine_that_clears_its_breakpoints_leaves_those_of_others(
    rc: Client, prompt: Prompt, shown: Callable[[], list[str]]
) -> None:
    code = "def f(x):\n    return x + 40\nbreakpoint()\nr = [f(0), f(1)]"
    at_first, at_second = (stopped(rc, 2) for _ in range(2))
    prompt.lines = [at_first, "engines", "all b f", "all c", at_second, "engines", "cl", "c", "c", "p x + 20", "c"]
    rc[:2].execute(code).get(TIMEOUT_S)
    assert "21" in shown()
    assert rc[:2]["r"] == [[40, 41]] * 2


def listening() -> set[tuple[int, Any]]:
    """The ports at which this process and its children listen."""
    own = psutil.Process()
    found = set()
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            connections = process.net_connections("inet")
            found |= {(process.pid, one.laddr) for one in connections if one.status == psutil.CONN_LISTEN}
    return found


def test_nothing_that_looks_inside_opens_a_port(rc: Client, prompt: Prompt) -> None:
    before = listening()
    fail(rc)
    prompt.lines = ["all locals", "up"]
    rc.debug()
    seen: list[set[tuple[int, Any]]] = []
    prompt.lines = ["p 1", lambda: seen.append(listening()), "c"]
    rc[0].execute("number = 1\nbreakpoint()\nnumber = 2", block=True)
    assert rc[0]["number"] == 2
    rc.stack()
    rc[0].peek("number")
    rc[:].profile(sum, range(1000))
    assert [ports - before for ports in (*seen, listening())] == [set(), set()]


def test_quitting_ends_the_request_with_an_error(rc: Client, prompt: Prompt) -> None:
    prompt.lines = ["q"]
    with pytest.raises(RemoteError) as caught:
        rc[0].execute("breakpoint()\nx = 1").get(TIMEOUT_S)
    assert caught.value.ename == "BdbQuit"
    assert [frame.user for frame in caught.value.failure.frames] == [True]
    assert untraced(rc)


def test_a_stopped_engine_says_for_whom_and_where(rc: Client, prompt: Prompt) -> None:
    told: list[Any] = []
    prompt.lines = [
        lambda: told.append(rc.stopped()),
        lambda: wait_until(lambda: rc.activity().engines[1].state == "stopped"),
        lambda: told.append(rc.activity().engines[1].runs[:23]),
        "c",
    ]
    rc[1].execute("def f():\n    breakpoint()\nf()").get(TIMEOUT_S)
    (stop,) = told[0].values()
    assert (list(told[0]), stop.client, stop.where[:9]) == ([1], rc.name, "f() <cell")
    assert told[1] == "breakpoint in f() <cell"
    assert rc.stopped() == {}


def test_an_engine_stops_for_a_call_that_is_not_awaited_until_its_user_asks(
    rc: Client, prompt: Prompt, shown: Callable[[], list[str]]
) -> None:
    result = rc[0].execute("x = 5\nbreakpoint()\nx += 1")
    wait_until(rc.stopped)
    stopped(rc, 1)()
    prompt.lines = ["x", "c"]
    rc.debug(0)
    assert "5" in shown()
    result.get(TIMEOUT_S)
    assert rc[0]["x"] == 6


def test_an_engine_goes_on_when_its_client_leaves(rc: Client, connect: Callable[..., Client]) -> None:
    other = connect("other")
    other[0].execute("x = 5\nbreakpoint()\nx += 1")
    wait_until(rc.stopped)
    other.close()
    wait_until(lambda: not rc.stopped())
    assert rc[0].pull("x").get(TIMEOUT_S) == 6
    assert untraced(rc)


@pytest.mark.needs(Capability.SIGNALS)
def test_an_interrupt_ends_a_call_that_waits_at_the_prompt(rc: Client) -> None:
    result = rc[0].execute("breakpoint()\nx = 1")
    wait_until(rc.stopped)
    rc.interrupt(0)
    with pytest.raises(RemoteError) as caught:
        result.result(TIMEOUT_S)
    assert caught.value.ename == "KeyboardInterrupt"
    assert rc.stopped() == {}
    assert untraced(rc)


def test_a_breakpoint_at_the_prompt_is_skipped(rc: Client, prompt: Prompt, shown: Callable[[], list[str]]) -> None:
    prompt.lines = ["f()", "c"]
    reply = rc[0].execute("def f():\n    breakpoint()\n    return 'went on'\nbreakpoint()")
    reply.get(TIMEOUT_S)
    assert "'went on'" in shown()
    assert "it was called at the debugger's prompt" in reply.stderr


@pytest.mark.needs(Capability.PROCESS)
def test_a_breakpoint_on_a_thread_of_the_users_is_skipped(rc: Client) -> None:
    code = "import threading\nthread = threading.Thread(target=lambda: breakpoint())\nthread.start()\nthread.join()"
    reply = rc[0].execute(code)
    reply.get(TIMEOUT_S)
    assert "only the thread that runs requests can stop" in reply.stderr
    assert rc[0].with_flags(breakpoints=False).execute(code).get(TIMEOUT_S).stderr == ""


def test_another_client_is_told_who_has_the_debugger_and_can_take_it(
    rc: Client, prompt: Prompt, shown: Callable[[], list[str]], connect: Callable[..., Client]
) -> None:
    running = rc[0].execute("x = 1\nbreakpoint()\ny = x")
    stopped(rc, 1)()
    other = connect()
    with pytest.raises(DebuggerUnavailable, match=f"is stopped at .* for {rc.name}. `%pxdebug --take 0`"):
        other.debug(0)
    with pytest.raises(DebuggerUnavailable, match="none of these engines is stopped"):
        other.debug(1, take=True)
    prompt.lines = ["x", "x = 5", stopped(rc, 0), lambda: held.append(rc.stopped()[0].client), "c"]
    held: list[str] = []
    other.debug(0, take=True)
    assert running.wait(TIMEOUT_S)
    assert (rc[0]["y"], held) == (5, [other.name])
    lines = shown()
    assert any(line.startswith("<module>") for line in lines), lines
    assert "1" in lines
    assert untraced(rc)


@pytest.mark.parametrize("call", ["breakpoint()", "import pdb; pdb.Pdb().set_trace()"])
def test_calls_of_a_view_without_breakpoints_pass_them_without_a_word(rc: Client, prompt: Prompt, call: str) -> None:
    passing = rc[0].with_flags(breakpoints=False)
    assert passing.execute(f"{call}\nx = 1").get(TIMEOUT_S).stderr == ""
    error = fail(rc, "1 / 0", 0)
    prompt.lines = ["x"]
    assert rc.session.debug_error(error), "failures can be looked at all the same"
    prompt.lines = ["x = 5", "c"]
    rc[0].execute("breakpoint()").get(TIMEOUT_S)
    assert rc[0]["x"] == 5, "other calls stop"


def test_engines_without_breakpoints_pass_them_for_every_client(
    own_cluster: Callable[..., Any], prompt: Prompt
) -> None:
    cluster = own_cluster(1, breakpoints="pass")
    client = cluster.start_and_connect_sync()

    def look() -> int:
        breakpoint()
        return 5

    assert client[0].execute("breakpoint()\nx = 1").get(TIMEOUT_S).stderr == ""
    assert client.load_balanced_view().apply_async(look).get(TIMEOUT_S) == 5
    (asking,) = cluster.start_engines(1, breakpoints="ask")
    client.wait_for_engines(2, timeout=TIMEOUT_S)
    prompt.lines = ["x = 5", "c"]
    client[asking].execute("breakpoint()").get(TIMEOUT_S)
    assert client[asking]["x"] == 5
