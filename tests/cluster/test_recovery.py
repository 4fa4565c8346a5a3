"""Engines that die, and what comes back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from nsactors import Client, Cluster, DirectView, Reference
from nsactors.errors import EngineLost, RemoteError, SnapshotUnwritten
from nsactors.magics.extension import submit
from nsactors.magics.options import CELL, parse
from nsactors.system.processes import is_alive
from nsactors.testing import TIMEOUT_S, Gate, wait_until
from tests.cluster.machines import why_not

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture
def told() -> list[str]:
    """The reports that clients print when they are closed."""
    return []


@pytest.fixture
def rc(cluster: Cluster, told: list[str]) -> Iterator[Client]:
    with cluster.connect_client_sync(report=told.append) as client:
        yield client


@pytest.fixture
def start(cluster: Cluster, rc: Client) -> Iterator[Callable[[str], DirectView]]:
    """Starts an engine with a way to recover; it is gone after the test."""
    started: list[int] = []

    def start(recovery: str) -> DirectView:
        (engine_id,) = cluster.start_engines(1, recovery=recovery)
        started.append(engine_id)
        wait_until(lambda: engine_id in rc.ids)
        view: DirectView = rc[engine_id]
        return view

    yield start
    rc.session.controller.stop_engines(started)


@pytest.fixture
def engine(start: Callable[[str], DirectView]) -> DirectView:
    """One that recovers its namespace."""
    return start("replay")


def kill(view: DirectView) -> int:
    """End an engine's process when it is idle; its pid."""
    pid: int = view.apply_sync(os.getpid)
    os.kill(pid, signal.SIGKILL)
    return pid


def test_an_engine_that_dies_comes_back_under_its_id_with_an_empty_namespace(
    rc: Client, start: Callable[[str], DirectView], told: list[str]
) -> None:
    engine = start("restart")
    engine.push({"a": 1}, block=True)
    left, joined = threading.Event(), threading.Event()
    rc.on_leave(lambda engine_id: left.set() if engine_id == engine.targets else None)
    rc.on_join(lambda engine_id: joined.set() if engine_id == engine.targets else None)
    pid = kill(engine)
    assert left.wait(TIMEOUT_S)
    assert joined.wait(TIMEOUT_S)
    assert engine.apply_sync(os.getpid) != pid
    with pytest.raises(NameError):
        engine.pull("a", block=True)
    rc.close()
    assert f"engine {engine.targets} died" in told[0]
    assert "empty namespace" in told[0]


def test_what_is_asked_while_an_engine_is_away_runs_when_it_is_back(start: Callable[[str], DirectView]) -> None:
    engine = start("restart")
    left = threading.Event()
    engine.client.on_leave(lambda engine_id: left.set() if engine_id == engine.targets else None)
    kill(engine)
    assert left.wait(TIMEOUT_S)
    assert engine.apply_sync(abs, -3) == 3


def test_without_recovery_an_engine_is_gone(rc: Client, start: Callable[[str], DirectView]) -> None:
    engine = start("none")
    kill(engine)
    wait_until(lambda: engine.targets not in rc.ids)


def test_names_made_in_every_way_are_there_again(engine: DirectView) -> None:
    engine.execute("import math\nx = [1]\ndef area(r): return math.pi * r * r\nclass Shape: sides = 4", block=True)
    engine.push({"a": np.arange(100_000), "half": lambda number: number / 2}, block=True)
    engine.apply_sync(list.append, Reference("x"), 2)
    engine.execute("y = x\nnumbers = (n for n in range(3)); next(numbers)", block=True)
    kill(engine)
    assert engine.apply_sync(np.sum, Reference("a")) == 4999950000
    assert engine.pull(["x", "x is y", "half(3)", "round(area(1), 2)", "Shape.sides", "next(numbers)"], block=True) == [
        [1, 2],
        True,
        1.5,
        3.14,
        4,
        1,
    ]


