"""Workers of Ray, forked by a zygote or executed by their stub: each is like the other."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest

from nsactors.system.processes import is_alive
from nsactors.testing import wait_until
from nsactors.transport.ray import scripts
from nsactors.transport.ray.scripts import worker_stub
from nsactors.transport.ray.scripts import zygote as zygote_script
from nsactors.transport.ray.zygote_process import SWITCH, ZygoteProcess, obstacle_to_forking

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has zygotes")

LIMIT_S = 120
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
SCRIPTS = Path(scripts.__file__).parent
STUB, RUN_SCRIPT = str(SCRIPTS / "worker_stub.py"), str(SCRIPTS / "run_script.py")

# Of `default_worker.py`: a script that tells what it inherits, whether it was forked, and then waits for a line.
WORKER = """
import gc, importlib.util, json, os, random, resource, signal, sys

with open("/proc/self/status") as file:
    status = dict(line.split(":", 1) for line in file)
limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
handlers = {str(number): str(signal.getsignal(number)) for number in signal.valid_signals()}
inherited = {
    "name": __name__,
    "file": __file__,
    "arguments": sys.argv,
    "command": sys.orig_argv,
    "search": sys.path,
    "environment": {name: value for name, value in os.environ.items() if name != "RAY_JOB_ID"},
    "folder": os.getcwd(),
    "own group": os.getpgid(0) == os.getpid(),
    "session": os.getsid(0),
    "signals": [status[name].strip() for name in ("SigBlk", "SigIgn", "Umask")],
    "handlers": handlers,
    "priority": os.getpriority(os.PRIO_PROCESS, 0),
    "cores": sorted(os.sched_getaffinity(0)),
    "limits": [resource.getrlimit(getattr(resource, name)) for name in limits],
    "out of memory": open("/proc/self/oom_score_adj").read(),
    "numpy": "numpy" in sys.modules,
    "found": importlib.util.find_spec("made_later") is not None,
    "flags": str(sys.flags),
    "descriptors": [os.readlink(f"/proc/self/fd/{number}") for number in range(3)],
}
own = {"pid": os.getpid(), "forked": gc.get_freeze_count() > 0, "number": random.random()}
with open(sys.argv[1], "w") as file:
    json.dump({"inherited": inherited, "own": own}, file)
if (line := input()) == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
print(line, flush=True)
"""


class Worker:
    """A worker as the raylet starts it.

    Args:
        folder: for its files.
        zygote: the path of a socket; None executes the worker without a stub.
        options: of the worker.
        settings: its changes of the environment.
        flags: of the interpreter.
    """

    def __init__(
        self,
        folder: Path,
        zygote: str | None,
        *options: str,
        settings: dict[str, str] | None = None,
        flags: Sequence[str] = (),
        **process: Any,
    ) -> None:
        self._told = folder / "told.json"
        self._told.unlink(missing_ok=True)
        script = folder / "worker.py"
        script.write_text(WORKER)
        stub = [] if zygote is None else ["-I", "-S", STUB, zygote]
        self._given, theirs = os.pipe()
        self.errors = folder / "errors"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *flags, *stub, RUN_SCRIPT, str(script), str(self._told), *options],
                env={**ENVIRONMENT, "RAY_JOB_ID": "01000000", "RAY_RAYLET_PID": str(os.getpid()), **(settings or {})},
                stdin=subprocess.PIPE,
                stdout=theirs,
                stderr=errors,
                **process,
            )
        os.close(theirs)

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what it has inherited, and what is its own."""
        wait_until(lambda: self._told.exists() and self._told.stat().st_size > 0, LIMIT_S)
        wait_until(self._is_complete, LIMIT_S)
        told = json.loads(self._told.read_text())
        # Pipes and files are others for each worker.
        told["inherited"]["descriptors"] = [path.split(":")[0] for path in told["inherited"]["descriptors"]]
        return told["inherited"], told["own"]

    def _is_complete(self) -> bool:
        try:
            json.loads(self._told.read_text())
        except ValueError:
            return False
        return True

    def end(self, line: str = "over") -> str:
        """Let it end, which is a crash after the line ``crash``; return its output."""
        assert self.process.stdin is not None
        with self.process.stdin as stdin:
            stdin.write(f"{line}\n".encode())
        self.process.wait(LIMIT_S)
        with open(self._given) as output:
            return output.read()  # up to the end of the last process that holds the pipe


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZygoteProcess]:
    started = ZygoteProcess(str(tmp_path_factory.mktemp("z")), ENVIRONMENT)
    started.serve(os.getpid())
    yield started
    started.end()


