"""A program makes its namespace an engine, for other programs of its user; here both are one process, or real ones."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import nsactors
from nsactors import Client
from nsactors.cli.command import main
from nsactors.errors import CapabilityError, ClusterNameTaken, ClusterNotFound, InvalidArgument, ProgramEnded
from nsactors.testing import TIMEOUT_S, wait_until
from nsactors.testing.gates import open_gate
from nsactors.transport.channel import Channel, accept
from nsactors.transport.embedded import Embedded
from nsactors.transport.embedded_server import no_fork
from nsactors.transport.local import LocalCluster
from nsactors.transport.registry import Registry

EmbedNames = Callable[..., Embedded]


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("NSACTORS_CLUSTER", raising=False)


@pytest.fixture
def embed() -> Iterator[EmbedNames]:
    made: list[Embedded] = []

    def make(names: dict[str, Any], **options: Any) -> Embedded:
        made.append(nsactors.embed(names, **{"name": "sim", **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_client_works_with_the_names_of_the_program(embed: EmbedNames, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"x": 1}
    embed(names)
    with Client("sim", output="keep") as rc:
        assert rc.ids == [0]
        result = rc[0].execute("print('of a client'); y = x + 1; y", silent=False)
        assert result.get(TIMEOUT_S).stdout == "of a client\n"
        rc[0].push({"z": [3]}, block=True)
        assert rc[0].apply_sync(divmod, nsactors.Reference("x + 10"), 4) == (2, 3)
        assert rc[0].peek("z", timeout=TIMEOUT_S) == [3]
    assert (names["y"], names["z"]) == (2, [3])
    assert "of a client" not in capsys.readouterr().out


def test_afterwards_the_program_has_only_the_names_that_were_bound(embed: EmbedNames) -> None:
    names: dict[str, Any] = {"x": 1}
    before = sys.stdout, sys.breakpointhook, signal.getsignal(signal.SIGINT), set(threading.enumerate())
    session = embed(names)
    assert (sys.stdout, sys.breakpointhook) == before[:2]
    with Client("sim", output="keep") as rc:
        rc[0].execute("class A:\n    pass\na = A()\na", silent=False).get(TIMEOUT_S)
        assert rc[0].apply_sync(type, nsactors.Reference("a")).__name__ == "A"
    session.close()
    session.close()
    assert sorted(names) == ["A", "a", "x"]
    wait_until(lambda: set(threading.enumerate()) <= before[3])
    assert (sys.stdout, sys.breakpointhook, signal.getsignal(signal.SIGINT)) == before[:3]
    assert repr(session) == "<Embedded 'sim': closed>"


@pytest.mark.parametrize("serve", ["thread", "between"])
def test_a_request_may_close_the_program_to_the_end(embed: EmbedNames, serve: str) -> None:
    names: dict[str, Any] = {}
    threads = set(threading.enumerate())
    session = names["session"] = embed(names, serve=serve)
    with Client("sim") as rc:
        called = rc[0].execute("session.close(); x = 1")
        if serve == "between":
            assert session.serve(TIMEOUT_S) == 1
        assert isinstance(called.exception(TIMEOUT_S), ProgramEnded)
    wait_until(lambda: set(threading.enumerate()) <= threads)
    assert sorted(names) == ["session", "x"]
    assert not os.path.exists(session._folder.path)
    assert Registry().records() == []


def test_another_thread_may_close_the_program_while_a_request_runs(embed: EmbedNames) -> None:
    arrived, go_on = threading.Event(), threading.Event()
    names: dict[str, Any] = {"arrived": arrived, "go_on": go_on}
    threads = set(threading.enumerate())
    session = embed(names, serve="between")

    def close() -> None:
        with Client("sim") as rc:
            called = rc[0].execute("arrived.set()\ngo_on.wait(100)\nname = __name__")
            assert arrived.wait(TIMEOUT_S)
            session.close()
            assert isinstance(called.exception(TIMEOUT_S), ProgramEnded)
            go_on.set()

    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(close)
        assert session.serve(TIMEOUT_S) == 1
        closing.result(TIMEOUT_S)
    assert sorted(names) == ["arrived", "go_on", "name"]
    wait_until(lambda: set(threading.enumerate()) <= threads)


@pytest.mark.parametrize("how", ["serve", "wait"])
def test_a_request_does_not_serve_others(embed: EmbedNames, how: str) -> None:
    names: dict[str, Any] = {}
    session = names["session"] = embed(names, serve="between")
    with Client("sim") as rc:
        called, next_one = rc[0].execute(f"session.{how}(1)"), rc[0].execute("x = 1")
        ran = 0
        while ran < 2:
            ran += session.serve(TIMEOUT_S)
        with pytest.raises(CapabilityError, match="a request cannot serve others"):
            called.get(TIMEOUT_S)
        next_one.get(TIMEOUT_S)
    assert names["x"] == 1


@pytest.mark.parametrize("serve", ["thread", "between"])
@pytest.mark.parametrize("is_launched", [False, True])
def test_ctrl_c_during_the_start_leaves_nothing(
    embed: EmbedNames, monkeypatch: pytest.MonkeyPatch, serve: str, is_launched: bool
) -> None:
    threads, call = set(threading.enumerate()), LocalCluster.call

    def interrupted(cluster: LocalCluster, method: str, *args: Any, timeout_s: float) -> Any:
        starts = method == "start_engines"
        answer = call(cluster, method, *args, timeout_s=timeout_s) if is_launched or not starts else None
        if starts:
            raise KeyboardInterrupt
        return answer

    names: dict[str, Any] = {"x": 1}
    with monkeypatch.context() as patched:
        patched.setattr(LocalCluster, "call", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embed(names, serve=serve)
    wait_until(lambda: set(threading.enumerate()) <= threads)
    assert Registry().records() == []
    embed(names, serve=serve)


def test_between_two_steps_requests_run_on_the_thread_of_the_program(
    embed: EmbedNames, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {"step": 0}
    session = embed(names, serve="between")
    assert session.serve() == 0
    with Client("sim", output="keep") as rc:
        thread = rc[0].apply_async(threading.get_ident)
        said = rc[0].execute("print('step', step)")
        names["step"] = 7
        assert not thread.ready()
        assert rc[0].peek("step", timeout=TIMEOUT_S) == 7  # beside the program
        print("my own")
        ran = 0
        while ran < 2:
            ran += session.serve(TIMEOUT_S)
        assert thread.get(TIMEOUT_S) == threading.get_ident()
        assert said.get(TIMEOUT_S).stdout == "step 7\n"
        print("mine again")
    assert capsys.readouterr().out == "my own\nmine again\n"


def test_arrays_travel_in_both_directions_and_stay_where_they_are(embed: EmbedNames) -> None:
    embed({"grid": np.arange(1_000_000.0)})
    with Client("sim") as rc:
        assert rc[0]["grid"].sum() == 499_999_500_000
        rc[0].push({"sent": np.ones((1000, 1000), order="F"), "text": "x" * 100_000}, block=True)
        assert rc[0].pull(["sent.sum()", "len(text)"], block=True) == [1e6, 100_000]
        assert rc[0].peek("grid[:100_000]", timeout=TIMEOUT_S)[-1] == 99_999
        kept = rc[0].pull("grid", as_ref=True, block=True)
        rc[0].execute("grid[:] = 0", block=True)
        assert rc[0].apply_sync(np.sum, kept) == 499_999_500_000
        assert kept.get()[2] == 2
        assert rc.load_balanced_view().map_sync(lambda i: i * 2, range(4)) == [0, 2, 4, 6]


def test_no_array_is_torn_between_two_steps(embed: EmbedNames) -> None:
    names: dict[str, Any] = {"grid": np.zeros(200_000)}
    session = embed(names, serve="between")
    torn: list[int] = []

    def look() -> None:
        with Client("sim") as rc:
            for _ in range(20):
                grid = rc[0]["grid"]
                torn.append(int((grid != grid[0]).sum()))

    looking = threading.Thread(target=look)
    looking.start()
    while looking.is_alive():
        names["grid"] += 1
        session.serve(0.01)
    assert torn == [0] * 20


def test_the_name_is_that_of_the_script_and_its_process(embed: EmbedNames, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/home/ann/my sim.py"])
    names = [embed({}, name=None).name for _ in range(2)]
    assert names == [f"my-sim-{os.getpid()}", f"my-sim-{os.getpid()}-2"]
    with pytest.raises(ClusterNameTaken, match=r"a program .* of yours runs already: take another name"):
        embed({}, name=names[0])
    with pytest.raises(ValueError, match="a cluster's name is made of"):
        embed({}, name="no name")


def test_a_program_is_found_by_its_name_alone(embed: EmbedNames) -> None:
    embed({"x": 5})
    with pytest.raises(ClusterNotFound, match=r"no cluster of yours runs here\. To use the program 'sim'"):
        Client()
    listed = CliRunner().invoke(main, ["list"]).output
    assert "sim" in listed
    assert "runs" in listed
    assert "embed() in " in listed
    ran = CliRunner().invoke(main, ["exec", "-c", "sim", "x + 1"])
    assert (ran.exit_code, "6" in ran.output) == (0, True), ran.output
    assert "embed() in " in CliRunner().invoke(main, ["status", "sim"]).output
    refused = CliRunner().invoke(main, ["stop", "sim"])
    assert refused.exit_code == 1
    assert "'sim' is a program of yours with work of its own, process " in refused.output
    assert CliRunner().invoke(main, ["stop", "--all"]).exit_code == 0
    assert [record.name for record in Registry().records()] == ["sim"]


def test_what_an_embedded_program_cannot_do_is_refused_with_the_reason(embed: EmbedNames) -> None:
    with pytest.raises(CapabilityError, match="cannot be a member of a cluster: Ray would pass"):
        embed({}, cluster="lab")
    with pytest.raises(CapabilityError, match="cannot be recovered"):
        embed({}, recovery="replay")
    with pytest.raises(InvalidArgument):
        embed({}, serve="always")
    with pytest.raises(CapabilityError, match="use embed\\(serve='between'\\)"):
        embed({}, name="threaded").serve()
    names = {"x": 1}
    embed(names)
    with Client("sim") as rc:
        with pytest.raises(CapabilityError, match="an embedded program cannot be cleared"):
            rc[0].clear(block=True)
        with pytest.raises(CapabilityError, match="cannot stop its engine"):
            rc.shutdown()
        with pytest.raises(CapabilityError, match="cannot interrupt or signal an engine"):
            rc.interrupt()
        with pytest.raises(CapabilityError, match="host services"):
            rc[:].communicator()
    assert names["x"] == 1


def test_a_cell_awaits_between_two_steps_of_a_program_with_an_event_loop(embed: EmbedNames) -> None:
    session = embed({}, serve="between")

    async def step() -> int:
        own = asyncio.current_task(), asyncio.get_running_loop()
        with Client("sim") as rc:
            cell = rc[0].execute(
                "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 7\nx = await f()"
            )
            assert session.serve(TIMEOUT_S) == 1
            cell.get(TIMEOUT_S)
            assert rc[0].peek("x", timeout=TIMEOUT_S) == 7
        await asyncio.sleep(0)
        assert (asyncio.current_task(), asyncio.get_running_loop()) == own
        return 3

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        assert loop.run_until_complete(step()) == 3
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_other_bytes_from_a_client_leave_the_program_and_its_terminal_alone(
    embed: EmbedNames, capfd: pytest.CaptureFixture[str]
) -> None:
    session = embed({})
    assert session._record.program is not None
    for sent in (b"not a message", struct.pack("<4sIQ", b"nsa1", 1, 3) + b"abc"):
        with socket.socket(socket.AF_UNIX) as odd:
            odd.connect(session._record.program.socket)
            odd.sendall(sent)
            odd.settimeout(TIMEOUT_S)
            with contextlib.suppress(ConnectionResetError):
                assert odd.recv(1) == b""  # it has been closed
    with Client("sim") as rc:
        assert rc[0].apply_sync(abs, -1) == 1
    assert capfd.readouterr().err == ""


def test_a_moment_without_file_descriptors_does_not_end_the_listener(
    embed: EmbedNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError(errno.EMFILE, "Too many open files"), RuntimeError("can't start new thread")]

    def accept_later(listener: socket.socket) -> Channel | None:
        if failures:
            raise failures.pop()
        return accept(listener)

    monkeypatch.setattr("nsactors.transport.embedded_server.accept", accept_later)
    embed({})
    with Client("sim") as rc:
        assert rc[0].apply_sync(abs, -1) == 1
    assert not failures


def test_a_client_for_which_there_is_no_thread_is_turned_away_alone(
    embed: EmbedNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, failures = threading.Thread.start, [RuntimeError("can't start new thread")]

    def start_later(thread: threading.Thread) -> None:
        if thread.name == "nsactors-embed-client" and failures:
            raise failures.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_later)
    session = embed({})
    with pytest.raises(ProgramEnded):
        Client("sim")
    assert not session._server._connections
    with Client("sim") as rc:
        assert rc[0].apply_sync(abs, -1) == 1


def test_nobody_holds_a_value_that_its_client_has_dropped(embed: EmbedNames, tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    embed(names)
    with open_gate(tmp_path / "gate") as gate, Client("sim") as rc, Client("sim") as other:
        names["gate"] = gate
        result = rc[0].apply(lambda gate: gate.pass_through(), nsactors.Reference("gate"))
        gate.wait_arrived()
        wait_until(lambda: other.queue_status()[0]["running"])
        gate.open()
        result.get(TIMEOUT_S)
        call = weakref.ref(result.calls[0])
        del result
        wait_until(lambda: gc.collect() >= 0 and call() is None)


def test_only_the_thread_that_has_embedded_serves_between_steps(embed: EmbedNames) -> None:
    session = embed({}, serve="between")
    errors: list[Exception] = []

    def serve() -> None:
        try:
            session.serve(0.01)
        except CapabilityError as error:
            errors.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    assert "call it on MainThread" in str(errors[0])


def test_ctrl_c_in_a_request_is_the_programs_too(embed: EmbedNames) -> None:
    session = embed({}, serve="between")
    with Client("sim") as rc:
        pressed = rc[0].execute("import signal\ntry:\n    signal.raise_signal(2)\nexcept KeyboardInterrupt:\n    x = 1")
        with pytest.raises(KeyboardInterrupt):
            session.serve(TIMEOUT_S)
        assert pressed.get(TIMEOUT_S).outputs == []
        raised = rc[0].execute("raise KeyboardInterrupt")  # not by Ctrl-C: an error like others
        assert session.serve(TIMEOUT_S) == 1
        assert "KeyboardInterrupt" in str(raised.exception(TIMEOUT_S))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_program_can_wait_until_its_clients_have_left(embed: EmbedNames) -> None:
    names: dict[str, Any] = {}
    session = embed(names, serve="between")
    with pytest.raises(TimeoutError, match="no client has come after 0"):
        session.wait(0)

    def visit() -> None:
        with Client("sim") as rc:
            rc[0].push({"seen": True}, block=True)

    visiting = threading.Thread(target=visit)
    visiting.start()
    session.wait(TIMEOUT_S)
    visiting.join()
    assert names["seen"]


class WatchedCondition(threading.Condition):
    """Tells that a thread waits; nothing changes before it does so."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.set()
        return super().wait(timeout)


