"""What is queued or running can be watched, cancelled and interrupted, in every state (A4, ER4)."""

from __future__ import annotations

import concurrent.futures
import signal
import threading
from collections.abc import Callable

import pytest

from nsactors import Client, DirectView
from nsactors.errors import CapabilityError, CompositeError, NoSuchEngine, RemoteError, TaskAborted, TimeLimitExceeded
from nsactors.protocol.messages import Capability
from nsactors.testing import TIMEOUT_S, Gate, wait_until

signals = pytest.mark.needs(Capability.SIGNALS)


def test_what_was_aborted_in_the_queue_never_runs(rc: Client, gate: Gate) -> None:
    rc[0].push({"x": 0}, block=True)
    held, queued = rc[0].apply_async(gate.pass_through), rc[0].execute("x = 1")
    gate.wait_arrived()
    queued.abort()
    gate.open()
    with pytest.raises(TaskAborted) as caught:
        queued.get(TIMEOUT_S)
    assert (held.get(TIMEOUT_S), caught.value.engine_id, rc[0].get("x")) == ("passed", 0, 0)


def test_what_was_aborted_behind_anothers_call_has_ended_at_once(
    rc: Client, connect: Callable[..., Client], gate: Gate
) -> None:
    another = connect()[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    queued = rc[0].apply_async(abs, -1)
    queued.abort()
    with pytest.raises(TaskAborted):
        queued.get(TIMEOUT_S)
    assert not another.done()
    gate.open()
    assert (another.get(TIMEOUT_S), rc[0].apply_sync(abs, -2)) == ("passed", 2)


def test_aborting_leaves_what_runs_alone(rc: Client, gate: Gate) -> None:
    held = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    held.abort()
    gate.open()
    assert held.get(TIMEOUT_S) == "passed"


@pytest.mark.once
def test_what_comes_after_an_aborted_call_runs(rc: Client, gate: Gate) -> None:
    rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    queued, after = rc[0].apply_async(abs, -1), rc[0].apply_async(abs, -2)
    queued.abort()
    gate.open()
    assert after.get(TIMEOUT_S) == 2


@pytest.mark.once
def test_a_finished_result_cannot_be_aborted(rc: Client) -> None:
    result = rc[0].apply_async(abs, -1)
    assert result.wait(TIMEOUT_S)
    with pytest.raises(RuntimeError, match="done"):
        result.abort()


def test_a_client_takes_back_everything_that_it_has_queued(rc: Client, gate: Gate) -> None:
    rc[:].apply_async(gate.pass_through)
    gate.wait_arrived(4)
    queued = [rc[i].apply_async(abs, -1) for i in rc.ids]
    rc.abort()
    gate.open()
    assert [type(result.exception(TIMEOUT_S)) for result in queued] == [TaskAborted] * 4


@pytest.mark.once
def test_a_client_takes_back_what_is_queued_on_chosen_engines(rc: Client, gate: Gate) -> None:
    rc[:2].apply_async(gate.pass_through)
    gate.wait_arrived(2)
    first, second = rc[0].apply_async(abs, -1), rc[1].apply_async(abs, -1)
    rc.abort(targets=0)
    gate.open()
    assert isinstance(first.exception(TIMEOUT_S), TaskAborted)
    assert second.get(TIMEOUT_S) == 1


@pytest.mark.once
def test_chosen_results_are_taken_back_by_result_or_by_id(rc: Client, gate: Gate) -> None:
    rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    first, second, third = (rc[0].apply_async(abs, -n) for n in (1, 2, 3))
    rc.abort([first, second.msg_ids[0]])
    gate.open()
    assert [type(result.exception(TIMEOUT_S)) for result in (first, second)] == [TaskAborted] * 2
    assert third.get(TIMEOUT_S) == 3


def test_one_client_does_not_take_back_what_another_has_queued(
    rc: Client, connect: Callable[..., Client], gate: Gate
) -> None:
    rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    others = connect()[0].apply_async(abs, -1)
    rc.abort()
    gate.open()
    assert others.get(TIMEOUT_S) == 1


@pytest.mark.once
def test_a_composite_tells_which_parts_were_aborted(rc: Client, gate: Gate) -> None:
    rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    result = rc[:2].apply_async(abs, -1)
    assert result.wait(TIMEOUT_S, return_when=concurrent.futures.FIRST_COMPLETED)[0]
    result.abort()
    gate.open()
    with pytest.raises(CompositeError, match="1 of 2") as caught:
        result.get(TIMEOUT_S)
    assert [type(error) for error in caught.value.exceptions] == [TaskAborted]


def test_what_is_cancelled_in_the_queue_never_runs(rc: Client, gate: Gate) -> None:
    rc[0].push({"x": 0}, block=True)
    held, queued = rc[0].apply_async(gate.pass_through), rc[0].execute("x = 1")
    gate.wait_arrived()
    assert (queued.cancel(), queued.cancelled(), queued.done()) == (True, True, True)
    gate.open()
    held.get(TIMEOUT_S)
    assert rc[0].get("x") == 0


def test_what_is_cancelled_while_it_runs_is_not_waited_for(rc: Client, gate: Gate) -> None:
    result = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    assert (result.cancel(), result.cancelled()) == (True, True)
    with pytest.raises(concurrent.futures.CancelledError):
        result.result(TIMEOUT_S)


@pytest.mark.once
def test_asking_a_cancelled_result_raises_at_once(rc: Client, gate: Gate) -> None:
    result = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    result.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        result.get(TIMEOUT_S)


@pytest.mark.once
def test_a_finished_result_cannot_be_cancelled(rc: Client) -> None:
    result = rc[0].apply_async(abs, -1)
    assert result.get(TIMEOUT_S) == 1
    assert (result.cancel(), result.cancelled(), result.get(TIMEOUT_S)) == (False, False, 1)


@pytest.mark.once
def test_a_failed_result_cannot_be_cancelled(rc: Client) -> None:
    result = rc[0].execute("1/0")
    assert isinstance(result.exception(TIMEOUT_S), ZeroDivisionError)
    assert result.cancel() is False


@pytest.mark.once
def test_cancelling_twice_is_cancelling_once(rc: Client, gate: Gate) -> None:
    result = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    assert (result.cancel(), result.cancel()) == (True, True)


@pytest.mark.once
def test_the_callbacks_of_a_cancelled_result_are_called(rc: Client, gate: Gate) -> None:
    called = threading.Event()
    result = rc[0].apply_async(gate.pass_through)
    result.add_done_callback(lambda future: called.set())
    gate.wait_arrived()
    result.cancel()
    assert called.wait(TIMEOUT_S)


def test_engines_that_are_busy_do_not_hold_up_the_others(rc: Client, gate: Gate) -> None:
    held = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    assert rc[1:].apply_async(abs, -1).get(TIMEOUT_S) == [1] * 3
    assert not held.done()


def test_the_queue_status_of_a_busy_engine_is_there_at_once(rc: Client, gate: Gate) -> None:
    rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    rc[0].apply_async(abs, -1)
    status = rc.queue_status()
    assert ({i: status[i]["queue"] for i in rc.ids}, status["unassigned"]) == ({0: 2, 1: 0, 2: 0, 3: 0}, 0)


@pytest.mark.once
def test_the_queue_status_names_the_calls_if_asked(rc: Client, gate: Gate) -> None:
    rc[0].apply_async(gate.pass_through)
    rc[0].apply_async(abs, -1)
    rc[0].execute("1")
    assert rc.queue_status(targets=0, verbose=True)[0]["queue"][1:] == ["apply(abs)", "execute"]


def test_the_queue_status_counts_what_was_completed(rc: Client) -> None:
    before = rc.queue_status()[0]["completed"]
    rc[0].apply_sync(abs, -1)
    wait_until(lambda: rc.queue_status()[0]["completed"] > before)


@pytest.mark.once
def test_the_queue_status_of_a_bad_target_raises_at_the_call(rc: Client) -> None:
    with pytest.raises(NoSuchEngine):
        rc.queue_status(targets=99)


@pytest.mark.needs(Capability.PROCESS)
def test_code_that_holds_the_gil_on_one_engine_holds_up_nobody_else(rc: Client, gate: Gate) -> None:
    held = rc[0].apply_async(gate.pass_holding_gil)
    gate.wait_arrived()
    assert rc.ids == [0, 1, 2, 3]
    assert rc.queue_status()[0]["queue"] == 1
    assert rc[1:].apply_async(abs, -1).get(TIMEOUT_S) == [1] * 3
    gate.open()
    assert held.get(TIMEOUT_S) == "passed"


@pytest.mark.needs(Capability.PROCESS)
def test_code_that_holds_the_gil_runs_on_all_engines_at_once(rc: Client, gate: Gate) -> None:
    result = rc[:].apply_async(gate.pass_holding_gil)
    gate.wait_arrived(4)
    gate.open()
    assert result.get(TIMEOUT_S) == ["passed"] * 4


BUSY = {
    "time.sleep": "import time; ready(); time.sleep(60)",
    "loop": "ready()\nwhile True: pass",
    "await": "import asyncio; ready(); await asyncio.sleep(60)",
    "select": "import select; ready(); select.select([], [], [], 60)",
    "numpy": "import numpy as np; a = np.ones(2**16); ready()\nwhile True: a = np.sqrt(a)",
    "thread join": "import threading; ready(); threading.Event().wait(60)",
    "child process": "import subprocess; ready(); subprocess.run(['sleep', '60'])",
}


@pytest.fixture
def announce(rc: Client, gate: Gate) -> None:
    """Let ``ready()`` on the engine notify the test, and return without waiting."""
    gate.open()
    rc[0].push({"ready": gate.pass_through, "x": 5}, block=True)


@signals
@pytest.mark.parametrize("code", BUSY.values(), ids=BUSY)
def test_an_interrupt_stops_what_runs_and_the_namespace_survives(
    rc: Client, gate: Gate, announce: None, code: str
) -> None:
    result = rc[0].execute(code)
    gate.wait_arrived()
    assert rc.interrupt(targets=0) == [0]
    with pytest.raises(RemoteError) as caught:
        result.get(TIMEOUT_S)
    assert (caught.value.ename, rc[0].get("x")) == ("KeyboardInterrupt", 5)


@signals
def test_an_interrupt_stops_a_function(rc: Client, gate: Gate, told: Callable[[], None]) -> None:
    result = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    rc.interrupt()
    told()  # or an engine that is idle may interrupt what it runs later
    with pytest.raises(RemoteError, match="KeyboardInterrupt"):
        result.get(TIMEOUT_S)


@signals
def test_an_interrupt_does_not_touch_what_is_queued(rc: Client, gate: Gate) -> None:
    held, queued = rc[0].apply_async(gate.pass_through), rc[0].apply_async(abs, -1)
    gate.wait_arrived()
    rc.interrupt(targets=0)
    assert queued.get(TIMEOUT_S) == 1
    assert held.exception(TIMEOUT_S) is not None


@signals
def test_an_interrupt_of_an_idle_engine_does_nothing(rc: Client, told: Callable[[], None]) -> None:
    rc.interrupt(targets=0)
    told()
    assert rc[0].apply_async(abs, -1).get(TIMEOUT_S) == 1


@signals
def test_an_interrupt_can_be_caught_by_the_code_that_runs(rc: Client, gate: Gate) -> None:
    rc[0].push({"pass_gate": gate.pass_through}, block=True)
    result = rc[0].execute("try:\n    pass_gate()\nexcept KeyboardInterrupt:\n    x = 'cleaned up'")
    gate.wait_arrived()
    rc.interrupt(targets=0)
    result.get(TIMEOUT_S)
    assert rc[0].get("x") == "cleaned up"


CATCHING = """
try:
    pass_gate()
except KeyboardInterrupt:
    x = 'cleaned up'
y = 'went on'
"""


@signals
def test_a_call_that_catches_the_interrupt_of_its_time_limit_fails_by_it_all_the_same(rc: Client, gate: Gate) -> None:
    rc[0].push({"pass_gate": gate.pass_through}, block=True)
    with pytest.raises(TimeLimitExceeded, match=r"time limit of 0\.5 s, because it caught the interrupt") as caught:
        rc[0].execute(CATCHING, timeout=0.5).get(TIMEOUT_S)  # the cell is within its `try` long before
    assert caught.value.ran_s is not None
    assert caught.value.ran_s >= 0.5
    assert rc[0].pull(("x", "y"), block=True) == ["cleaned up", "went on"]


@signals
def test_it_is_known_what_keeps_an_interrupted_call_from_ending(rc: Client, gate: Gate) -> None:
    rc[0].push({"pass_gate": gate.pass_through}, block=True)
    # A thread that takes no signals stands for code in C, such as a long sort: it cannot be interrupted either.
    native = rc[0].execute(
        "import signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\n"
        "pass_gate()\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})"
    )
    gate.wait_arrived()
    rc.session.interrupt(native.calls)
    ((engine_id, why),) = rc.session.obstacles(native.calls).items()
    assert engine_id == 0
    assert why.startswith("in C code, which cannot be interrupted: ")
    gate.open()
    with pytest.raises(RemoteError, match="KeyboardInterrupt"):
        native.get(TIMEOUT_S)


@signals
def test_aborting_can_interrupt_what_runs_too(rc: Client, gate: Gate) -> None:
    held, queued = rc[0].apply_async(gate.pass_through), rc[0].apply_async(abs, -1)
    gate.wait_arrived()
    held.abort(interrupt=True)
    with pytest.raises(RemoteError, match="KeyboardInterrupt"):
        held.get(TIMEOUT_S)
    assert queued.get(TIMEOUT_S) == 1


@signals
def test_engines_are_sent_any_signal(rc: Client) -> None:
    code = "import signal, threading; got = threading.Event(); signal.signal(signal.SIGUSR1, lambda *a: got.set())"
    rc[0].execute(code, block=True)
    rc.send_signal(signal.SIGUSR1, targets=0)
    assert rc[0].pull("got.wait(50)").get(TIMEOUT_S) is True


def test_engines_that_cannot_be_interrupted_say_so(rc: Client, told: Callable[[], None]) -> None:
    if Capability.SIGNALS in rc.session.transport.capabilities:
        assert rc.interrupt() == [0, 1, 2, 3]
        told()
    else:
        with pytest.raises(CapabilityError, match="backend='ray'"):
            rc.interrupt()


@pytest.mark.parametrize("balanced", [False, True])
def test_calls_that_cannot_be_interrupted_go_on_and_abort_says_so(rc: Client, gate: Gate, balanced: bool) -> None:
    if Capability.SIGNALS in rc.session.transport.capabilities:
        pytest.skip("engines of this transport can be interrupted")
    view = rc.load_balanced_view([0]) if balanced else rc[0]
    held, queued = view.apply_async(gate.pass_through), view.apply_async(abs, -1)
    gate.wait_arrived()
    queued.abort(interrupt=True)
    with pytest.raises(TaskAborted):
        queued.get(TIMEOUT_S)
    with pytest.raises(CapabilityError, match="cannot interrupt a call that runs"):
        held.abort(interrupt=True)
    gate.open()
    held.get(TIMEOUT_S)


def test_a_failing_call_takes_what_was_queued_behind_it_along_if_asked_to(rc: Client, gate: Gate) -> None:
    engine = rc[0].set_flags(stop_on_error=True)
    running = engine.apply_async(gate.pass_through)
    gate.wait_arrived()
    failing, queued = engine.execute("1/0"), engine.execute("came_after = True")
    others = rc[1].execute("elsewhere = True")
    gate.open()
    running.get(TIMEOUT_S)
    with pytest.raises(ZeroDivisionError):
        failing.get(TIMEOUT_S)
    with pytest.raises(TaskAborted):
        queued.get(TIMEOUT_S)
    others.get(TIMEOUT_S)
    # What is sent by somebody who knows of the failure runs.
    with pytest.raises(NameError):
        engine.get("came_after")


def test_a_failing_call_leaves_what_other_clients_have_queued(
    rc: Client, connect: Callable[..., Client], gate: Gate
) -> None:
    engine = rc[0].set_flags(stop_on_error=True)
    running = engine.apply_async(gate.pass_through)
    gate.wait_arrived()
    failing, other = engine.execute("1/0"), connect()[0].execute("mine = 1")
    gate.open()
    running.get(TIMEOUT_S)
    assert isinstance(failing.exception(TIMEOUT_S), ZeroDivisionError)
    assert other.exception(TIMEOUT_S) is None


def test_a_failing_call_leaves_what_is_queued_behind_it_unless_asked_to(rc: Client, gate: Gate) -> None:
    engine = rc[0]
    running = engine.apply_async(gate.pass_through)
    gate.wait_arrived()
    failing, queued = engine.execute("1/0"), engine.execute("came_after = True")
    gate.open()
    running.get(TIMEOUT_S)
    assert isinstance(failing.exception(TIMEOUT_S), ZeroDivisionError)
    queued.get(TIMEOUT_S)
    assert engine["came_after"]


def test_an_engine_that_was_restarted_takes_more_calls_than_a_send_window_holds(rc: Client, victim: DirectView) -> None:
    before = [victim.apply_async(abs, -1) for _ in range(50)]
    back = threading.Event()
    rc.on_join(lambda engine_id: back.set() if engine_id == victim.targets else None)
    rc.shutdown(victim.targets, restart=True)
    assert back.wait(TIMEOUT_S)
    wait_until(lambda: all(result.done() for result in before))
    after = [victim.apply_async(abs, -n) for n in range(1_200)]
    assert [result.get(TIMEOUT_S) for result in after] == list(range(1_200))


def test_what_a_lost_engine_held_is_told_once(
    connect: Callable[..., Client], victim: DirectView, end_engine: Callable[[int], None]
) -> None:
    told: list[str] = []
    client = connect(report=told.append)
    engine_id = victim.targets
    wait_until(lambda: engine_id in client.ids)
    calls = [client[engine_id].apply_async(abs, -1) for _ in range(3)]
    end_engine(engine_id)
    for call in calls:
        call.exception(TIMEOUT_S)
    client.close()
    assert told == []
