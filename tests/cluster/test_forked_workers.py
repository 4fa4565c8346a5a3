"""Engines forked by a zygote: they start, die and end as engines that are executed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from nsactors.system.processes import is_alive
from nsactors.testing import no_process_left_behind, wait_until
from nsactors.transport.ray.zygote_process import SWITCH, obstacle_to_forking

pytestmark = [
    pytest.mark.ray,
    pytest.mark.cluster,
    pytest.mark.timeout(400),
    pytest.mark.skipif(obstacle_to_forking(os.environ) is not None, reason="workers are executed here"),
]

LIMIT_S = 180
PRELUDE = """
import os, sys
from nsactors import Cluster

def parent():
    with open(f"/proc/{os.getppid()}/cmdline") as file:
        return "zygote" if "/zygote.py" in file.read() else "raylet"

def about():
    return os.getpid(), os.getppid(), parent()
"""


def run(program: str, **environment: str) -> list[str]:
    """Run a program in a process of its own; return the lines that it has printed."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    errors = [line for line in done.stderr.splitlines() if " is recovered: " not in line]
    assert (done.returncode, errors) == (0, [])
    return done.stdout.splitlines()


@contextmanager
def running(program: str) -> Iterator[tuple[subprocess.Popen[str], int, int, int]]:
    """Run a program that prints the process ids of its engine, its zygote and its raylet, and then waits."""
    program = PRELUDE + program
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            engine, zygote, raylet = map(int, process.stdout.readline().split())
            yield process, engine, zygote, raylet
        finally:
            process.kill()


ONE_ENGINE = """
import threading
with Cluster(n=1) as rc:
    engine, zygote, _ = rc[0].apply_sync(about)
    print(engine, zygote, rc[0].apply_sync(lambda: os.environ["RAY_RAYLET_PID"]), flush=True)
    threading.Event().wait()
"""


@pytest.mark.parametrize(("switch", "parents"), [("1", "['zygote', 'zygote']"), ("0", "['raylet', 'raylet']")])
def test_engines_are_forked_unless_this_is_switched_off(switch: str, parents: str) -> None:
    with no_process_left_behind():
        lines = run("with Cluster(n=2) as rc: print(rc[:].apply_sync(parent))", **{SWITCH: switch})
    assert lines == [parents]


def test_every_cluster_of_a_process_gets_its_variables_before_numpy_is_imported() -> None:
    program = """
def threads():
    return os.environ.get("OMP_NUM_THREADS"), os.environ.get("OF_CLUSTER"), parent()

for number in ("3", "4"):
    with Cluster(n=1, environment={"OMP_NUM_THREADS": number, "OF_CLUSTER": number}) as rc:
        print(*rc[0].apply_sync(threads))
"""
    with no_process_left_behind():
        assert run(program) == ["3 3 zygote", "4 4 zygote"]


@pytest.mark.parametrize("error", ["ConnectionError", "KeyboardInterrupt"])
def test_the_start_after_one_that_failed_when_the_raylet_ran_has_a_zygote_of_its_own(error: str) -> None:
    program = f"""
from nsactors.transport.ray.runtime import ray_runtime, _StarterThread

ray = ray_runtime._import_ray(embeds=True, zygote_environment={{}})
worker, wait = ray._private.worker, _StarterThread.wait
connect = worker.connect

def fail(*args, **options):
    worker.connect = connect
    raise ConnectionError("once")

def be_interrupted(self, obstacle):
    _StarterThread.wait = wait
    raise {error}("once")

worker.connect = fail
if {error} is KeyboardInterrupt:
    _StarterThread.wait = be_interrupted
try:
    Cluster(n=1).start_and_connect_sync()
except {error} as error:
    print(type(error).__name__)
with Cluster(n=1) as rc:
    print(rc[0].apply_sync(parent))
"""
    with no_process_left_behind():
        assert run(program) == [error, "zygote"]


def test_without_their_zygote_engines_go_on_and_others_are_executed() -> None:
    program = """
import signal
cluster = Cluster(n=1)
with cluster as rc:
    rc[0]["a"] = 1
    os.kill(rc[0].apply_sync(os.getppid), signal.SIGKILL)
    print(rc[0]["a"], rc[0].apply_sync(abs, -1))
    cluster.start_engines(1)
    rc.wait_for_engines(2)
    print(rc[1].apply_sync(parent))
"""
    with no_process_left_behind():
        assert run(program) == ["1 1", "raylet"]


def test_an_engine_that_was_killed_is_forked_anew() -> None:
    program = """
import signal
with Cluster(n=1, recovery="replay") as rc:
    rc[0].execute("a = 41", block=True)
    pid = rc[0].apply_sync(os.getpid)
    os.kill(pid, signal.SIGKILL)
    while True:
        try:
            new, _, its_parent = rc[0].apply_sync(about)
            break
        except Exception:
            pass
    print(rc[0]["a"] + 1, new != pid, its_parent)
"""
    with no_process_left_behind():
        assert run(program) == ["42 True zygote"]


def test_an_actor_with_a_runtime_environment_is_executed_with_it() -> None:
    program = """
with Cluster(n=1) as rc:
    import ray

    @ray.remote(num_cpus=0, runtime_env={"env_vars": {"OF_ACTOR": "1"}})
    class Actor:
        def about(self):
            return os.environ.get("OF_ACTOR"), parent()

    print(*ray.get(Actor.remote().about.remote()))
"""
    with no_process_left_behind():
        assert run(program) == ["1 raylet"]


def test_nothing_is_left_of_a_program_that_is_killed() -> None:
    with no_process_left_behind(grace_s=60), running(ONE_ENGINE) as (process, *others):
        process.kill()
        wait_until(lambda: not any(map(is_alive, others)), LIMIT_S)
        process.wait()


def test_an_engine_ends_with_its_raylet_though_it_is_not_its_child() -> None:
    program = """
from nsactors.transport.ray.runtime import ray_runtime
cluster = Cluster(n=1)
rc = cluster.start_and_connect_sync()
ray_runtime.leave_servers_unwatched()  # this process would end the engine itself
engine, zygote, _ = rc[0].apply_sync(about)
raylet = int(rc[0].apply_sync(lambda: os.environ["RAY_RAYLET_PID"]))
print(engine, zygote, raylet, flush=True)
os.waitpid(raylet, 0)  # until then there is such a process
__import__("threading").Event().wait()
"""
    with no_process_left_behind(grace_s=60), running(program) as (_, engine, zygote, raylet):
        assert psutil.Process(engine).ppid() == zygote
        os.kill(raylet, signal.SIGKILL)
        wait_until(lambda: not is_alive(engine), LIMIT_S)
