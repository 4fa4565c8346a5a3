"""Where the bytes of a value go that one engine has from another: to that engine, and nowhere else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsactors import Client, Cluster, RemoteError, RemoteValue
from nsactors.errors import ObjectLost
from nsactors.testing import TIMEOUT_S, wait_until
from nsactors.transport.ray.object_store import RayObject
from tests.cluster.hosts import Hosts

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(900)]

VALUE_BYTES = 50_000_000

# Prints the bytes that each host has received and sent while engines of host-1 and host-2 shared a value.
TRAFFIC = f"""
import json, socket
from nsactors import Cluster, Reference

def traffic():
    rows = [line.split() for line in open("/proc/net/dev") if ":" in line and "lo:" not in line]
    return [sum(int(row[column]) for row in rows) for column in (1, 9)]

def on_all_hosts():
    return {{"host-0": traffic(), "host-1": holder.apply_sync(traffic), "host-2": user.apply_sync(traffic)}}

with Cluster(n=3) as rc:  # one on each host
    places = rc[:].apply_sync(socket.gethostname)
    holder, user = (rc[places.index(host)] for host in ("host-1", "host-2"))
    holder.execute("import numpy as np; a = np.ones({VALUE_BYTES}, np.uint8)", block=True)
    before = on_all_hosts()
    a = holder.pull("a", as_ref=True, block=True)
    user.push({{"b": a}}, block=True)
    assert user.apply_sync(lambda a, b: int(a.sum() + b.sum()), a, Reference("b")) == 2 * {VALUE_BYTES}
    after = on_all_hosts()
print(json.dumps({{host: [b - a for a, b in zip(before[host], after[host])] for host in before}}))
"""


@pytest.fixture(scope="module")
def lost() -> RemoteValue:
    """A value whose cluster has ended, when there was no other one."""
    with Cluster(n=1) as client:
        a: RemoteValue = client[0].pull("1", as_ref=True, block=True)
    wait_until(lambda: is_lost(a))
    return a


@pytest.fixture(scope="module")
def rc(lost: RemoteValue) -> Iterator[Client]:
    with Cluster(n=2) as client:
        yield client


@pytest.mark.usefixtures("rc")
def test_a_value_is_lost_with_its_cluster_also_when_there_is_another_one(lost: RemoteValue) -> None:
    assert is_lost(lost)


def is_lost(value: RemoteValue) -> bool:
    try:
        value.get()
    except ObjectLost:
        return True
    return False


def resident_bytes() -> int:
    """Return the bytes that this process holds in memory."""
    status = Path("/proc/self/status").read_text()
    return 1000 * int(status.partition("VmRSS:")[2].split()[0])


def test_the_memory_of_the_client_does_not_grow_with_what_engines_hand_to_each_other(rc: Client) -> None:
    def hand_over(nbytes: int) -> int:
        rc[0].execute(f"import numpy as np; a = np.ones({nbytes}, np.uint8)", block=True)
        rc[1].push({"b": rc[0].pull("a", as_ref=True, block=True)}, block=True)
        total: int = rc[1].get("int(b.sum())")
        return total

    hand_over(1_000_000)
    before = resident_bytes()
    assert hand_over(VALUE_BYTES) == VALUE_BYTES
    assert resident_bytes() - before < VALUE_BYTES / 10


def test_an_engine_that_waits_for_a_value_can_be_interrupted(rc: Client) -> None:
    import ray

    def never() -> None:
        threading.Event().wait()

    unavailable = RayObject(ray.remote(num_cpus=0)(never).remote())
    waiting = rc[0].apply_async(len, RemoteValue(unavailable, "a", 1, "pull(a)", "list", 0))
    wait_until(lambda: [e.outcome for e in rc.history() if str(e.request) in waiting.msg_ids] == ["running"])
    rc.interrupt(0)
    with pytest.raises(RemoteError, match="KeyboardInterrupt"):
        waiting.get(TIMEOUT_S)
    assert rc[0].apply_sync(abs, -1) == 1


def test_a_value_goes_from_host_to_host_and_not_by_way_of_client_or_controller(hosts: Hosts) -> None:
    moved = json.loads(hosts.head.run(TRAFFIC))
    (head_in, head_out), (_, holder_out), (user_in, _) = (moved[f"host-{number}"] for number in range(3))
    assert max(head_in, head_out) < 1_000_000
    assert VALUE_BYTES < holder_out < 1.1 * VALUE_BYTES
    assert VALUE_BYTES < user_in < 1.1 * VALUE_BYTES
