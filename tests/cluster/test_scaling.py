"""Engines where they are wanted, with what they ask for; and what is said if there is no such place."""

from __future__ import annotations

import pytest

from tests.cluster.hosts import Host, Hosts

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(1200)]

# What the programs below begin with: `start` gives engines that have joined, `places` says where they are.
BEGIN = """
import os, socket, threading, time, warnings
from collections import Counter
from nsactors import Cluster

warnings.simplefilter("always")
cluster = Cluster(n=0)
rc = cluster.start_and_connect_sync()

def start(n, **options):
    there = len(rc.ids)
    ids = cluster.start_engines(n, **options)
    rc.wait_for_engines(there + n)  # ends early if there is no place
    return rc[ids]

def places(view):
    return dict(sorted(Counter(view.apply_sync(socket.gethostname)).items()))
"""

WANTED = """
for on in ("host-1", "10.77.0.3", {"rack": "rack-2"}, {"rack": "!rack-2"}, {"rack": "in(rack-0, rack-2)"}):
    print(places(start(2, on=on)))
"""

COUNTED = """
print(places(start(6, num_cpus=1)))
cluster.scale(0)
print(places(start(3, num_gpus=1)))
cluster.scale(0)
print(places(start(2, num_cpus=1, on={"rack": "rack-1"})))
cluster.scale(0)
print(places(start(2, num_cpus=1, on="host-2")))
"""

ENVIRONMENT = """
def variables():
    return [os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")]

for options in ({}, {"num_gpus": 1}, {"num_gpus": 0.5}, {"num_cpus": 2}, {"num_gpus": 0, "num_cpus": 0.5}):
    print(start(1, **options).apply_sync(variables)[0])
    cluster.scale(0)
"""

FULL = """
ids = cluster.start_engines(7, num_cpus=1)
with warnings.catch_warnings(record=True) as told:
    rc.wait_for_engines()
print(len(rc.ids))
print(str(told[0].message).splitlines()[0])
waiting = set(ids) - set(rc.ids)
cluster.stop_engines(rc.ids[0])
rc.wait_for_engines(6, timeout=120)
print(waiting <= set(rc.ids))
"""

# Of what `start_engines` has asked for, some engines have a place: the reason why the others have none, and the others.
WAIT = """
def wait_for_all():
    with warnings.catch_warnings(record=True) as told:
        rc.wait_for_engines()
    print(len(rc.ids), str(told[0].message).splitlines()[0])
"""

FRACTIONS = (
    WAIT
    + """
print(start(2, num_gpus=0.5, on="host-1").apply_sync(lambda: os.environ["CUDA_VISIBLE_DEVICES"]))
cluster.start_engines(1, num_gpus=0.5, on="host-1")
wait_for_all()
cluster.stop_engines(rc.ids[0])
rc.wait_for_engines(2, timeout=120)
cluster.scale(0)
cluster.start_engines(3, resources={"licence": 0.4}, on={"rack": "rack-2"})
wait_for_all()
cluster.stop_engines(rc.ids[0])
rc.wait_for_engines(2, timeout=120)
print(places(rc[:]))
"""
)

RESERVED = (
    WAIT
    + """
import ray
from ray.util.placement_group import placement_group, remove_placement_group

group = placement_group([{"GPU": 1, "licence": 0.5}] * 2, bundle_label_selector=[{"rack": "!rack-0"}] * 2)
assert group.wait(60)
cluster.start_engines(2, num_gpus=1)
wait_for_all()
print(places(rc[:]))
remove_placement_group(group)
rc.wait_for_engines(2, timeout=120)
print(len(places(rc[:])))
"""
)

NOWHERE = """
for options in (
    {"num_gpus": 2},
    {"on": {"rack": "rack-9"}},
    {"on": "host-9"},
    {"on": "host-1", "num_cpus": 5},
    {"resources": {"tape": 0.5}},
):
    began = time.monotonic()
    try:
        start(1, **options)
    except Exception as error:
        print(type(error).__name__, time.monotonic() - began < 30, str(error).splitlines()[0])
"""

GONE = """
print("ready", flush=True)
input()
print(places(start(6, recovery="none")))
"""

BROUGHT_BACK = """
engine = start(1, on={"rack": "rack-1"})
told, no_place = [], threading.Event()

def tell(text):
    told.append(text)
    if "no place" in text:
        no_place.set()

rc.session.unretrieved.tell = tell
print("ready", flush=True)
input()
no_place.wait(120)
print([text.splitlines()[0] for text in told if "no place" in text], flush=True)
input()
rc.wait_for_engines(1, timeout=120)
print(places(engine))
"""

