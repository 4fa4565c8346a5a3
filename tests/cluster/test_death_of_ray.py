"""Deaths of Ray's own servers under a program that uses a cluster."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nsactors.testing import wait_until
from tests.cluster.background import CommandLine

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(400)]

LIMIT_S = 180

# Has calls and tasks open, and an array of the object store, when the server is killed.
PROGRAM = """
import gc, os, signal, sys, threading, time
import numpy as np
from nsactors import Client, Cluster
from nsactors.errors import ClusterLost, EngineLost

def server(name):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = open(f"/proc/{pid}/stat").read()
            command = open(f"/proc/{pid}/cmdline").read().split("\\0")
        except OSError:
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        words = [word for word in command if word.endswith(name) and not word.startswith("-")]
        if words and parent in (os.getpid(), above.get("raylet")):
            above[os.path.basename(words[0])] = int(pid)
            return int(pid)

above = {}
cluster = Cluster(n=2)
rc = cluster.start_and_connect_sync()
rc[0]["x"] = np.ones(10**6)
array = rc[0]["x"]
rc[:].apply_sync(os.getpid)
server("/raylet")
call = rc[0].apply(time.sleep, 600)
tasks = rc.load_balanced_view().map_async(time.sleep, [600] * 8)
began = []
threading.Timer(0.5, lambda: (began.append(time.monotonic()), os.kill(server(sys.argv[1]), signal.SIGKILL))).start()
for wait in (rc[1].apply(time.sleep, 600).get, call.get, tasks.get, lambda: rc[1].apply_sync(os.getpid)):
    try:
        wait()
    except (ClusterLost, EngineLost) as lost:
        print(type(lost).__name__, time.monotonic() - began[0] < 45)  # calls hung for more than two minutes
del array
gc.collect()
print("lives on")
"""

AGAIN = """
with Cluster(n=1) as rc:
    rc[0]["x"] = np.ones(10**6)
    print(rc[0]["x"].sum())
"""


def run(program: str, *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    return subprocess.run(
        [*prefix, sys.executable, "-c", program, *arguments],
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_a_program_outlives_its_raylet_and_starts_another_cluster() -> None:
    done = run(PROGRAM + AGAIN, "/raylet")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["ClusterLost True"] * 4 + ["lives on", "1000000.0"]
    told = (
        r"nsactors: Ray's raylet \(process \d+\) was killed by SIGKILL: the cluster is lost, .* start another cluster"
    )
    assert len(re.findall(told, done.stderr)) == 1


def test_a_program_outlives_the_gcs() -> None:
    done = run(PROGRAM, "/gcs_server")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["ClusterLost True"] * 4 + ["lives on"]
    assert "nsactors: Ray's GCS" in done.stderr


def test_an_uncaught_error_is_shown_though_the_servers_have_just_died() -> None:
    done = run("""
import os, signal, sys
from nsactors import Cluster

rc = Cluster(n=1).start_and_connect_sync()
import ray
for process in ray._private.worker._global_node.all_processes.values():
    for entry in process:
        os.kill(entry.process.pid, signal.SIGKILL)
raise LookupError("the program's own")
""")
    assert done.returncode == 1
    assert "LookupError: the program's own" in done.stderr


def test_an_agent_whose_end_is_the_raylet_s_is_named() -> None:
    done = run(PROGRAM, "/runtime_env/agent/main.py")
    assert done.returncode == 0, done.stderr
    # The raylet ends its engines before itself, so calls may hear of that first.
    assert re.fullmatch(r"((ClusterLost|EngineLost) True\n){4}lives on\n", done.stdout), done.stdout
    assert re.search(
        r"nsactors: Ray's raylet \(process \d+\) ended because its runtime env agent had died", done.stderr
    )


def test_a_raylet_that_dies_while_it_starts_ends_the_start() -> None:
    done = run("""
import time
import nsactors.transport.ray.runtime as runtime
from nsactors import Cluster
from nsactors.errors import RayStartError
lean_start = runtime.lean_start

def killing_start(ray, started, *options):
    def kill(name, process):
        started(name, process)
        if name == "raylet":
            process.kill()
    return lean_start(ray, kill, *options)

runtime.lean_start = killing_start
began = time.monotonic()
try:
    Cluster(n=1).start_and_connect_sync()
except RayStartError as error:
    print(time.monotonic() - began < 120, error)  # Ray itself waits for ever
runtime.os._exit(0)  # before Ray ends it
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True Ray does not start on this machine: its raylet ended with status -9.")


