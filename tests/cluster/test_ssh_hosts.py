"""Clusters on hosts that ssh reaches: they start, lose a host, and end with the program that has started them."""

import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.cluster.machines import MachineProcess
from tests.cluster.ssh import SshMachines, why_not
from tests.gates import wait_until

REASON = why_not()

pytestmark = [
    pytest.mark.ray,
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]

# Says where the engines are, again when a host's two have come back elsewhere, and ends when told.
PROGRAM = """
import socket
import sys
import threading
from nsactors import Cluster
from nsactors.cluster.ssh_hosts import SshHosts
from nsactors.core.hosts import hosts_from_text

with SshHosts(hosts_from_text(sys.argv[1]), store_bytes=100_000_000) as hosts:
    with Cluster(hosts.engines, address=hosts.address) as rc:
        print(*rc["all"].apply_sync(socket.gethostname), flush=True)
        back = threading.Semaphore(0)
        rc.on_join(lambda engine_id: back.release())
        for _ in range(int(sys.argv[2])):
            assert back.acquire(timeout=240)
        print(*rc["all"].apply_sync(socket.gethostname), flush=True)
        input()
"""


@pytest.fixture(scope="module")
def machines() -> Iterator[SshMachines]:
    with SshMachines(3) as machines:
        yield machines


def start(machines: SshMachines, hosts: str, *, losses: int = 0) -> MachineProcess:
    return machines.desk.popen([sys.executable, "-c", PROGRAM, hosts, str(losses)], machines.environment)


def assert_nothing_is_left(machines: SshMachines, *numbers: int) -> None:
    for machine in (machines.desk, *(machines.hosts[number - 1] for number in numbers)):
        wait_until(lambda machine=machine: machines.titles(machine) == [])
        assert machines.files(machine) == []


def test_engines_start_where_they_are_to_outlive_a_host_and_end(machines: SshMachines) -> None:
    first, second, third = (host.address for host in machines.hosts)
    with start(machines, f"{first}:1,{second}:2,{third}:2", losses=2) as program:
        assert Counter(program.read_line().split()) == {"host-1": 1, "host-2": 2, "host-3": 2}
        machines.lose(3)
        left = Counter(program.read_line().split())
        assert left.total() == 5
        assert left.keys() == {"host-1", "host-2"}
        _, errors = program.communicate("\n")
        assert program.returncode == 0, errors
    assert_nothing_is_left(machines, 1, 2)


def test_nodes_end_with_a_program_that_is_killed(machines: SshMachines) -> None:
    with start(machines, f"{machines.hosts[0].address}:1") as program:
        assert program.read_line() == "host-1"
        program.kill()
    assert_nothing_is_left(machines, 1)


def test_a_host_that_cannot_be_reached_is_named_and_nothing_is_left(machines: SshMachines) -> None:
    with start(machines, f"{machines.hosts[0].address},10.78.0.99") as program:
        _, errors = program.communicate()
    assert "LaunchError: no engines on 10.78.0.99: ssh has ended with status 255" in errors
    assert_nothing_is_left(machines, 1)