@pytest.mark.parametrize("from_snapshot", [False, True])
def test_classes_of_a_recovered_namespace_are_those_of_what_clients_have(
    engine: DirectView, from_snapshot: bool
) -> None:
    source = (
        "import dataclasses, enum\n@dataclasses.dataclass\nclass Item:\n    x: int\nclass Colour(enum.Enum): RED = 1\n"
    )
    engine.execute(source + "before = [Item(1), Colour.RED]", block=True)
    before = engine["before"]
    if from_snapshot:
        assert engine.snapshot(block=True) == {}
    kill(engine)
    engine["back"] = before
    assert engine["back == before == [Item(1), Colour.RED] and back[1] is before[1] is Colour.RED"]
    assert engine["before"] == before


def test_a_replay_passes_breakpoints_and_names_the_request_that_was_changed_in_the_debugger(
    cluster: Cluster, engine: DirectView, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["x = 5", "c", "x", "c", "q"]
    monkeypatch.setattr("nsactors.session.session.user_input", lambda: lambda prompt: lines.pop(0))
    monkeypatch.setattr("nsactors.session.session.UserPrompt.can_ask", lambda self: True)
    engine_id = engine._resolve(None)[0]
    with cluster.connect_client_sync("debugging", report=lambda text: None) as user:
        user[engine_id].execute("x = 1\nbreakpoint()\ny = x", block=True)
        user[engine_id].execute("x = 2\nbreakpoint()", block=True)
        with pytest.raises(RemoteError):
            user[engine_id].execute("breakpoint()\nz = 3", block=True)
        assert user[engine_id].pull(["x", "y"], block=True) == [2, 5]
        kill(engine)
        assert engine.pull(["x", "y", "'z' in globals()"], block=True) == [2, 1, False]
        report = user.recoveries[-1]
    assert [(one.label, one.sources) for one in report.may_differ] == [
        ("execute: x = 1 ...", ("lines typed in the debugger",))
    ]
    assert [one.reason for one in report.not_replayed] == ["it was interrupted"]
    assert lines == []


def test_a_recovery_says_what_it_did(rc: Client, engine: DirectView) -> None:
    engine.execute("a = 1", block=True)
    engine.execute("b = 2", block=True)
    kill(engine)
    assert engine.pull("a + b", block=True) == 3
    (report,) = rc.recoveries
    assert (report.engine_id, report.replayed, report.is_complete) == (engine.targets, 3, True)  # kill() is one of them


RANDOM = """\
import os, random
import numpy as np
from sklearn.utils import check_random_state
drawn = [random.random(), np.random.normal(), np.random.default_rng().random(), check_random_state(None).rand()]
random.shuffle(drawn)
"""


def test_random_numbers_and_the_environment_are_the_same_after_a_replay_and_after_a_snapshot(
    engine: DirectView, tmp_path: Path
) -> None:
    engine.execute(RANDOM, block=True)  # also NumPy is imported here
    drawn = engine.pull("drawn", block=True)
    engine.execute(f"os.environ['SET'] = '1'; os.chdir({str(tmp_path)!r})", block=True)
    for _ in range(2):  # the second time from the snapshot that the first recovery has left
        kill(engine)
        assert engine.pull(["drawn", "os.environ['SET']", "os.getcwd()"], block=True) == [drawn, "1", str(tmp_path)]
    engine.execute("before = np.random.get_state()[1].tolist(), random.getstate()", block=True)
    engine.snapshot(block=True)
    kill(engine)
    assert engine.pull("(np.random.get_state()[1].tolist(), random.getstate()) == before", block=True)


def test_a_recovered_namespace_is_recovered_again(engine: DirectView) -> None:
    engine.execute("a = 1", block=True)
    for _ in range(3):
        kill(engine)
        engine.execute("a += 1", block=True)
    assert engine.pull("a", block=True) == 4


def test_what_was_queued_behind_the_death_runs_once_and_what_was_running_does_not_run_again(
    engine: DirectView, gate: Gate
) -> None:
    pid = engine.apply_sync(os.getpid)
    engine.push({"seen": [], "wait": gate.pass_through}, block=True)
    before = [engine.execute(f"seen.append({k})") for k in range(3)]
    running = engine.execute("seen.append('running'); wait()")
    behind = [engine.execute(f"seen.append({k})") for k in range(3, 6)]
    gate.wait_arrived()
    os.kill(pid, signal.SIGKILL)
    assert all(result.wait(TIMEOUT_S) and result.successful() for result in before + behind)
    with pytest.raises(EngineLost, match="not repeated"):
        running.get(TIMEOUT_S)
    assert engine.pull("seen", block=True) == [0, 1, 2, 3, 4, 5]


def test_sigterm_ends_an_engine_and_is_not_raised_in_the_call_that_runs(engine: DirectView, gate: Gate) -> None:
    pid = engine.apply_sync(os.getpid)
    running = engine.apply_async(gate.pass_through)
    gate.wait_arrived()
    os.kill(pid, signal.SIGTERM)
    with pytest.raises(EngineLost, match="while running"):
        running.get(TIMEOUT_S)
    assert engine.apply_sync(os.getpid) != pid


def test_a_death_is_told_while_a_child_of_the_engine_lives(start: Callable[[str], DirectView], gate: Gate) -> None:
    view = start("restart")
    view.execute(
        "import os, signal\nfrom concurrent.futures import ProcessPoolExecutor\n"
        # Ray sends SIGTERM to the children of a process that has died.
        "pool = ProcessPoolExecutor(1, initializer=signal.signal, initargs=(signal.SIGTERM, signal.SIG_IGN))",
        block=True,
    )
    view.execute("child = pool.submit(os.getpid).result()", block=True)
    child = view["child"]
    pid = view.apply_sync(os.getpid)
    running = view.apply_async(gate.pass_through)
    gate.wait_arrived()
    try:
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineLost, match="while running"):
            running.get(TIMEOUT_S)
        assert is_alive(child)
        assert view.apply_sync(os.getpid) != pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_what_is_sent_as_not_to_be_repeated_is_not(engine: DirectView, rc: Client) -> None:
    engine.execute("count = 0", block=True)
    with engine.temp_flags(journal=False):
        engine.execute("count += 1", block=True)
    engine.execute("count += 10", block=True)
    kill(engine)
    assert engine.pull("count", block=True) == 10
    assert "count += 1" in str(rc.recoveries[-1])


