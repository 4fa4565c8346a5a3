"""Clusters in the background: started, found, used, listed and ended with the command and from other processes."""

from __future__ import annotations

import os
import signal
import textwrap
from pathlib import Path
from subprocess import Popen

import pytest
from jupyter_client import KernelManager

from nsactors.errors import engine_ranges
from nsactors.system.processes import marked_processes
from nsactors.testing import TIMEOUT_S, wait_until
from tests.cluster.background import LIMIT_S, CommandLine

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(450)]

SLEEP = "import os, time; open({folder!r} + f'/{{os.getpid()}}', 'w').close(); time.sleep(600)"
"""Makes a file in a folder when an engine has begun it."""


def folders_of(pid: int) -> list[Path]:
    return list(Path("/tmp").glob(f"nsa-{pid}-*"))


def rays_shared_memory() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if "plasma" in name or "ray" in name}


def test_what_one_process_leaves_on_the_engines_another_one_finds(lab: CommandLine) -> None:
    lab("exec", "left = 'here'")
    found = lab.python("from nsactors import Client; print(Client()['left'], Client('lab')[:].pull('left').get())")
    assert found.stdout == "['here', 'here'] ['here', 'here']\n", found.stderr


def test_clients_see_each_other_and_one_that_is_killed_takes_nothing_along(lab: CommandLine) -> None:
    lab("exec", "a = 1")
    killed = lab.python("""
import os, signal
from nsactors import Client
rc = Client("lab", "one")
rc[:].execute("a += 1", block=True)
rc.flush()
os.kill(os.getpid(), signal.SIGKILL)
""")
    assert killed.returncode == -signal.SIGKILL
    seen = lab.python("""
from nsactors import Client
rc = Client("lab", "two")
rc[:].execute("a += 1", block=True)
def of_one():
    return [entry.source for entry in rc.history() if entry.request.client.startswith("one-")]
while len(of_one()) < 2:  # the history has them a moment after they have ended
    pass
print(rc["a"], of_one())
""")
    assert seen.stdout == "[3, 3] ['a += 1', 'a += 1']\n", seen.stderr


def test_attaching_takes_no_longer_than_a_busy_machine_makes_it(lab: CommandLine) -> None:
    """0.4 s, where it has nothing else to do."""
    program = """
import time
from nsactors import Client
began = time.perf_counter()
Client()[:].apply_sync(abs, -1)
print(time.perf_counter() - began)
"""
    assert float(lab.python(program).stdout) < TIMEOUT_S


def test_a_magic_attaches_an_ipython_prompt(lab: CommandLine) -> None:
    cells = "%load_ext nsactors\n%pxattach lab\n%px print('on', 6 * 7)\nprint(rc.ids)\nrc.close()\n"
    done = lab.python(
        "import sys; from IPython import start_ipython; start_ipython(argv=['--simple-prompt', '--no-banner'])",
        input=cells,
    )
    assert "Attached to lab: [0-1]. They are `rc`." in done.stdout
    apart = all(line in done.stdout for line in ("[0] on 42", "[1] on 42"))  # one of them was a fifth of a second later
    assert apart or "[0-1] on 42" in done.stdout


def test_lists_and_status_are_for_people_and_for_scripts(lab: CommandLine) -> None:
    (listed,) = lab.json("list")
    assert (listed["name"], listed["state"]) == ("lab", "running")
    assert "nsactors start" in lab("list").stdout

    def rests() -> bool:
        status = lab.json("status", "lab")
        engines = [(engine["state"], engine["runs"]) for engine in status["engines"]]
        return (engines, status["clients"]) == ([("idle", "")] * 2, [])

    wait_until(rests, LIMIT_S)  # what has ended, and a client that was killed, is known in a moment
    assert "idle" in lab("status").stdout
    assert "idle" in lab("stack").stdout
    assert lab.json("stack", "lab")["0"]["threads"] == [{"name": "requests", "frames": []}]


