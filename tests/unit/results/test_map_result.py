"""The parts of a map, put together as they come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from nsactors.core.messages import RequestId
from nsactors.core.partition import Block
from nsactors.results import AsyncMapResult, Call
from nsactors.results.call import CallOwner


class FailsMeanwhile(AsyncMapResult):
    """A map of which another thread gives up putting parts in place, between two looks of this one."""

    _seen: Any

    @property
    def _assembly(self) -> Any:
        assembly, self._seen = self._seen, None
        return assembly

    @_assembly.setter
    def _assembly(self, assembly: Any) -> None:
        self._seen = assembly


@pytest.mark.parametrize("kind", [AsyncMapResult, FailsMeanwhile])
def test_parts_that_end_on_several_threads_are_all_there(kind: type[AsyncMapResult]) -> None:
    owner = cast(CallOwner, SimpleNamespace(asked=lambda calls: None))
    calls = [Call(RequestId("ann", number), number, "map(f)", False) for number in range(2)]
    result = kind(owner, calls, label="map(f)", partitioner=Block(), lengths=[1, 2])
    calls[1].settle([1, 2], None)
    calls[0].settle([0], None)
    assert result.get(timeout=1) == [0, 1, 2]