def is_forked(folder: Path) -> bool:
    """Return whether a zygote that is started for this forks a worker."""
    zygote = ZygoteProcess(str(folder), ENVIRONMENT)
    try:
        zygote.serve(os.getpid())
        worker = Worker(folder, zygote.path)
        _, own = worker.facts()
        assert worker.end() == "over\n"
    finally:
        zygote.end()
    return bool(own["forked"])


@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.parametrize("process", [{}, {"process_group": 0, "cwd": "/usr", "umask": 0o027}])
def test_a_forked_worker_inherits_what_an_executed_one_does(
    zygote: ZygoteProcess, tmp_path: Path, process: dict[str, Any]
) -> None:
    found = []
    for path in (None, zygote.path):
        worker = Worker(tmp_path, path, "--runtime-env-hash=0", **process)
        found.append(worker.facts())
        assert worker.end() == "over\n"
        assert worker.errors.read_text() == ""
    (executed, its_own), (forked, its) = found
    assert (its_own["forked"], its["forked"]) == (False, True)
    assert forked == executed
    assert not forked["numpy"]


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_worker_is_forked_where_the_command_of_the_interpreter_adds_flags(
    zygote: ZygoteProcess, tmp_path: Path
) -> None:
    found = []
    for flags in ((), ("-B", "-q")):
        worker = Worker(tmp_path, zygote.path, "--runtime-env-hash=0", flags=flags)
        found.append(worker.facts())
        assert worker.end() == "over\n"
    (plain, its_own), (flagged, its) = found
    assert (its_own["forked"], its["forked"]) == (True, True)
    assert flagged["arguments"] == plain["arguments"]
    assert flagged["command"] == [sys.executable, "-B", "-q", *plain["command"][1:]]


@pytest.mark.parametrize(
    "command",
    [
        ["python", "-c", "pass"],
        ["python", STUB, "socket", RUN_SCRIPT, "worker.py"],
        ["python", "-I", "-S", STUB, "socket", "worker.py"],
        ["python", "-I", "-S", STUB, "socket", RUN_SCRIPT],
    ],
)
def test_a_process_that_is_no_stub_is_refused(command: list[str]) -> None:
    with pytest.raises(zygote_script.ForkRefused):
        zygote_script._commands(command)


def test_variables_without_a_name_are_left_out_since_no_process_can_set_them() -> None:
    given = {"": "x=1", "A": "b=c"}
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=given) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdout.readline()  # the system shows the environment a moment after the start
        environment = zygote_script.environment_of(process.pid)
        process.stdin.close()
    assert environment == {b"A": b"b=c"}


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_signals_are_blocked_and_ignored_as_where_the_worker_was_started(zygote: ZygoteProcess, tmp_path: Path) -> None:
    found = []
    was_blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGINT})
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        workers = [Worker(tmp_path, path) for path in (None,)]
        found.append(workers[0].facts()[0])
        workers.append(Worker(tmp_path, zygote.path))
        found.append(workers[1].facts()[0])
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, was_blocked)
    assert [worker.end() for worker in workers] == ["over\n"] * 2
    executed, forked = found
    assert forked["signals"] == executed["signals"]
    assert forked["handlers"] == executed["handlers"]


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_code_that_an_interpreter_runs_as_it_starts_runs_in_each_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").touch()
    search = os.pathsep.join([str(tmp_path), *filter(None, [ENVIRONMENT.get("PYTHONPATH")])])
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", search)
    assert not is_forked(tmp_path)


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_workers_do_not_share_a_file_that_was_opened_as_the_interpreter_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@" 9</dev/null\n')
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    assert not is_forked(tmp_path)


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_forked_worker_reports_its_crash_where_the_fault_handler_is_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "PYTHONFAULTHANDLER", "1")
    zygote = ZygoteProcess(str(tmp_path), ENVIRONMENT)
    try:
        zygote.serve(os.getpid())
        worker = Worker(tmp_path, zygote.path)
        assert worker.facts()[1]["forked"]
        assert worker.end("crash") == ""
        assert "Fatal Python error: Segmentation fault" in worker.errors.read_text()
    finally:
        zygote.end()


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_forked_workers_draw_numbers_of_their_own(zygote: ZygoteProcess, tmp_path: Path) -> None:
    numbers = set()
    for _ in range(2):
        worker = Worker(tmp_path, zygote.path)
        numbers.add(worker.facts()[1]["number"])
        worker.end()
    assert len(numbers) == 2


