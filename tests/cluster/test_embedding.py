"""How a cluster lives with Ray in one process, and what it leaves behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nsactors.testing import wait_until
from tests.cluster.background import IMPORT_RAY

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(400)]

LIMIT_S = 180


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.fixture(scope="module")
def two_clusters() -> list[str]:
    """The lines of a program that has two clusters beside each other, and then a third one."""
    done = run("""
import signal
from nsactors import Cluster

def is_ours():
    return signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL

first, second = Cluster(n=1), Cluster(n=1)
one, two = first.start_and_connect_sync(), second.start_and_connect_sync()
one["x"], two["x"] = 1, 2
print(one["x"], two["x"], is_ours())
first.stop_cluster_sync()
print(two["x"], is_ours())
second.stop_cluster_sync()
print(is_ours())
with Cluster(n=1) as rc:
    print(rc.ids, is_ours())
print(is_ours())
""")
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_two_clusters_share_the_process_and_one_may_end_first(two_clusters: list[str]) -> None:
    assert [line.rpartition(" ")[0] for line in two_clusters] == ["[1] [2]", "[2]", "", "[0]", ""]


def test_sigterm_is_the_systems_again_when_all_clusters_have_ended(two_clusters: list[str]) -> None:
    assert [line.rpartition(" ")[2] for line in two_clusters] == ["True", "True", "False", "True", "False"]


def test_ray_imported_with_other_settings_is_refused_at_once() -> None:
    done = run(f"""
{IMPORT_RAY}
from nsactors import Cluster
Cluster(n=1).start_and_connect_sync()
""")
    assert "RayImportedFirst: Ray was imported before" in done.stderr


def test_a_ray_that_the_user_has_started_is_used_and_left_running(tmp_path: Path) -> None:
    folder = Path(os.path.realpath(tmp_path)).anchor + f"tmp/nsat-{os.getpid()}"  # short: sockets live in it
    try:
        done = run(
            f"""
{IMPORT_RAY}
from nsactors import Cluster
from nsactors.transport.ray.lean_start import lean_start
with lean_start(ray):  # all that it would start takes a busy machine longer than the 30 s that Ray waits
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, _temp_dir={folder!r}, logging_level="ERROR")
with Cluster(n=1) as rc:
    print(rc[0].apply_sync(abs, -1))
while ray.util.list_named_actors(all_namespaces=True):  # a name goes a moment after its actor
    __import__("threading").Event().wait(0.05)
print(ray.is_initialized())
""",
            RAY_AUTH_TOKEN_PATH=str(_token(tmp_path)),
        )
        assert done.stdout == "1\nTrue\n", done.stderr
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)


def _token(folder: Path) -> Path:
    token = folder / "token"
    token.write_text("ab" * 32)
    return token


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_script_and_all_that_it_started(number: signal.Signals, tmp_path: Path) -> None:
    program = """
import threading
from nsactors import Cluster
with Cluster(n=1) as rc:
    print(rc[0].apply_sync(__import__("os").getpid), flush=True)
    threading.Event().wait(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": "/tmp"},
    )
    assert process.stdout is not None
    engine = int(process.stdout.readline())
    process.send_signal(number)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert "***" not in errors  # no stack of Ray's C++ code
    assert not list(Path("/tmp").glob(f"nsa-{process.pid}-*"))
    wait_until(lambda: not Path(f"/proc/{engine}").exists())


def test_what_a_script_pushed_last_arrives_and_what_failed_unseen_is_told() -> None:
    done = run("""
from nsactors import Cluster
cluster = Cluster(n=1)
rc = cluster.start_and_connect_sync()
rc[0].execute("1/0")
rc[:]["a"] = 1
""")
    assert "1 call failed, and nobody has asked for the result" in done.stderr
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "ClientClosed" not in done.stderr


def test_ray_has_every_private_name_that_is_used() -> None:
    done = run(f"""{IMPORT_RAY}
import ray.util.rpdb, ray._common.usage.usage_lib
from nsactors.transport.ray.private_names import missing_names
print(missing_names(ray))
""")
    assert done.stdout == "[]\n"


