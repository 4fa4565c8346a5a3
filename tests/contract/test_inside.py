"""Engines that work can be looked into: their stacks, values in their namespaces, and the time of functions."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nsactors import Client
from nsactors.errors import (
    CompositeError,
    EngineLost,
    EngineSilent,
    InvalidArgument,
    InvalidName,
    NoSuchEngine,
    TimeLimitExceeded,
)
from nsactors.inside import processes
from nsactors.inside.stacks import SILENT
from nsactors.protocol.messages import Capability, RequestId
from nsactors.testing import TIMEOUT_S, Gate, wait_until


@pytest.fixture(autouse=True)
def _patience_of_stacks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines of a busy machine may reply late; but tests of silent ones wait for nothing."""
    silent = "silent" in request.node.name
    monkeypatch.setattr("nsactors.inside.stacks.REPLY_S", 1.0 if silent else 10.0)
    monkeypatch.setattr("nsactors.inside.stacks.LATE_S", 0.1)
    monkeypatch.setattr("nsactors.inside.values.SLACK_S", 10.0)
    monkeypatch.setattr("nsactors.inside.values.LISTED_S", TIMEOUT_S)
    monkeypatch.setattr("nsactors.inside.profiles.STARTED_S", 10.0)
    monkeypatch.setattr("nsactors.inside.profiles.STOPPED_S", 0.5 if "leaves" in request.node.name else TIMEOUT_S)
    monkeypatch.setattr(processes, "READ_S", TIMEOUT_S / 2)
    monkeypatch.setattr(processes, "WRITTEN_S", TIMEOUT_S / 2)


def functions(rc: Client, engine_id: int, **options: Any) -> list[str]:
    return [frame.function for frame in rc.stack(engine_id, **options)[engine_id].frames]


def test_the_stacks_of_busy_and_idle_engines_are_shown(rc: Client, gate: Gate) -> None:
    rc[:2].apply_async(gate.pass_through)
    gate.wait_arrived(2)
    # They have passed the line that tells of their arrival at different times.
    wait_until(lambda: [ids for ids, _ in rc.stack().groups()] == [[0, 1], [2, 3]])
    found = rc.stack()
    assert found[0].client == rc.name
    assert "pass_through" in found[0].frames[0].function
    assert found[0].for_s is not None
    assert found[2].is_idle
    gate.open()


def test_the_stack_of_a_cell_has_its_lines(rc: Client, gate: Gate) -> None:
    rc[0].push({"gate": gate.pass_through}, block=True)
    rc[0].execute("def waits():\n    return gate()\n\nwaits()", silent=False)
    gate.wait_arrived()
    frames = rc.stack(0)[0].frames
    assert [(frame.function, frame.line, frame.source) for frame in frames[:2]] == [
        ("<module>", 4, "waits()"),
        ("waits", 2, "return gate()"),
    ]
    assert frames[0].file.startswith("<cell ")
    gate.open()


def test_a_call_that_waits_for_a_message_is_told(rc: Client) -> None:
    mail = rc[:2].communicator()
    receives = rc[0].execute("got = comm.recv(source=1)")
    wait_until(lambda: bool(rc.stack(0)[0].waits))
    assert rc.stack(0)[0].waits[0].startswith("recv from 1 for ")
    rc[1].execute("comm.send('x', dest=0)", block=True)
    assert receives.wait(TIMEOUT_S)
    mail.close()


def test_a_task_of_a_load_balanced_view_is_seen(rc: Client, gate: Gate) -> None:
    rc.load_balanced_view(targets=[2]).apply_async(gate.pass_through)
    gate.wait_arrived()
    assert functions(rc, 2)
    gate.open()


@pytest.mark.needs(Capability.PROCESS)
def test_the_users_threads_are_shown_if_they_are_asked_for(rc: Client, gate: Gate) -> None:
    rc[0].push({"gate": gate.pass_through}, block=True)
    rc[0].execute("import threading; t = threading.Thread(target=lambda: gate(), name='mine'); t.start()", block=True)
    gate.wait_arrived()
    assert [thread.name for thread in rc.stack(0, threads=True)[0].threads] == ["requests", "mine"]
    assert len(rc.stack(0)[0].threads) == 1
    gate.open()
    rc[0].execute("t.join()", block=True)