DEAD = """
engine = start(1, on="host-1", recovery="none")
print(rc[engine.targets[0]].execute("import os; os._exit(1)").exception())
"""


def lines(host: Host, program: str) -> list[str]:
    return host.run(BEGIN + program).splitlines()


def test_engines_are_where_they_are_wanted(hosts: Hosts) -> None:
    assert lines(hosts.head, WANTED) == [
        "{'host-1': 2}",
        "{'host-2': 2}",
        "{'host-2': 2}",
        "{'host-0': 2}",
        "{'host-0': 2}",
    ]


def test_engines_that_count_for_something_are_spread_evenly_over_the_hosts_that_have_it(hosts: Hosts) -> None:
    assert lines(hosts.head, COUNTED) == [
        "{'host-0': 2, 'host-1': 2, 'host-2': 2}",
        "{'host-0': 1, 'host-1': 1, 'host-2': 1}",
        "{'host-1': 2}",
        "{'host-2': 2}",
    ]


def test_engines_see_the_gpus_and_have_the_threads_that_they_have_asked_for(hosts: Hosts) -> None:
    assert lines(hosts.head, ENVIRONMENT) == [
        "[None, '2']",
        "['0', '2']",
        "['0', '2']",
        "[None, '2']",
        "[None, '1']",
    ]


def test_an_engine_for_which_there_is_no_room_is_told_of_and_starts_when_there_is(hosts: Hosts) -> None:
    joined, told, came = lines(hosts.head, FULL)
    assert joined == "6"
    for host in hosts:
        assert f"{host.name} has 0 CPU free of 2" in told
    assert "it has no place yet: it asks for 1 CPU, and others use that: " in told
    assert came == "True"


def test_an_engine_for_which_there_can_be_no_place_is_told_of_at_once(hosts: Hosts) -> None:
    gpus, rack, host, cpus, tape = lines(hosts.head, NOWHERE)
    assert gpus.startswith("EngineStartError True")
    assert "it asks for 2 GPU, and no node has that: host-0 has 1 GPU; host-" in gpus
    assert "it asks for the label rack=rack-9, and no node has that: host-0 has rack=rack-0; host-" in rack
    assert "there is no node host-9: there are host-0, host-" in host
    assert "it asks for 5 CPU, and no node has that: host-1 has 2 CPU" in cpus
    assert "it asks for 0.5 tape, and no node has that: host-0 has 0 tape; host-" in tape


def test_engines_share_gpus_and_other_resources_by_fractions(hosts: Hosts) -> None:
    devices, gpus, licences, where = lines(hosts.head, FRACTIONS)
    assert devices == "['0', '0']"
    assert gpus.startswith("2 ")
    assert "it asks for 0.5 GPU, and others use that: host-1 has 0 GPU free of 1" in gpus
    assert licences.startswith("2 ")
    assert "it asks for 0.4 licence and the label rack=rack-2, and others use that: " in licences
    assert "host-2 has 0.2 licence free of 1 and rack=rack-2" in licences
    assert where == "{'host-2': 2}"


def test_engines_leave_a_placement_group_what_it_has_reserved(hosts: Hosts) -> None:
    told, first, both = lines(hosts.head, RESERVED)
    assert told.startswith("1 ")
    assert "it asks for 1 GPU, and others use that: " in told
    assert first == "{'host-0': 1}"
    assert both == "2"


def test_engines_that_were_to_start_on_a_host_that_hangs_are_started_on_others(hosts: Hosts) -> None:
    with hosts.head.popen(BEGIN + GONE) as driver:
        assert driver.read_line() == "ready"
        hosts[2].freeze()
        output, errors = driver.communicate("\n")
    assert output.split("\n")[0] == "{'host-0': 3, 'host-1': 3}", errors


def test_an_engine_whose_only_host_is_gone_waits_for_it_and_this_is_told(hosts: Hosts) -> None:
    with hosts.head.popen(BEGIN + BROUGHT_BACK) as driver:
        assert driver.read_line() == "ready"
        hosts[1].kill()
        driver.stdin.write("\n")  # type: ignore[union-attr]
        driver.stdin.flush()  # type: ignore[union-attr]
        told = driver.read_line()
        assert "it asks for the label rack=rack-1, and no node has that: host-" in told
        hosts.repair()
        output, errors = driver.communicate("\n")
    assert output.split("\n")[0] == "{'host-1': 1}", errors


def test_what_an_engine_of_another_host_wrote_last_is_said_to_be_there(hosts: Hosts) -> None:
    text = hosts.head.run(BEGIN + DEAD)
    assert "its last output is in " in text
    assert ".stderr on host-1" in text
