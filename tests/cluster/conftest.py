"""Hosts for the tests of clusters."""

from collections.abc import Iterator

import pytest

from tests.cluster.background import CommandLine
from tests.cluster.hosts import Hosts, why_not


@pytest.fixture(scope="module")
def hosts_of_module() -> Iterator[Hosts]:
    if reason := why_not():
        pytest.skip(reason)
    with Hosts(3) as hosts:
        yield hosts


@pytest.fixture
def hosts(hosts_of_module: Hosts) -> Hosts:
    """Three hosts in working order; a test may do to them what it likes. The first start takes some 10 s."""
    hosts_of_module.repair()
    return hosts_of_module


@pytest.fixture(scope="session")
def nsactors_command(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """The command, with what it writes in a folder of this session."""
    return CommandLine(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def lab(nsactors_command: CommandLine) -> Iterator[CommandLine]:
    """The command, and a cluster ``lab`` of two engines in the background, shared by all tests."""
    nsactors_command("start", "-n", "2", "--name", "lab")
    yield nsactors_command
    nsactors_command("stop", "lab")