@pytest.mark.parametrize("error", ["Exception", "TimeoutError"])
def test_a_start_that_ray_gives_up_is_an_error_of_the_start(error: str) -> None:
    done = run(f"""
import nsactors.transport.ray.runtime as runtime
from nsactors import Cluster
from nsactors.errors import RayStartError

def give_up(**options):
    raise {error}("The current node timed out during startup. Ray is overloaded.")

ray = runtime.ray_runtime._import_ray(embeds=True, zygote_environment=None)
ray.init = give_up
try:
    Cluster(n=1).start_and_connect_sync()
except RayStartError as error:
    print(error)
""")
    words = "Ray does not start on this machine: The current node timed out during startup. Ray is overloaded. Ray may"
    assert done.stdout.startswith(words), done.stderr


def can_mount() -> bool:
    """Return whether this user's processes may have their own /dev/shm."""
    mount = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    try:
        return subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount a /dev/shm of its own")
def test_a_full_shared_memory_is_an_error_of_the_call_and_goes_by() -> None:
    program = """
import numpy as np
from nsactors import Cluster
from nsactors.errors import StoreFull

def tried(attempt):
    try:
        return attempt()
    except StoreFull as full:
        return "/dev/shm" in str(full)

with Cluster(n=1, object_store_memory="100MB") as rc:
    ones = lambda: __import__("numpy").ones(2_500_000)
    with open("/dev/shm/filler", "wb") as filler:
        try:
            while True:
                filler.write(bytes(1_000_000))
                filler.flush()
        except OSError:
            pass
    print(tried(lambda: rc[0].push({"x": ones()}, block=True)), tried(lambda: rc[0].apply_sync(ones)))
    __import__("os").unlink("/dev/shm/filler")
    print(tried(lambda: rc[0].push({"x": ones()}, block=True)), tried(lambda: rc[0].apply_sync(ones).sum()))
"""
    with_own_memory = 'mount -t tmpfs -o size=200m tmpfs /dev/shm && exec "$@"'
    done = run(program, prefix=("unshare", "-m", "sh", "-c", with_own_memory, "sh"))
    assert done.stdout == "True True\nNone 2500000.0\n", done.stderr


def test_clients_of_a_cluster_in_the_background_outlive_its_raylet(tmp_path: Path) -> None:
    command = CommandLine(tmp_path)
    command("start", "-n", "1", "--name", "doomed")
    done = command.python("""
import os, signal
import numpy as np
from nsactors import Client
from nsactors.errors import ClusterLost
from nsactors.transport.ray.servers import raylet_process
rc = Client("doomed")
rc[0]["x"] = np.ones(10**6)
array = rc[0]["x"]
call = rc[0].execute("import time; time.sleep(600)")
import ray
os.kill(raylet_process(ray), signal.SIGKILL)
try:
    call.get()
except ClusterLost as lost:
    print(lost)
del array
print("lives on")
""")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"Ray's raylet \(process \d+\) has died: the cluster is lost, .*\nlives on\n", done.stdout)
    wait_until(lambda: command.json("list") == [])  # its owner has ended, too


SHUT_DOWN = """
import os, sys, time
from nsactors import Cluster
from nsactors.errors import RayShutDown

cluster = Cluster(n=2)
rc = cluster.start_and_connect_sync()
calls = [lambda: rc[:].apply_sync(os.getpid), rc.queue_status, lambda: rc[0].push({"a": 1}, block=True)]
for call in calls:
    call()
if sys.argv[1] == "busy":
    calls.insert(0, rc[0].apply_async(time.sleep, 600).get)
import ray

ray.shutdown()
for call in calls:
    try:
        call()
    except RayShutDown:
        print("shut down", ray.is_initialized())
"""


@pytest.mark.parametrize(("engine", "next_step"), [("busy", "stop"), ("idle", "stop"), ("idle", "start")])
def test_calls_fail_after_ray_was_shut_down_and_start_no_other_ray(engine: str, next_step: str) -> None:
    end = {"stop": "cluster.stop_cluster_sync()\nprint(ray.is_initialized())", "start": AGAIN}[next_step]
    done = run(SHUT_DOWN + "import numpy as np\n" + end, engine)
    assert done.returncode == 0, done.stderr
    *calls, last = done.stdout.splitlines()
    assert calls == ["shut down False"] * {"busy": 4, "idle": 3}[engine], done.stderr
    assert last == {"stop": "False", "start": "1000000.0"}[next_step]
    assert done.stderr == ""
