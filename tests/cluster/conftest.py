"""What the tests of clusters share: hosts, the command, and a cluster for each module that asks for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nsactors import Client, Cluster
from nsactors.testing import Gate, open_gate
from tests.cluster.background import CommandLine
from tests.cluster.hosts import Hosts, why_not


# Of this folder's tests, and not of the session: what runs idle takes a twentieth of a processor from the tests after.
@pytest.fixture(scope="package")
def hosts_of_package() -> Iterator[Hosts]:
    if reason := why_not():
        pytest.skip(reason)
    with Hosts(3) as hosts:
        yield hosts


@pytest.fixture
def hosts(hosts_of_package: Hosts) -> Hosts:
    """Three hosts in working order; a test may do to them what it likes. The first start takes some 10 s."""
    hosts_of_package.repair()
    return hosts_of_package


@pytest.fixture(scope="session")
def nsactors_command(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """The command, with what it writes in a folder of this session."""
    return CommandLine(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="package")
def lab(nsactors_command: CommandLine) -> Iterator[CommandLine]:
    """The command, and a cluster ``lab`` of two engines in the background, shared by all tests."""
    nsactors_command("start", "-n", "2", "--name", "lab")
    yield nsactors_command
    nsactors_command("stop", "lab")


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster of this process, shared by a module's tests: of ``ENGINES`` engines, if the module says how many."""
    cluster = Cluster(n=getattr(request.module, "ENGINES", 0))
    cluster.start_and_connect_sync()
    yield cluster
    cluster.stop_cluster_sync()


@pytest.fixture
def rc(cluster: Cluster) -> Iterator[Client]:
    """A client of the test's own, which tells nobody what it has to say at its end."""
    with cluster.connect_client_sync(report=lambda text: None) as client:
        yield client


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate for engine code."""
    with open_gate(tmp_path / "gate") as gate:
        yield gate