@pytest.mark.needs(Capability.PROCESS)
@pytest.mark.skipif(processes.py_spy() is None, reason="py-spy is not installed")
def test_a_silent_engine_is_read_from_outside(rc: Client, gate: Gate) -> None:
    rc[1].apply_async(gate.pass_holding_gil)
    gate.wait_arrived()
    found = rc.stack([0, 1])
    gate.open()
    assert found[0].is_idle
    if "A signal needs no permission" in found[1].notes[-1]:
        pytest.skip(found[1].notes[-1])
    assert found[1].notes == (SILENT,)
    assert "pass_through" in found[1].frames[0].function


def sleep_in_c(entered: Callable[[], object], holds_gil: bool) -> int:
    """Sleep in C, and return 0, or -1 if a signal has cut the sleep short."""
    import ctypes

    library = (ctypes.PyDLL if holds_gil else ctypes.CDLL)(None)
    entered()
    return int(library.usleep(900_000))


@pytest.mark.needs(Capability.PROCESS)
@pytest.mark.skipif(processes.py_spy() is None, reason="py-spy is not installed")
def test_a_silent_engine_that_sleeps_in_c_is_not_woken_up(rc: Client, gate: Gate) -> None:
    gate.open()
    sleeping = [rc[i].apply_async(sleep_in_c, gate.pass_through, bool(i)) for i in (0, 1)]
    gate.wait_arrived(2)
    found = rc.stack([0, 1])
    assert [ar.get(TIMEOUT_S) for ar in sleeping] == [0, 0]
    assert list(found) == [0, 1]


def test_a_client_knows_which_of_its_requests_have_ended(rc: Client, gate: Gate) -> None:
    running = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    ended = rc[1].apply_async(abs, -1)
    ended.get(TIMEOUT_S)
    assert [rc.session.has_ended(ar.calls[0].request_id) for ar in (running, ended)] == [False, True]
    gate.open()
    other = RequestId("another-1", 0)
    assert not rc.session.has_ended(other)


@pytest.mark.needs(Capability.PROCESS)
def test_a_silent_engine_without_py_spy_is_read_by_a_signal_only_if_that_is_asked_for(
    rc: Client, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "py_spy", lambda: None)
    rc[1].apply_async(gate.pass_holding_gil)
    gate.wait_arrived()
    found = rc.stack(1)[1]
    assert (found.frames, found.notes[0]) == ((), SILENT)
    assert "pip install nsactors[inside]" in found.notes[1]
    assert "pass_through" in functions(rc, 1, disturb=True)[0]
    gate.open()


def test_stacks_of_engines_that_are_not_there_are_refused(rc: Client) -> None:
    with pytest.raises(NoSuchEngine, match="no engine 99"):
        rc.stack(99)
    with pytest.raises(InvalidArgument, match="stack\\(\\) takes threads"):
        rc.stack(threads="yes")  # type: ignore[arg-type]


def test_an_engine_that_has_been_stopped_is_not_among_them(rc: Client, add_engines: Callable[[int], list[int]]) -> None:
    (added,) = add_engines(1)
    rc.shutdown(added)
    wait_until(lambda: added not in rc.ids)
    with pytest.raises(NoSuchEngine):
        rc.stack(added)
    assert added not in rc.stack()


def test_a_value_is_seen_while_the_engine_works(rc: Client, gate: Gate) -> None:
    rc[:].push({"results": [1, 2, 3], "gate": gate.pass_through}, block=True)
    running = rc[:2].execute("results.append(4)\ngate()")
    gate.wait_arrived(2)
    assert rc[0].peek("len(results)", timeout=TIMEOUT_S) == 4
    assert rc[:].peek("results[-1]", timeout=TIMEOUT_S) == [4, 4, 3, 3]
    assert not running.ready()
    gate.open()
    assert running.wait(TIMEOUT_S)


def test_a_large_array_is_peeked_at(rc: Client) -> None:
    rc[0].execute("import numpy; table = numpy.arange(1_000_000)", block=True)
    assert rc[0].peek("table", timeout=TIMEOUT_S).sum() == 499_999_500_000


def test_the_errors_of_a_peek_are_those_of_the_engines(rc: Client) -> None:
    rc[0].push({"x": 0}, block=True)
    with pytest.raises(ZeroDivisionError):
        rc[0].peek("1 / x", timeout=TIMEOUT_S)
    with pytest.raises(CompositeError, match="peek\\(1 / x\\) failed on 2 of 2 engines") as caught:
        rc[:2].peek("1 / x", timeout=TIMEOUT_S)
    assert [type(error).__name__ for error in caught.value.exceptions] == ["ZeroDivisionError", "NameError"]
    with pytest.raises(InvalidName):
        rc[0].peek("x = 1")


