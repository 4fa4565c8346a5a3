"""Ray's autoscaler, of both versions: nodes come for engines and go without them, and a lost one is replaced."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.autoscaling import AutoscaledRay, why_not

REASON = why_not()

pytestmark = [
    pytest.mark.ray,
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]

LIMIT = "Ray adds no node: max_workers of the cluster file limits their number to {}"

# Writes what holds after each step. An engine asks for a core, but the one that is started last.
PROGRAM = r"""
import os, signal, threading, warnings
from pathlib import Path
import ray
from nsactors import Cluster
from nsactors.testing import wait_until

def node():
    import ray
    return ray.get_runtime_context().get_node_id()

def nodes():
    return {found["NodeID"] for found in ray.nodes() if found["Alive"] and found["Resources"].get("CPU")}

def homes():
    return dict(zip(rc.ids, rc[:].apply_sync(node)))

def raylet(node_id):
    for entry in Path("/proc").glob("[0-9]*"):
        words = (entry / "cmdline").read_bytes().decode().split("\0")
        if words[0].endswith("/raylet") and f"--node_id={node_id}" in words:
            return int(entry.name)

cluster = Cluster(4, num_cpus=1, recovery="replay", journal="sync")
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    rc = cluster.start_and_connect_sync()
print(all("Ray may add a node" in str(warning.message) for warning in told), len(told) > 0)
rc.wait_for_engines(4, timeout=240)
print(rc.ids, len(nodes()), nodes() == set(homes().values()))

# There is a limit of two nodes.
(fifth,) = cluster.start_engines(1)
wait_until(lambda: "max_workers" in str(rc.session.directory.waiting.get(fifth)), timeout_s=120)
print(repr(str(rc.session.directory.waiting[fifth])))
cluster.stop_engines([fifth])

# A node is lost.
rc[:].scatter("mine", [[engine] for engine in rc.ids]).get()
lost = homes()[3]
moved = [engine for engine, home in homes().items() if home == lost]
back = threading.Semaphore(0)
rc.on_join(lambda engine_id: back.release())
os.kill(raylet(lost), signal.SIGKILL)
for engine in moved:
    assert back.acquire(timeout=240)
print(rc.ids, rc[:].gather("mine").get(), lost in homes().values(), len(set(homes().values())))

# A node without an engine goes, and one with an engine stays, busy or not, and although this one asks for nothing.
first = homes()[0]
here = [engine for engine, home in homes().items() if home == first]
cluster.stop_engines([engine for engine in rc.ids if engine not in here])
wait_until(lambda: nodes() == {first}, timeout_s=120)
print(rc.ids == here)
(plain,) = cluster.start_engines(1, num_cpus=0)
rc.wait_for_engines(len(here) + 1, timeout=120)
cluster.stop_engines(here)
threading.Event().wait(20)  # three times as long as an idle node stays
print(rc.ids == [plain], rc[plain].apply_sync(node) == first, nodes() == {first})
cluster.stop_engines([plain])
wait_until(lambda: nodes() == set(), timeout_s=120)
cluster.stop_cluster_sync()
print("none is left")
"""

# A node comes for the first two engines, and there is a limit of one node.
SMOKE = r"""
import warnings
from nsactors import Cluster
from nsactors.testing import wait_until

warnings.simplefilter("ignore")
cluster = Cluster(2, num_cpus=1)
rc = cluster.start_and_connect_sync()
rc.wait_for_engines(2, timeout=240)
print(rc[:].apply_sync(abs, -1))
(third,) = cluster.start_engines(1)
wait_until(lambda: "max_workers" in str(rc.session.directory.waiting.get(third)), timeout_s=120)
print(repr(str(rc.session.directory.waiting[third])))
cluster.stop_cluster_sync()
"""


@pytest.fixture
def autoscaled(request: pytest.FixtureRequest) -> Iterator[AutoscaledRay]:
    """Ray with a version of the autoscaler, and a limit of nodes."""
    folder = Path(tempfile.mkdtemp(prefix="ns-", dir="/tmp"))  # short, for sockets in it
    version, most = request.param
    try:
        with AutoscaledRay(folder, version=version, most=most) as ray:
            yield ray
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("autoscaled", [(2, 1)], ids=["v2"], indirect=True)
def test_a_node_comes_for_engines_and_the_limit_of_nodes_is_told(autoscaled: AutoscaledRay) -> None:
    answer, limit = autoscaled.run(SMOKE)
    assert answer == "[1, 1]"
    assert LIMIT.format(1) in limit


@pytest.mark.full_size
@pytest.mark.parametrize("autoscaled", [(1, 2), (2, 2)], ids=["v1", "v2"], indirect=True)
def test_nodes_come_for_engines_and_go_without_them_and_a_lost_one_is_replaced(autoscaled: AutoscaledRay) -> None:
    told, started, limit, moved, kept, idle, end = autoscaled.run(PROGRAM)
    assert told == "True True"
    assert started == "[0, 1, 2, 3] 2 True"
    assert "it asks for 1 CPU, and others use that" in limit
    assert LIMIT.format(2) in limit
    assert moved == "[0, 1, 2, 3] [[0], [1], [2], [3]] False 2"
    assert kept == "True"
    assert idle == "True True True"
    assert end == "none is left"
