"""The parts of a map, put together as they come."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nsactors.protocol.messages import RequestId
from nsactors.protocol.partition import Block
from nsactors.results import AsyncMapResult, BalancedMapResult, Call
from nsactors.results.call import NOWHERE, CallController, MapCall, MapPiece
from nsactors.testing import TIMEOUT_S


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
    owner = cast(CallController, SimpleNamespace(mark_retrieved=lambda calls: None))
    calls = [Call(RequestId("ann", number), number, "map(f)", False) for number in range(2)]
    result = kind(owner, calls, label="map(f)", partitioner=Block(), lengths=[1, 2])
    calls[1].settle([1, 2], None)
    calls[0].settle([0], None)
    assert result.get(timeout=1) == [0, 1, 2]


def test_a_part_ends_without_a_lock_and_without_the_items_of_others() -> None:
    owner = SimpleNamespace(check_process=None, run_callback=None, restart=None, mark_retrieved=lambda calls: None)
    call = MapCall(RequestId("ann", 1), NOWHERE, "map(f)", False, size=4, left=4)
    result = BalancedMapResult(cast(CallController, owner), call, label="map(f)")
    parts = result.split(2)

    def add(start: int, stop: int) -> None:
        piece = MapPiece(RequestId("ann", 1), 0, "map(f)", False, start=start, stop=stop)
        piece.settle(list(range(start, stop)), None)
        call.add(piece)

    def add_the_others(_: Call) -> None:  # as another thread may, on which a listener waits
        other = threading.Thread(target=add, args=(3, 4), daemon=True)
        other.start()
        other.join(TIMEOUT_S)
        ended.append(not other.is_alive())

    ended: list[bool] = []
    parts[0].calls[0].when_settled(add_the_others)
    add(0, 3)
    assert ended == [True]
    assert [part.get(timeout=1) for part in parts] == [[0, 1], [2, 3]]
    assert [part.calls[0].pieces for part in parts] == [[], []]  # type: ignore[attr-defined]  # of a map


def test_the_error_that_ended_a_map_is_in_the_places_of_the_items_that_never_came() -> None:
    owner = SimpleNamespace(mark_retrieved=lambda calls: None)
    call = MapCall(RequestId("ann", 1), NOWHERE, "map(f)", False, size=6, left=6)
    result = BalancedMapResult(cast(CallController, owner), call, label="map(f)", return_exceptions=True)
    for start in (4, 1):
        piece = MapPiece(RequestId("ann", 1), 0, "map(f)", False, start=start, stop=start + 1)
        piece.settle([start], None)
        call.add(piece)
    error = RuntimeError("the client was closed")
    call.settle(None, error)
    assert result.get(timeout=1) == [error, 1, error, error, 4, error]


def listeners_of(call: MapCall) -> int:
    return len(call._piece_listeners) + len(call._listeners)


async def first_of(result: BalancedMapResult) -> Any:
    async for value in result:
        return value


@pytest.mark.parametrize("has_ended", [False, True])
def test_loops_leave_nothing_in_the_call_of_a_map(*, has_ended: bool) -> None:
    owner = SimpleNamespace(check_process=lambda: None, has_stops=False)
    call = MapCall(RequestId("ann", 1), NOWHERE, "map(f)", False, size=2, left=2)
    result = BalancedMapResult(cast(CallController, owner), call, label="map(f)")
    for number in range(1 + has_ended):
        piece = MapPiece(RequestId("ann", 1), 0, "map(f)", False, start=number, stop=number + 1)
        piece.settle([number], None)
        call.add(piece)
    if has_ended:
        call.settle(None, None)
    before = listeners_of(call)
    assert [next(iter(result)) for _ in range(5)] == [0] * 5
    assert asyncio.run(first_of(result)) == 0
    assert listeners_of(call) == before


def test_a_listener_may_be_removed_while_a_piece_arrives() -> None:
    call = MapCall(RequestId("ann", 1), NOWHERE, "map(f)", False, size=1, left=1)
    heard: list[str] = []

    def first(piece: Call) -> None:
        heard.append("first")
        call.remove_listener(first)

    call.when_piece_arrives(first)
    call.when_piece_arrives(lambda piece: heard.append("second"))
    call.add(MapPiece(RequestId("ann", 1), 0, "map(f)", False, value=[0], start=0, stop=1))
    assert heard == ["first", "second"]
    assert listeners_of(call) == 1