@pytest.mark.parametrize("serve", ["thread", "between"])
def test_the_shortest_visit_ends_the_wait_for_clients(embed: EmbedNames, serve: str) -> None:
    session = embed({}, serve=serve)
    changed = session._server.visits.changed = WatchedCondition()

    def visit() -> None:
        assert changed.waits.wait(TIMEOUT_S)
        with changed:  # the program sees the client come and leave at once
            session._server.visits.come("ann")
            session._server.visits.leave("ann")

    with ThreadPoolExecutor(1) as pool:
        visiting = pool.submit(visit)
        session.wait(TIMEOUT_S)
        visiting.result(TIMEOUT_S)


def test_the_wait_for_clients_ends_when_their_requests_have_run(embed: EmbedNames) -> None:
    arrived, go_on = threading.Event(), threading.Event()
    names: dict[str, Any] = {"arrived": arrived, "go_on": go_on}
    session = embed(names, serve="between")

    def visit() -> None:
        with Client("sim") as rc:
            rc[0].execute("arrived.set()\ngo_on.wait(100)")
            assert arrived.wait(TIMEOUT_S)
            rc[0].execute("x = 1")
        wait_until(lambda: not session._server.visits.present)
        go_on.set()

    with ThreadPoolExecutor(1) as pool:
        visiting = pool.submit(visit)
        session.wait(TIMEOUT_S)
        visiting.result(TIMEOUT_S)
    assert names["x"] == 1


