"""The systems that are compared."""

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.operations.catalogue import OPERATIONS
from benchmarks.systems import SYSTEMS, make
from benchmarks.systems.ns import NsactorsBroadcast


@pytest.mark.parametrize("name", [name for name, entry in SYSTEMS.items() if not entry.beside])
def test_every_system_can_be_made(name: str) -> None:
    assert callable(make(name).start)


@pytest.mark.parametrize("name", [name for name, entry in SYSTEMS.items() if entry.beside])
def test_a_system_beside_another_is_given_it(name: str) -> None:
    host = make(SYSTEMS[name].beside)
    assert callable(make(name, host).prepare)


def test_what_a_broadcast_view_sends_the_direct_way_is_not_measured_twice() -> None:
    host: Any = SimpleNamespace(client=SimpleNamespace(ids=[0, 1], broadcast_view=lambda ids: ids))
    names = [operation.name for operation in OPERATIONS]
    broadcast = NsactorsBroadcast(host)
    assert [name for name in names if broadcast.prepare(name, 2)] == ["apply", "push", "execute"]
    assert not any(broadcast.prepare(name, 1) for name in names)
