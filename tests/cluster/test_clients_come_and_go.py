"""Clients in processes of their own, which are killed: what they have sent is done, and others get what it gave.

Each client here is a program that gets at the cluster by a file, prints what it has to say, and ends or is killed.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nsactors import Client, Cluster
from nsactors.errors import ResultUnavailable
from nsactors.system.processes import is_alive
from nsactors.testing import TIMEOUT_S, Gate, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(300)]

PROGRAM = """
import os, sys, threading
import numpy as np
from nsactors import Client
rc = Client.connect(sys.argv[1], {name!r}, report=lambda text: None)
def die():
    print(rc.name, flush=True)
    os.kill(os.getpid(), 9)
"""
ENGINES = 4
LIMIT_S = 150
Run = Callable[..., tuple[str, int]]


@pytest.fixture
def rc(rc: Client) -> Iterator[Client]:
    """A client that stays, and leaves the namespaces empty."""
    yield rc
    assert rc[:].clear().wait(TIMEOUT_S)


@pytest.fixture
def run(cluster: Cluster, tmp_path: Path) -> Run:
    """Runs a program with a client ``rc`` of its own: what it printed last, and its exit code."""
    place = tmp_path / "private" / "cluster.json"
    cluster.connection_info().save(place)

    def run(program: str, *arguments: str, name: str = "driver") -> tuple[str, int]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(name=name) + program, str(place), *arguments],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.stdout.strip(), done.returncode

    return run


def test_fifty_calls_of_a_client_killed_as_soon_as_they_were_accepted_are_collected_by_another_process(
    rc: Client, run: Run
) -> None:
    name, code = run("""
view = rc[:]
def slow_square(x):
    import threading
    threading.Event().wait(0.2)
    print("squared", x)
    return x * x
for number in range(50):
    rc[number % 4].apply_async(slow_square, number)
rc.flush()
die()
""")
    assert code == -signal.SIGKILL
    collected, _ = run(
        """
result = rc.get_result(sys.argv[2])
print(result.get(120) == [x * x for x in range(50)], len(result.stdout), result.stdout[0], end="")
""",
        name,
    )
    *shown, said = collected.splitlines()
    assert said == "True 50 squared 0"
    assert sorted(shown) == sorted(f"squared {x}" for x in range(50))


def test_a_client_that_is_killed_is_missed_and_what_it_would_have_got_is_kept(rc: Client, run: Run, gate: Gate) -> None:
    """Eight megabytes, and it had not called flush()."""
    rc[0].push({"pass_through": gate.pass_through}, block=True)
    name, _ = run("""
def work():
    pass_through()
    return np.ones(1_000_000)
rc[0].apply_async(work)
while not rc.history(client=rc.name):
    threading.Event().wait(0.05)
die()
""")
    wait_until(lambda: name not in rc.clients())
    result = rc.get_result(name)
    gate.open()
    (value,) = result.get(TIMEOUT_S)
    assert value.sum() == 1_000_000


def test_a_client_that_is_killed_is_missed_while_a_child_that_it_forked_lives(rc: Client, run: Run) -> None:
    printed, _ = run("""
rc[:].apply_sync(os.getpid)
child = os.fork()
if child == 0:
    os.close(1)
    os.close(2)
    threading.Event().wait(600)
    os._exit(0)
print(child)
die()
""")
    child, name = printed.split()
    try:
        wait_until(lambda: name not in rc.clients())
        assert is_alive(int(child))
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_calls_whose_large_data_went_with_their_client_say_so(rc: Client, run: Run, gate: Gate) -> None:
    rc[0].push({"pass_through": gate.pass_through}, block=True)
    name, _ = run("""
rc[0].execute("pass_through()")
large = np.ones(1_000_000)
rc[0].apply_async(lambda array: array.sum(), large)
rc[0].apply_async(lambda: "small")
rc.flush()
die()
""")
    wait_until(lambda: name not in rc.clients())
    gate.open()
    _, large, small = (rc.get_result(entry) for entry in rc.history(client=name))
    assert small.get(TIMEOUT_S) == "small"
    with pytest.raises(ResultUnavailable, match="large data for it was lost with the client"):
        large.get(TIMEOUT_S)


def test_clients_of_two_processes_see_each_others_work(rc: Client, run: Run, gate: Gate) -> None:
    mine = rc[1].apply_async(gate.pass_through)
    gate.wait_arrived()
    wait_until(lambda: [entry.outcome for entry in rc.history(client=rc.name)] == ["running"])
    seen, _ = run(
        """
entry, = rc.history(client=sys.argv[2])
print(entry.label, entry.outcome, entry.engine_id, sys.argv[2] in rc.clients())
""",
        rc.name,
    )
    gate.open()
    assert seen.endswith("running 1 True")
    assert mine.get(TIMEOUT_S) == "passed"


def test_a_restarted_kernel_draws_what_was_printed_and_displayed_and_goes_on(rc: Client, run: Run, gate: Gate) -> None:
    rc[2:].push({"pass_through": gate.pass_through}, block=True)
    name, _ = run("""
rc[2:].execute('''
from IPython.display import display, HTML
print("begun")
display(HTML("<b>half</b>"))
pass_through()
print("done")
''')
rc.flush()
die()
""")
    gate.wait_arrived(2)
    wait_until(lambda: name not in rc.clients())
    gate.open()
    # What engines print within a fifth of a second is drawn once for both; what they have printed already, always.
    wait_until(lambda: [entry.outcome for entry in rc.history(client=name)] == ["ok", "ok"])
    drawn, _ = run("""
result = rc.resume()
print(len(result.calls), result.outputs[0][0]["data"]["text/html"])
""")
    assert drawn.splitlines()[0] == "[2-3] begun"
    assert "[2-3] done" in drawn
    assert drawn.splitlines()[-1] == "2 <b>half</b>"


def test_what_a_client_needs_is_in_a_file_for_its_user_alone(run: Run, tmp_path: Path) -> None:
    assert run("print(rc[:].apply_sync(abs, -1))") == ("[1, 1, 1, 1]", 0)
    folder, file = tmp_path / "private", tmp_path / "private" / "cluster.json"
    assert (stat.S_IMODE(folder.stat().st_mode), stat.S_IMODE(file.stat().st_mode)) == (0o700, 0o600)
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text()
    assert token not in file.read_text()


def test_a_client_of_a_cluster_that_has_stopped_is_told(tmp_path: Path, run: Run, cluster: Cluster) -> None:
    second = Cluster(n=0)
    second.start_cluster_sync()
    second.connection_info().save(tmp_path / "second.json")
    second.stop_cluster_sync()
    told, _ = run(f"""
from nsactors.errors import ClusterUnreachable
try:
    Client.connect({str(tmp_path / "second.json")!r})
except ClusterUnreachable as error:
    print(error)
""")
    assert "the cluster has stopped" in told