@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("options", "settings", "reason"),
    [
        (["--runtime-env-hash=12"], {}, ""),
        (["--worker-type=SPILL_WORKER"], {}, ""),
        ([], {"OMP_NUM_THREADS": "77"}, "its environment differs in OMP_NUM_THREADS"),
        ([], {"RAY_RAYLET_PID": "1"}, "its environment differs in RAY_RAYLET_PID"),
    ],
)
def test_a_worker_that_would_differ_is_executed(
    zygote: ZygoteProcess, tmp_path: Path, options: list[str], settings: dict[str, str], reason: str
) -> None:
    worker = Worker(tmp_path, zygote.path, *options, settings=settings)
    inherited, own = worker.facts()
    assert worker.end() == "over\n"
    assert (own["forked"], own["pid"]) == (False, worker.process.pid)
    assert settings.items() <= inherited["environment"].items()
    assert worker.errors.read_text() == (f"nsactors: plain start of a worker: {reason}\n" if reason else "")


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_workers_outlive_their_zygote_and_later_ones_are_executed(tmp_path: Path) -> None:
    zygote = ZygoteProcess(str(tmp_path), ENVIRONMENT)
    try:
        zygote.serve(os.getpid())
        (tmp_path / "first").mkdir()
        (tmp_path / "second").mkdir()
        first = Worker(tmp_path / "first", zygote.path)
        assert first.facts()[1]["forked"]
    finally:
        zygote.end()
    second = Worker(tmp_path / "second", zygote.path)
    assert not second.facts()[1]["forked"]
    assert (first.end(), second.end()) == ("over\n", "over\n")


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_with_a_safe_path_workers_keep_all_of_their_search_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = [str(tmp_path / "first"), str(tmp_path / "second"), str(SCRIPTS.parents[3])]
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", os.pathsep.join(search))
    monkeypatch.setitem(ENVIRONMENT, "PYTHONSAFEPATH", "1")
    zygote = ZygoteProcess(str(tmp_path), ENVIRONMENT)
    try:
        zygote.serve(os.getpid())
        for path in (None, zygote.path):
            worker = Worker(tmp_path, path)
            inherited, own = worker.facts()
            assert worker.end() == "over\n"
            assert own["forked"] == (path is not None)
            assert [entry for entry in inherited["search"] if entry in search] == search
    finally:
        zygote.end()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for packages, the only one."""
    monkeypatch.setattr("site.getsitepackages", lambda: [str(tmp_path)])
    monkeypatch.setattr("site.ENABLE_USER_SITE", False)
    (tmp_path / "a-1.0.dist-info").mkdir()
    (tmp_path / "a.pth").write_text("/a")
    return tmp_path


def test_nothing_is_forked_after_packages_have_been_installed(packages: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket() as listener:
        zygote = zygote_script.Zygote(listener, (), "1", zygote_script.installed_packages())
        (packages / "b.pth").write_text("/b")
        with pytest.raises(zygote_script.ForkRefused, match="packages were installed"):
            zygote._examine(ours)


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (lambda folder: (folder / "b-2.0.dist-info").mkdir(), True),
        (lambda folder: (folder / "a-1.0.dist-info").rmdir(), True),
        (lambda folder: os.utime(folder / "a.pth", ns=(1, 1)), True),
        (lambda folder: (folder / "__pycache__").mkdir(), False),
    ],
)
def test_changes_of_packages_are_seen_but_not_their_first_import(
    packages: Path, change: Callable[[Path], object], counts: bool
) -> None:
    before = zygote_script.installed_packages()
    change(packages)
    assert (zygote_script.installed_packages() != before) == counts


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_forked_worker_finds_a_folder_of_its_search_path_that_was_made_after_the_zygote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = tmp_path / "later"
    search = os.pathsep.join([str(later), *filter(None, [ENVIRONMENT.get("PYTHONPATH")])])
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", search)
    zygote = ZygoteProcess(str(tmp_path), ENVIRONMENT)
    try:
        zygote.serve(os.getpid())
        found = []
        for _ in range(2):
            worker = Worker(tmp_path, zygote.path)
            inherited, own = worker.facts()
            found.append((inherited["found"], own["forked"]))
            assert worker.end() == "over\n"
            later.mkdir(exist_ok=True)
            (later / "made_later.py").touch()
        assert found == [(False, True), (True, True)]
    finally:
        zygote.end()


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[int]], None]]:
    """Let a zygote, for which every fork fails, answer a stub that sends these descriptors."""
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket() as listener:
        zygote = zygote_script.Zygote(listener, (), "1", {})
        monkeypatch.setattr(zygote, "_examine", lambda connection: None)
        monkeypatch.setattr(os, "fork", Mock(side_effect=BlockingIOError("too many processes")))

        def answer(descriptors: list[int]) -> None:
            socket.send_fds(theirs, [worker_stub.REQUEST], descriptors)
            zygote._answer(ours)

        yield answer


def test_a_fork_that_fails_leaves_no_descriptor_open(answer: Callable[[list[int]], None]) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(BlockingIOError):
        answer([0, 1, 2])
    assert os.listdir("/proc/self/fd") == before


def test_nothing_is_forked_if_a_descriptor_of_the_stub_is_missing(answer: Callable[[list[int]], None]) -> None:
    before = os.listdir("/proc/self/fd")
    answer([0, 1])
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.timeout(120)
def test_a_zygote_ends_with_its_owner_however_that_ends(tmp_path: Path) -> None:
    program = (
        "import os, sys, threading\n"
        "from nsactors.transport.ray.zygote_process import ZygoteProcess\n"
        "print(ZygoteProcess(sys.argv[1], dict(os.environ)).pid, flush=True)\n"
        "threading.Event().wait()\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    zygote = int(owner.stdout.readline())
    owner.kill()
    owner.communicate()
    wait_until(lambda: not is_alive(zygote), LIMIT_S)


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_zygote_ends_with_its_raylet_also_if_its_owner_lives_on_as_another_program(tmp_path: Path) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as raylet:
        zygote = ZygoteProcess(str(tmp_path), ENVIRONMENT)
        try:
            zygote.serve(raylet.pid)
            worker = Worker(tmp_path, zygote.path, settings={"RAY_RAYLET_PID": str(raylet.pid)})
            assert worker.facts()[1]["forked"]
            assert worker.end() == "over\n"
            raylet.kill()
            zygote._process.wait(LIMIT_S)
        finally:
            zygote.end()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """A zygote that does nothing by itself."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "zygote"))
        listener.listen()
        yield listener