def test_the_wait_for_clients_ends_with_the_engine(embed: EmbedNames) -> None:
    session = embed({})
    changed = session._server.visits.changed = WatchedCondition()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(session.wait, TIMEOUT_S)
        assert changed.waits.wait(TIMEOUT_S)
        session.close()
        waiting.result(TIMEOUT_S)


PROGRAM = """\
import os, sys, time
import nsactors

step = 0
session = nsactors.embed(name="real", serve={serve!r})
print("ready", flush=True)
{code}
"""


def start(serve: str, code: str) -> subprocess.Popen[str]:
    program = [sys.executable, "-c", PROGRAM.format(serve=serve, code=code)]
    running = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    return running


STEPS = "while True:\n    step += 1\n    session.serve(0.01)\n"


def test_a_connection_is_closed_in_a_child_that_is_forked_while_it_is_made(embed: EmbedNames) -> None:
    embed({})
    no_fork.acquire()  # as a fork does first
    try:
        with ThreadPoolExecutor(1) as pool:
            attached = pool.submit(Client, "sim")
            with pytest.raises(TimeoutError):
                attached.result(0.05)
            no_fork.release()
            attached.result(TIMEOUT_S).close()
    finally:
        if no_fork.locked():
            no_fork.release()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_calls_of_a_program_that_ends_fail_at_once_and_nothing_of_it_stays(end: signal.Signals) -> None:
    running = start("between", STEPS)
    folder = next(Path("/tmp").glob(f"nsa-{running.pid}-*"), None)
    with Client("real") as rc:
        assert rc[0]["step"] > 0
        waits = rc[0].execute("import threading; threading.Event().wait()") if end is signal.SIGKILL else None
        running.send_signal(end)
        assert running.wait(TIMEOUT_S) == -end
        if waits is not None:
            assert isinstance(waits.exception(TIMEOUT_S), ProgramEnded)
        wait_until(rc.session.transport.stopped.is_set)
        with pytest.raises(ProgramEnded, match="the program 'real' does not answer any more: it has ended"):
            rc[0].apply_sync(abs, -1)
    assert Registry().records() == []
    if folder is not None:
        wait_until(lambda: not folder.exists())
    for stream in (running.stdin, running.stdout):
        assert stream is not None
        stream.close()


