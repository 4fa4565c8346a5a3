"""Hosts for the tests of clusters."""

from collections.abc import Iterator

import pytest

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