def test_a_stub_does_not_wait_for_a_zygote_that_hangs_nor_do_later_ones(
    listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_stub, "OFFER_S", 0.05)
    path = str(tmp_path / "zygote")
    assert not worker_stub._replaced(path)
    assert not os.path.exists(path)
    assert not worker_stub._replaced(path)


def test_a_stub_becomes_the_worker_if_the_forked_one_has_ended(listener: socket.socket, tmp_path: Path) -> None:
    def fork_in_vain() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(worker_stub.OFFER)
            _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
            for descriptor in descriptors:
                os.close(descriptor)

    thread = threading.Thread(target=fork_in_vain)
    thread.start()
    assert not worker_stub._replaced(str(tmp_path / "zygote"))
    thread.join()


def test_a_stub_gives_up_if_it_cannot_know_whether_there_is_a_worker(
    listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_stub, "TAKING_S", 0.05)
    over = threading.Event()

    def hang() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(worker_stub.OFFER)
            over.wait()

    thread = threading.Thread(target=hang)
    thread.start()
    with pytest.raises(SystemExit):
        worker_stub._replaced(str(tmp_path / "zygote"))
    over.set()
    thread.join()


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, None),
        ({SWITCH: "1"}, None),
        ({SWITCH: "0"}, f"{SWITCH} is 0"),
        ({"COVERAGE_PROCESS_START": "x"}, "COVERAGE_PROCESS_START is set"),
    ],
)
def test_the_reason_for_which_workers_are_not_forked_is_told(environment: dict[str, str], reason: str | None) -> None:
    assert obstacle_to_forking(environment) == reason


@pytest.mark.parametrize(
    ("folder", "is_obstacle"), [("/home/ann/lib", True), (os.path.dirname(os.__file__), False)], ids=["user", "system"]
)
def test_workers_are_not_forked_where_the_user_has_code_for_each_start(
    monkeypatch: pytest.MonkeyPatch, folder: str, is_obstacle: bool
) -> None:
    module = ModuleType("sitecustomize")
    module.__file__ = f"{folder}/sitecustomize.py"
    monkeypatch.setitem(sys.modules, "sitecustomize", module)
    assert ("sitecustomize.py" in str(obstacle_to_forking({}))) == is_obstacle


def test_workers_of_a_ray_that_was_never_tried_are_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nsactors.transport.ray.zygote_process.installed_ray", lambda: "2.99.0")
    assert "Ray 2.99.0" in str(obstacle_to_forking({}))