FORKS = """\
sys.stdout.flush()
if (child := os.fork()) == 0:
    served, closed = session.serve(), session.close()
    sys.stdin.readline()
    os._exit(served)
step = child
while True:
    time.sleep(0.01)
"""


CHILDREN = """\
import os
def status(leave):
    child = os.fork()
    if not child and leave is not None:
        raise SystemExit(leave)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else 0
"""


@pytest.mark.parametrize("serve", ["thread", "between"])
def test_a_child_that_a_request_forks_ends_with_its_code_and_does_not_go_on_as_the_program(serve: str) -> None:
    running = start(serve, STEPS if serve == "between" else "import threading; threading.Event().wait()")
    try:
        with Client("real") as rc:
            rc[0].execute(CHILDREN, block=True)
            status = nsactors.Reference("status")
            called = [rc[0].apply(lambda call, leave: call(leave), status, leave) for leave in (3, None)]
            assert [call.get(TIMEOUT_S) for call in called] == [3, 0]
            lview = rc.load_balanced_view()
            assert lview.apply(lambda call: call("a reason"), status).get(TIMEOUT_S) == 1
    finally:
        running.kill()
        running.wait(TIMEOUT_S)
        for stream in (running.stdin, running.stdout):
            assert stream is not None
            stream.close()