def test_text_that_a_peek_prints_comes_here_and_not_to_the_request(
    rc: Client, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    rc[0].push({"gate": gate.pass_through}, block=True)
    running = rc.direct_view(0, output="keep").execute("print('mine')\ngate()")
    gate.wait_arrived()
    assert rc[0].peek("print('told') or 5", timeout=TIMEOUT_S) == 5
    gate.open()
    assert running.get(TIMEOUT_S).stdout == "mine\n"
    assert "[0] told" in capsys.readouterr().out


def test_a_peek_that_hangs_is_given_up_and_delays_no_other(rc: Client, gate: Gate) -> None:
    rc[0].push({"gate": gate.pass_through}, block=True)
    with pytest.raises(TimeLimitExceeded, match="peek\\(gate\\(\\)\\)"):
        rc[0].peek("gate()", timeout=0.1)
    assert rc[0].peek("5", timeout=TIMEOUT_S) == 5
    assert rc[0].apply_sync(abs, -1) == 1
    gate.open()


def test_a_peek_ends_with_the_process_of_its_engine(
    rc: Client, gate: Gate, add_engines: Callable[[int], list[int]]
) -> None:
    (added,) = add_engines(1)
    rc[added].push({"gate": gate.pass_through}, block=True)
    with ThreadPoolExecutor(1) as pool:
        peeking = pool.submit(rc[added].peek, "gate()", timeout=100 * TIMEOUT_S)
        gate.wait_arrived()
        rc.shutdown(added)
        error = peeking.exception(TIMEOUT_S)
        gate.open()
    assert isinstance(error, EngineLost)


def test_the_names_on_engines_are_listed_with_equal_ones_once(rc: Client) -> None:
    rc[:].push({"x": 5}, block=True)
    rc[0].push({"x": 6}, block=True)
    found = rc.variables()
    assert {i: found[i]["x"].text for i in found} == {0: "6", 1: "5", 2: "5", 3: "5"}
    assert [line.split()[-1] for line in repr(found).splitlines()[2:]] == ["0", "1-3"]
    assert list(rc.variables([1])) == [1]


@pytest.mark.needs(Capability.PROCESS)
def test_a_peek_at_a_silent_engine_is_refused_with_its_reason(
    rc: Client, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsactors.inside.values.SLACK_S", 0.2)
    rc[1].apply_async(gate.pass_holding_gil)
    gate.wait_arrived()
    with pytest.raises(EngineSilent, match="C code holds its interpreter"):
        rc[1].peek("5", timeout=0.1)
    gate.open()


def busy(seconds: float) -> int:
    import time

    end, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        count += 1
    return count


def test_a_profile_has_the_functions_of_a_call_on_each_engine(rc: Client) -> None:
    profile = rc[:2].profile(busy, 0.3, interval=0.002)
    assert profile.problems == {}
    assert list(profile.by_engine) == [0, 1]
    assert "busy" in {function.name for function in profile.functions()}
    assert len(profile.value) == 2


def test_only_the_clients_own_requests_are_in_a_profile(rc: Client, connect: Callable[..., Client]) -> None:
    with rc[0].profiled(interval=0.002) as profile:
        connect()[0].apply_sync(busy, 0.1)
    assert profile.functions() == []


def test_tasks_of_a_load_balanced_view_are_in_a_profile(rc: Client) -> None:
    view = rc.load_balanced_view()
    with view.profiled(interval=0.002) as profile:
        view.map_sync(busy, [0.1] * 8)
    assert "busy" in {function.name for function in profile.functions()}


def test_calls_are_counted(rc: Client) -> None:
    with rc[0].profiled(how="calls") as profile:
        rc[0].apply_sync(lambda: [abs(i) for i in range(7)])
    assert {function.name: function.number for function in profile.functions()}["<built-in method builtins.abs>"] == 7
    assert rc[0].apply_sync(abs, -1) == 1


def test_a_profile_is_there_although_a_cell_fails(rc: Client) -> None:
    with pytest.raises(ZeroDivisionError), rc[0].profiled(how="calls") as profile:
        rc[0].execute("def f(): 1 / 0\nf()", block=True)
    assert "f" in {function.name for function in profile.functions()}


def test_an_engine_that_leaves_meanwhile_is_told(rc: Client, add_engines: Callable[[int], list[int]]) -> None:
    (added,) = add_engines(1)
    with rc[[0, added]].profiled() as profile:
        rc.shutdown(added)
        wait_until(lambda: added not in rc.ids)
    assert list(profile.problems) == [added]
    assert list(profile.by_engine) == [0]