def test_what_is_seldom_used_is_imported_neither_here_nor_in_engines() -> None:
    done = run("""
import sys
from nsactors import Cluster
with Cluster(n=1) as rc:
    seldom = {"jsonschema", "requests"}
    print(seldom & set(sys.modules), rc[0].apply_sync(lambda: seldom & set(sys.modules)))
""")
    assert done.stdout == "set() set()\n"


@pytest.mark.parametrize(
    ("show_logs", "servers"),
    [
        (False, ["agent_stub.py", "agent_stub.py", "gcs_server", "raylet", "watchdog.sh"]),
        (
            True,
            [
                "DashboardAgent",
                "RuntimeEnvAgent",
                "dashboard.py",
                "gcs_server",
                "log_monitor.py",
                "monitor.py",
                "raylet",
                "watchdog.sh",
            ],
        ),
    ],
)
def test_servers_run_for_those_who_want_to_see_rays_lines_and_else_only_what_engines_need(
    show_logs: bool, servers: list[str]
) -> None:
    done = run(f"""
import contextlib, re, time
import psutil
from nsactors import Cluster
servers = "[a-z_]*monitor.py|dashboard.py|agent_stub.py|gcs_server|watchdog.sh|raylet|DashboardAgent|RuntimeEnvAgent"
workers = "^ray::(RayEngine|RayController|IDLE)|^[^ ]*python[^ /]* .*(default_worker|zygote).py"  # at first untitled
def running():
    lines = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended by now
            lines.append(" ".join(process.cmdline()))
    return sorted(found[0] if (found := re.search(servers, line)) else line
                  for line in lines if line and not re.search(workers, line))
with Cluster(n=1, show_logs={show_logs}):
    deadline = time.monotonic() + {LIMIT_S - 60}
    while running() != {servers} and time.monotonic() < deadline:  # some are still being started
        time.sleep(0.1)
    print(running())
""")
    assert f"{servers}\n" in done.stdout


def test_a_ray_that_was_never_tried_starts_in_its_own_way() -> None:
    done = run("""
import os
import nsactors.system.resources as resources
from nsactors import Cluster
from nsactors.transport.ray.runtime import PRESETS, PRESETS_OF_TRIED_RAY, ray_runtime

for name in PRESETS_OF_TRIED_RAY:
    os.environ.pop(name, None)  # these variables belong to a cluster of this program's parent
resources.TRIED_RAY = ()
ray = ray_runtime._import_ray(embeds=True, zygote_environment={})
node, services = ray._private.node.Node, ray._private.services
before = node.start_monitor, services.start_ray_process, services.get_node

def init(**options):
    print((node.start_monitor, services.start_ray_process, services.get_node) == before, ray_runtime._zygote)
    print(PRESETS.keys() <= os.environ.keys(), PRESETS_OF_TRIED_RAY.keys() & os.environ.keys())
    raise ConnectionError("enough")

ray.init = init
try:
    Cluster(n=1).start_and_connect_sync()
except ConnectionError as error:
    print(error)
""")
    assert done.stdout == "True None\nTrue set()\nenough\n", done.stderr


def test_tasks_actors_objects_groups_and_runtime_environments_need_no_more() -> None:
    done = run("""
import os
from nsactors import Cluster
with Cluster(n=1):
    import ray
    from ray.util.placement_group import placement_group

    task = ray.remote(lambda value: (value, os.environ.get("GIVEN")))
    print(ray.get(task.remote(ray.put("object"))))
    for value in ("there", "and here"):  # the first starts Ray's agent
        print(ray.get(task.options(runtime_env={"env_vars": {"GIVEN": value}}).remote(1)))
    counter = ray.remote(__import__("collections").Counter).remote("aab")
    print(ray.get(counter.most_common.remote(1)))
    print(placement_group([{"CPU": 1}]).wait(120))
""")
    assert done.stdout == "('object', None)\n(1, 'there')\n(1, 'and here')\n[('a', 2)]\nTrue\n"