def test_a_forked_child_of_the_program_serves_nobody_and_holds_nothing() -> None:
    running = start("thread", FORKS)
    try:
        with Client("real") as rc:
            wait_until(lambda: rc[0]["step"] != 0)
            running.kill()
            running.wait(TIMEOUT_S)
            wait_until(rc.session.transport.stopped.is_set)  # although the child lives
    finally:
        running.kill()
        assert running.stdin is not None
        running.stdin.close()  # the child ends
        assert running.stdout is not None
        running.stdout.read()
        running.stdout.close()


FORKING_CLIENT = """\
import os, sys
import nsactors

rc = nsactors.Client("sim")
if os.fork() == 0:
    print("ready", flush=True)
    sys.stdin.readline()
    os._exit(0)
os.waitpid(-1, 0)
"""


def test_a_client_that_is_killed_has_left_although_a_child_of_its_lives(embed: EmbedNames) -> None:
    session = embed({})
    client = [sys.executable, "-c", FORKING_CLIENT]
    with subprocess.Popen(client, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        assert session._server.visits.present
        running.kill()
        running.wait(TIMEOUT_S)
        wait_until(lambda: not session._server.visits.present)
        running.stdin.close()  # the child ends
        assert running.stdout.read() == ""


def test_the_stack_shows_what_the_program_does_while_no_request_runs(embed: EmbedNames) -> None:
    embed({})
    with Client("sim") as rc:
        stacks = rc.stack()
    program = stacks[0].program
    assert program is not None
    assert program.name == "MainThread"
    here = test_the_stack_shows_what_the_program_does_while_no_request_runs.__qualname__
    assert here in [frame.function for frame in program.frames]
    assert "the program itself" in repr(stacks)
    assert "idle" not in repr(stacks)
    assert stacks[0].is_idle, "it is: a request would run at once"
    assert stacks.as_dict()[0]["program"]["name"] == "MainThread"


@pytest.mark.parametrize("serve", ["thread", "between"])
def test_the_stack_of_a_request_stands_beside_the_program_unless_that_waits_for_it(
    embed: EmbedNames, serve: str
) -> None:
    arrived, go_on = threading.Event(), threading.Event()
    session = embed({"arrived": arrived, "go_on": go_on}, serve=serve)
    with Client("sim") as rc, ThreadPoolExecutor(1) as pool:
        held = rc[0].execute("arrived.set()\ngo_on.wait(100)")

        def look() -> nsactors.Stacks:
            assert arrived.wait(TIMEOUT_S)
            try:
                return rc.stack()
            finally:
                go_on.set()

        looking = pool.submit(look)
        if serve == "between":
            while not session.serve(0.1):
                pass
        stack = looking.result(TIMEOUT_S)[0]
        held.get(TIMEOUT_S)
    assert stack.call == "execute"
    assert stack.frames
    assert (stack.program is None) == (serve == "between")


def test_a_request_that_cannot_be_interrupted_goes_on_and_abort_says_so(embed: EmbedNames) -> None:
    arrived, go_on = threading.Event(), threading.Event()
    embed({"arrived": arrived, "go_on": go_on})
    with Client("sim") as rc:
        held, queued = rc[0].execute("arrived.set()\ngo_on.wait(100)"), rc[0].execute("1")
        assert arrived.wait(TIMEOUT_S)
        queued.abort(interrupt=True)
        with pytest.raises(CapabilityError, match="cannot interrupt a call that runs"):
            held.abort(interrupt=True)
        go_on.set()
        held.get(TIMEOUT_S)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("where", ["main", "module"])
@pytest.mark.parametrize("name", ["'sim'", "None"])
def test_a_child_that_is_spawned_does_not_embed_the_program_again(tmp_path: Path, where: str, name: str) -> None:
    embeds = f"import nsactors\nsession = nsactors.embed(name={name})\ndef work():\n    return session.name\n"
    main = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from nsactors.transport.local import LocalCluster
from nsactors.transport.registry import Registry
if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(work).result()
        print(there == session.name, [record.name for record in Registry().records()] == [there])
"""
    if where == "module":
        (tmp_path / "part.py").write_text(embeds)
        embeds = "from part import work, session\n"
    (tmp_path / "main.py").write_text(embeds + main)
    done = subprocess.run([sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True True\n", "")