def test_a_script_runs_on_engines_with_its_arguments_and_its_output_comes_here(
    lab: CommandLine, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(__name__, sys.argv[1:])\nprint('oops', file=sys.stderr)\nshared = 5\n")
    done = lab("run", "--targets", "1", str(script), "a", "--flag")
    assert "[1] __main__ ['a', '--flag']" in done.stdout
    assert "oops" in done.stdout
    assert lab("exec", "-t", "1", "shared").stdout.strip().endswith("5")


def test_the_exit_status_is_that_of_the_script(lab: CommandLine, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit(3)")
    assert lab("run", str(script), status=3).stderr == ""


def test_a_failure_is_drawn_once_for_all_engines(lab: CommandLine) -> None:
    errors = lab("exec", "1 / 0", status=1).stderr
    assert errors.count("ZeroDivisionError: division by zero  [engines 0-1]") == 1
    assert "Traceback" not in errors


@pytest.fixture
def asleep(lab: CommandLine, tmp_path: Path) -> Popen[str]:
    """A command whose cell both engines run."""
    (tmp_path / "begun").mkdir()
    running = lab.spawn("exec", SLEEP.format(folder=str(tmp_path / "begun")))
    wait_until(lambda: len(os.listdir(tmp_path / "begun")) == 2, LIMIT_S)
    return running


def test_ctrl_c_interrupts_what_the_engines_run(lab: CommandLine, asleep: Popen[str]) -> None:
    asleep.send_signal(signal.SIGINT)
    asleep.communicate(timeout=LIMIT_S)
    assert asleep.returncode == 130
    assert "[0-1]: 'alive'" in lab("exec", "'alive'").stdout


def test_a_kernel_that_is_restarted_leaves_the_engines_at_work(lab: CommandLine, tmp_path: Path) -> None:
    """Jupyter sends it SIGINT first, as for its interrupt button, and the request to shut down right behind that."""
    cell = (
        "import os, pathlib, time\ndone = False\npathlib.Path({begun!r}, str(os.getpid())).touch()\n"
        "while not pathlib.Path({go!r}).exists(): time.sleep(0.01)\ndone = True"
    )
    here = {"PYTHONPATH": str(Path(__file__).parents[2]), "IPYTHONDIR": str(tmp_path / "ipython")}
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env={**lab.environment, **here}, cwd=str(tmp_path))
    try:
        for end in ("restart", "interrupt"):
            client = manager.client()  # none outlives its kernel
            client.start_channels()
            client.wait_for_ready(LIMIT_S)
            begun = tmp_path / f"begun before {end}"
            begun.mkdir()
            source = cell.format(go=str(tmp_path / end), begun=str(begun))
            # The request to shut down may come late on a busy machine.
            patience = "from nsactors.results import interrupting; interrupting.SHUTDOWN_FOLLOWS_S = 60.0\n"
            run = f"import nsactors; nsactors.Client('lab')[:].execute({source!r}, block=True)"
            client.execute(patience + run if end == "restart" else run)
            wait_until(lambda begun=begun: len(os.listdir(begun)) == 2, LIMIT_S)
            if end == "restart":
                manager.restart_kernel(now=False)
                (tmp_path / end).touch()
            else:
                manager.interrupt_kernel()
            client.stop_channels()
            assert lab("exec", "done").stdout.split()[-1] == str(end == "restart")
    finally:
        manager.shutdown_kernel(now=True)


def test_another_command_interrupts_too(lab: CommandLine, asleep: Popen[str]) -> None:
    is_shown = lambda engine: engine["runs"].startswith("import os, time; open(")  # noqa: E731
    wait_until(lambda: all(map(is_shown, lab.json("status", "lab")["engines"])), LIMIT_S)  # it is known in a moment
    assert "engines 0-1" in lab("interrupt", "lab").stdout
    asleep.communicate(timeout=LIMIT_S)
    assert asleep.returncode == 130


def test_engines_come_and_go_and_are_restarted(lab: CommandLine) -> None:
    added = int(lab("engines", "add", "1").stdout.split()[-1])
    before = {engine["engine_id"]: engine["pid"] for engine in lab.json("engines", "list")}
    assert sorted(before) == [0, 1, added]
    assert lab("engines", "restart", str(added)).stdout == f"The cluster now has {engine_ranges(before)}.\n"
    after = {engine["engine_id"]: engine["pid"] for engine in lab.json("engines", "list")}
    assert [number for number in before if before[number] != after[number]] == [added]
    assert lab("engines", "remove", str(added)).stdout == "The cluster now has engines 0-1.\n"


def test_engines_that_cannot_be_added_are_an_error(lab: CommandLine) -> None:
    errors = lab("engines", "add", "1", "--on", "nohost", status=1).stderr
    assert "there is no node nohost" in errors
    assert "EngineStartWarning" not in errors
    assert errors.count("did not start") == 1


def test_logs_are_shown(lab: CommandLine) -> None:
    lab("exec", "print('kept in a file')")
    assert "kept in a file" in lab("logs", "--engine", "0").stdout
    empty = lab("logs", "lab")
    assert (empty.stdout, empty.stderr.startswith("nothing has been written yet: ")) == ("", True)


def test_programs_and_commands_take_the_cluster_that_the_environment_names(lab: CommandLine) -> None:
    program = "from nsactors import Client; print(Client().ids)"
    environment = {**lab.environment, "NSACTORS_CLUSTER": "lab"}
    assert lab.python(program, env=environment).stdout == "[0, 1]\n"
    environment["NSACTORS_CLUSTER"] = "nope"
    assert "no cluster 'nope', which NSACTORS_CLUSTER names, of yours runs here; there is 'lab'" in (
        lab.python(program, env=environment).stderr
    )
    assert "no cluster 'nope' of yours" in lab("top", env=environment, status=1).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["status", "nope"], "no cluster 'nope' of yours runs here; there is 'lab'"),
        (["start", "--name", "lab"], "a cluster 'lab' of yours runs already"),
        (["exec", "-t", "9", "1"], "there is no engine 9"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(lab: CommandLine, arguments: list[str], said: str) -> None:
    errors = lab(*arguments, status=1).stderr
    assert said in errors
    assert errors.startswith("Error: ")
    assert "Traceback" not in errors


def test_another_minor_version_of_python_is_refused(lab: CommandLine) -> None:
    lab.change("lab", versions={"python": "3.2.1", "nsactors": "0.0"})
    try:
        refused = lab("exec", "-c", "changed", "1", status=1).stderr
    finally:
        lab.registry.remove(lab.registry.find("changed"))
    assert "do not understand each other" in refused
    assert "3.2.1" in refused


def test_other_versions_are_warned_of_with_a_table(lab: CommandLine) -> None:
    record = lab.record("lab")
    assert record.connection is not None
    lab.change("lab", versions={**record.connection.versions, "numpy": "0.1"})
    try:
        told = lab.python("from nsactors import Client; print(Client('changed').ids)")
    finally:
        lab.registry.remove(lab.registry.find("changed"))
    assert told.stdout == "[0, 1]\n"
    assert "VersionWarning" in told.stderr
    assert "numpy" in told.stderr
    assert "0.1" in told.stderr


def test_clients_that_come_and_go_by_the_hundred_leave_nothing_with_the_controller(
    lab: CommandLine, request: pytest.FixtureRequest
) -> None:
    many = 900 if request.config.getoption("--full-size") else 200
    connection = lab.record("lab").connection
    assert connection is not None
    done = lab.python(
        textwrap.dedent("""
        import sys
        import threading
        import time
        from nsactors import Client

        def census(controller):
            import psutil
            clients, presences = controller._clients, controller._presences
            return (len(clients._queues), len(presences._left)), psutil.Process().memory_info().rss

        rc = Client("lab")
        import ray
        controller = ray.get_actor("controller", namespace=sys.argv[1])
        look = lambda: ray.get(controller.__ray_call__.remote(census))
        def cycles(count):
            for _ in range(count):
                Client("lab", "passer-by").close()
        cycles(100)
        _, before = look()
        many = int(sys.argv[2])
        cycles(many)
        give_up, pause = time.monotonic() + 100, threading.Event()
        while look()[0] != (1, 1) and time.monotonic() < give_up:  # what was on its way has arrived
            pause.wait(0.1)
        held, after = look()
        few = 4_000_000  # that memory is more or less from one reading to the next
        print(held, after - before < few + 20_000 * many, rc.clients() == [rc.name])
        """),
        connection.namespace,
        str(many),
    )
    assert done.stdout == "(1, 1) True True\n", done.stdout + done.stderr


def test_stop_leaves_no_process_and_no_file(nsactors_command: CommandLine) -> None:
    shared_memory = rays_shared_memory()
    started = nsactors_command.json("start", "-n", "1", "--name", "short")
    assert started == {"name": "short", "engines": 1}
    record = nsactors_command.record("short")
    nsactors_command("exec", "-c", "short", "import subprocess; child = subprocess.Popen(['sleep', '600'])")
    assert folders_of(record.owner.pid)
    assert len(marked_processes(record.mark)) >= 5
    nsactors_command("stop", "short")
    assert marked_processes(record.mark) == []
    assert record.owner.is_gone
    assert folders_of(record.owner.pid) == []
    assert [path.name for path in nsactors_command.registry.folder.iterdir() if path.name.startswith("short")] == []
    wait_until(lambda: rays_shared_memory() <= shared_memory)  # others' Rays may be starting


def test_what_a_killed_cluster_leaves_is_cleaned_up_by_whoever_looks(nsactors_command: CommandLine) -> None:
    nsactors_command("start", "-n", "1", "--name", "doomed")
    record = nsactors_command.record("doomed")
    os.kill(record.owner.pid, signal.SIGKILL)
    wait_until(lambda: record.owner.is_gone)
    assert all(cluster["name"] != "doomed" for cluster in nsactors_command.json("list"))
    wait_until(lambda: marked_processes(record.mark) == [])
    assert "no cluster 'doomed' of yours" in nsactors_command("status", "doomed", status=1).stderr
    assert folders_of(record.owner.pid) == []


def test_in_the_foreground_it_ends_by_itself_when_nobody_uses_it(nsactors_command: CommandLine) -> None:
    idle = nsactors_command.spawn("start", "-n", "1", "--name", "idle", "--foreground", "--idle-shutdown", "0.02")
    said, errors = idle.communicate(timeout=LIMIT_S)
    assert (idle.returncode, errors) == (0, "")
    assert said.startswith("The cluster 'idle' runs, with 1 engine.\n")
    assert not list(nsactors_command.registry.folder.glob("idle.*"))


def test_ctrl_c_while_it_starts_leaves_nothing(nsactors_command: CommandLine) -> None:
    starting = nsactors_command.spawn("start", "-n", "1", "--name", "never")
    wait_until((nsactors_command.registry.folder / "never.json").exists)
    record = nsactors_command.registry.find("never")
    starting.send_signal(signal.SIGINT)
    starting.communicate(timeout=LIMIT_S)
    assert starting.returncode != 0
    wait_until(lambda: record.owner.is_gone and not marked_processes(record.mark))
    assert not (nsactors_command.registry.folder / "never.json").exists()
    assert folders_of(record.owner.pid) == []


def test_a_process_goes_on_with_other_clusters_when_its_own_has_ended(nsactors_command: CommandLine) -> None:
    done = nsactors_command.python(
        """
import os, subprocess, sys
from nsactors import Client, Cluster
from nsactors.errors import ClusterStopped
from nsactors.transport.registry import Registry

def nsactors(*arguments):
    program = "from nsactors.cli import main; main(prog_name='nsactors')"
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, stdout=subprocess.DEVNULL)

def attached(name):
    rc = Client(name)
    print(rc.ids)
    nsactors("stop", name)
    try:
        rc[:].apply_sync(os.getpid)
    except ClusterStopped as error:
        print(type(error).__name__)

nsactors("start", "-n", "1", "--name", "first")
attached("first")
with Cluster(n=1) as rc:
    print(rc.ids)
    nsactors("start", "-n", "1", "--name", "second")
    # Its token is its own, and stays when this cluster ends.
    print(Registry().find("second").connection.settings["RAY_AUTH_TOKEN_PATH"] != os.environ["RAY_AUTH_TOKEN_PATH"])
attached("second")
with Cluster(n=1) as rc:
    print(rc.ids)
"""
    )
    attached = ["[0]", "ClusterStopped"]
    assert done.stdout.splitlines() == [*attached, "[0]", "True", *attached, "[0]"], done.stderr
    assert done.stderr == ""
