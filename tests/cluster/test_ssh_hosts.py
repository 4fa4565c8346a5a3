"""Clusters on hosts that ssh reaches: they start, lose a host, and end with the program that has started them."""

import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from nsactors.testing import wait_until
from tests.cluster.interpreters import interpreter_without_nsactors
from tests.cluster.machines import MachineProcess
from tests.cluster.ssh import ROOT, SshMachines, why_not

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
from nsactors.cluster.ssh_hosts import hosts_from_text

with SshHosts(hosts_from_text(sys.argv[1]), store_bytes=100_000_000, python=sys.argv[3]) as hosts:
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


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of hosts without nsactors."""
    return interpreter_without_nsactors(tmp_path_factory.mktemp("environment"))


def start(machines: SshMachines, hosts: str, *, losses: int = 0, python: str = sys.executable) -> MachineProcess:
    return popen(machines, PROGRAM, hosts, str(losses), python)


def popen(machines: SshMachines, code: str, *arguments: str) -> MachineProcess:
    # The hosts would get the PYTHONPATH of the program, and the checkout with it.
    environment = {name: value for name, value in machines.environment.items() if name != "PYTHONPATH"}
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"
    return machines.desk.popen([sys.executable, "-c", code, *arguments], environment)


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


def test_nodes_without_nsactors_receive_it_and_end_with_a_program_that_is_killed(
    machines: SshMachines, python: str
) -> None:
    with start(machines, f"{machines.hosts[0].address}:1", python=python) as program:
        assert program.read_line() == "host-1"
        program.kill()
    assert_nothing_is_left(machines, 1)


def test_a_host_that_cannot_be_reached_is_named_and_nothing_is_left(machines: SshMachines) -> None:
    with start(machines, f"{machines.hosts[0].address},10.78.0.99") as program:
        _, errors = program.communicate()
    assert "LaunchError: no engines on 10.78.0.99: ssh has ended with status 255" in errors
    assert_nothing_is_left(machines, 1)


@pytest.mark.full_size
def test_a_host_that_refuses_the_key_is_named_and_nothing_is_left(machines: SshMachines) -> None:
    with start(machines, f"{machines.hosts[0].address},stranger") as program:
        _, errors = program.communicate()
    assert "LaunchError: no engines on stranger: ssh has ended with status 255" in errors
    assert "Permission denied" in errors
    assert_nothing_is_left(machines, 1)


def name_desk(machines: SshMachines, address: str) -> None:
    """Let the name of the desk lead to this address there, which the desk has."""
    command = 'ip addr add "$0/32" dev lo; printf "127.0.0.1 localhost\\n$0 desk\\n" > /etc/hosts'
    with machines.desk.popen(["sh", "-c", command, address]) as process:
        process.communicate()


@pytest.mark.full_size
def test_a_host_without_a_way_back_says_so_and_nothing_is_left(machines: SshMachines) -> None:
    # The desk's own name leads to an address that no host knows.
    name_desk(machines, "10.99.0.1")
    try:
        with start(machines, f"{machines.hosts[0].address}:1") as program:
            _, errors = program.communicate()
    finally:
        name_desk(machines, machines.desk.address)
    assert "host-1 has no way to the cluster's head" in errors
    assert_nothing_is_left(machines, 1)


@pytest.mark.full_size
def test_a_cluster_in_the_background_is_attached_to_and_stopped(machines: SshMachines) -> None:
    command = "from nsactors.cli import main; main()"
    with popen(machines, command, "start", f"--hosts={machines.hosts[0].address}:2", "--name=lab") as program:
        output, errors = program.communicate()
    assert "The cluster 'lab' runs, with 2 engines." in output, errors
    ask = "import socket; from nsactors import Client; print(*Client('lab')[:].apply_sync(socket.gethostname))"
    with popen(machines, ask) as program:
        assert program.read_line() == "host-1 host-1"
        program.communicate()
    with popen(machines, command, "stop", "lab") as program:
        _, errors = program.communicate()
    assert program.returncode == 0, errors
    wait_until(lambda: machines.titles(machines.desk) == machines.titles(machines.hosts[0]) == [])