def test_a_command_that_kills_every_recovery_is_left_out_in_the_end(
    engine: DirectView, rc: Client, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    engine.execute("a = 1", block=True)
    engine.execute(f"import os; os.path.exists({str(trap)!r}) and os._exit(1); b = 1", block=True)
    engine.execute("c = 1", block=True)
    trap.touch()
    kill(engine)
    assert engine.pull(["a", "c"], block=True) == [1, 1]
    assert "ended the engine whenever" in str(rc.recoveries[-1])


def test_commands_that_kill_recoveries_are_left_out_one_after_the_other(
    engine: DirectView, told: list[str], tmp_path: Path
) -> None:
    engine.push({"gone": str(tmp_path)}, block=True)
    engine.execute("import os; before = 1", block=True)
    for number in range(3):
        (tmp_path / f"{number}").touch()
        code = f"if not os.path.exists(gone + '/{number}'): os._exit(1)"
        engine.execute(f"{code}\nkept{number} = {number}", block=True)
    for number in range(3):
        (tmp_path / f"{number}").unlink()
    kill(engine)
    assert engine["before"] == 1
    assert "kept0" not in engine.pull("dir()", block=True)


def test_a_snapshot_takes_the_place_of_what_led_there(engine: DirectView, rc: Client) -> None:
    engine.execute("a = 0", block=True)
    for _ in range(20):
        engine.execute("a += 1", block=True)
    assert engine.snapshot(block=True) == {}
    engine.execute("b = a + 1", block=True)
    kill(engine)
    assert engine.pull(["a", "b"], block=True) == [20, 21]
    assert rc.recoveries[-1].replayed == 2
    assert "a" in rc.recoveries[-1].restored


def test_what_a_snapshot_cannot_hold_is_named_and_made_again(engine: DirectView) -> None:
    engine.execute("import threading\nlock = threading.Lock()\na = 5", block=True)
    assert "lock" in engine.snapshot(block=True)
    kill(engine)
    assert engine.pull(["a", "lock.locked()"], block=True) == [5, False]


def test_an_engine_that_no_interrupt_reaches_is_taken_down_and_recovered(
    engine: DirectView, rc: Client, gate: Gate
) -> None:
    engine.execute("a = 5", block=True)
    stuck = engine.apply_async(gate.pass_holding_gil)
    gate.wait_arrived()
    rc.recover(engine.targets)
    assert isinstance(stuck.exception(TIMEOUT_S), EngineLost)
    assert engine.pull("a", block=True) == 5


def test_a_restart_that_was_asked_for_begins_anew(engine: DirectView, rc: Client) -> None:
    engine.execute("a = 5", block=True)
    rc.shutdown(engine.targets, restart=True)
    with pytest.raises(NameError):
        engine.pull("a", block=True)


def test_failing_cells_are_part_of_what_led_there(engine: DirectView) -> None:
    with pytest.raises(ZeroDivisionError):
        engine.execute("a = 1\n1/0", block=True)
    with pytest.raises(RemoteError):
        engine.execute("raise SystemExit", block=True)
    kill(engine)
    assert engine.pull("a", block=True) == 1


def test_cells_are_numbered_on_and_their_results_are_there(engine: DirectView) -> None:
    engine.execute("6 * 7", silent=False, block=True)
    kill(engine)
    result = engine.execute("Out[1]", silent=False, block=True)
    assert (result.get().text, result.get().execution_count) == ("42", 2)


def test_another_client_sees_the_recovered_namespace(cluster: Cluster, engine: DirectView) -> None:
    engine.execute("a = 5", block=True)
    kill(engine)
    with cluster.connect_client_sync() as other:
        assert other[engine.targets].pull("a", block=True) == 5


def test_a_cell_of_a_notebook_can_be_sent_as_not_to_be_repeated(engine: DirectView) -> None:
    engine.execute("count = 0", block=True)
    options, _ = parse("--no-journal", CELL, "%%px")
    submit(engine, "count += 1", options).get(TIMEOUT_S)
    kill(engine)
    assert engine.pull("count", block=True) == 0


def test_one_name_that_loads_nowhere_else_costs_no_other_one(engine: DirectView, rc: Client) -> None:
    engine.execute("import functools, sys, types\n@functools.lru_cache\ndef f(x): return x + 1", block=True)
    engine.execute("made = sys.modules['made'] = types.ModuleType('made')", block=True)
    engine.execute("exec('class C: pass', vars(made)); c = made.C()", block=True)
    engine.execute("class A: pass\na = A(); import weakref; p = weakref.proxy(a); del a", block=True)
    engine.push({"data": [1]}, block=True)
    left_out = engine.snapshot(block=True)
    assert left_out.keys() == {"made", "c", "p"}
    assert left_out["c"] == "ModuleNotFoundError: No module named 'made'"
    kill(engine)
    # What cannot be held is made again by what had made it.
    assert engine.pull(["data", "f(1)", "type(c) is made.C"], block=True) == [[1], 2, True]
    assert rc.recoveries[-1].lost == ()


@pytest.mark.parametrize(
    "reduction", ["raise SystemExit", "raise KeyboardInterrupt", "import os; return os._exit, (1,)"]
)
def test_an_object_that_ends_whatever_pickles_or_loads_it_does_not_end_recoveries(
    engine: DirectView, rc: Client, reduction: str
) -> None:
    engine.execute(f"class C:\n    def __reduce__(self): {reduction}\ndata = [1]", block=True)
    engine.execute("c = C()", block=True)
    kill(engine)
    assert engine.pull("data", block=True) == [1]
    assert engine.snapshot(block=True).keys() == {"c"}
    kill(engine)
    assert engine.pull(["data", "type(c) is C"], block=True) == [[1], True]


def test_a_second_death_without_a_snapshot_asked_for_costs_nothing(engine: DirectView) -> None:
    engine.execute("import functools\n@functools.lru_cache\ndef f(x): return x + 1\ndata = [f(1)]", block=True)
    for _ in range(2):
        kill(engine)
        assert engine.pull(["data", "f(2)"], block=True) == [[2], 3]


def test_memory_that_arrays_share_and_what_is_read_only_are_as_they_were(engine: DirectView) -> None:
    engine.execute("import numpy as np\nbase = np.arange(6); view = base[2:]; fixed = np.ones(3)", block=True)
    engine.execute("fixed.flags.writeable = False", block=True)
    assert engine.snapshot(block=True) == {}
    kill(engine)
    assert engine.pull("int(base[3])", block=True) == 3  # it is back: what runs as an engine dies is not repeated
    engine.execute("base[3] = 70", block=True)
    assert engine.pull(["int(view[1])", "fixed.flags.writeable"], block=True) == [70, False]


def test_the_process_that_tries_snapshots_ends_with_its_engines(
    cluster: Cluster, engine: DirectView, tmp_path: Path
) -> None:
    told = tmp_path / "pid"
    write = f"import os, pathlib; pathlib.Path({str(told)!r}).write_text(str(os.getppid()))"
    engine.execute(f"class C:\n    def __reduce__(self): return exec, ({write!r},)\nc = C()", block=True)
    engine.snapshot(block=True)
    pid = int(told.read_text())
    assert pid != engine.apply_sync(os.getpid)
    cluster.stop_engines([engine.targets])
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


class SmallDisk:
    """A disk of a few megabytes in memory, in place of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(folder)], check=True)

    def fill(self) -> None:
        with suppress(OSError), (self._folder / "filler").open("wb", buffering=0) as file:
            while file.write(bytes(4_096)):
                pass

    def free(self) -> None:
        (self._folder / "filler").unlink()

    def close(self) -> None:
        # Engines that end have files open there still: it goes with the last of them.
        subprocess.run(["umount", "-l", str(self._folder)], check=True)


def output_folder() -> str:
    return os.path.dirname(os.readlink("/proc/self/fd/1"))


@pytest.fixture
def disk(start: Callable[[str], DirectView]) -> Iterator[SmallDisk]:
    """The disk of the engines that are started from now on."""
    if reason := why_not():
        pytest.skip(reason)
    disk = SmallDisk(Path(start("none").apply_sync(output_folder)))
    yield disk
    disk.close()


def test_an_engine_goes_on_while_its_disk_is_full_and_comes_back_when_it_dies(
    disk: SmallDisk, start: Callable[[str], DirectView], rc: Client
) -> None:
    engine = start("replay")
    engine.execute("a = 1; print('a')", block=True)
    disk.fill()
    engine.push({"b": bytes(100_000)}, block=True)  # more than the rest of a page that is there already
    result = engine.execute("print('shown' * 2_000)")
    result.get(TIMEOUT_S)
    assert result.stdout == "shown" * 2_000 + "\n"
    assert "cannot write its journal (No space left on device)" in result.stderr
    with pytest.raises(SnapshotUnwritten):
        engine.snapshot(block=True)
    os.kill(engine.apply_sync(os.getpid), signal.SIGKILL)
    assert engine.apply_async(abs, Reference("a")).get(TIMEOUT_S) == 1
    (report,) = rc.recoveries
    assert report.not_replayed[0].label == "push"
    assert not report.is_complete
    disk.free()
    assert "cannot write" not in engine.execute("c = 3", block=True).stderr
    kill(engine)
    assert engine.pull(["a", "c"], block=True) == [1, 3]
