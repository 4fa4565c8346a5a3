"""Results of a batch, as the client reads them."""

from __future__ import annotations

from typing import Any

import pytest

from nsactors.errors import Failure
from nsactors.protocol.messages import Expired, RequestId
from nsactors.protocol.serialize import pack, unpack
from nsactors.protocol.tasks import BatchReport, RangeOutcome, RangeStatus
from nsactors.results import NOWHERE, Call, MapCall, TaskCall
from nsactors.session.unretrieved import UnretrievedErrors
from nsactors.tasks.results import ToCaller


class OnArrival:
    """Raises when it is unpickled."""

    def __reduce__(self) -> Any:
        return _raise, ()


def _raise() -> None:
    raise ValueError("on arrival")


@pytest.fixture
def tasks() -> dict[int, TaskCall]:
    """A map of two items and a call, which have run in one batch."""
    requests = [RequestId("client", number) for number in (1, 2)]
    return {
        1: MapCall(requests[0], NOWHERE, "map(f)", False, size=2, left=2),
        2: TaskCall(requests[1], NOWHERE, "apply(g)", False),
    }


def test_what_cannot_be_unpickled_is_called_by_its_own_task(tasks: dict[int, TaskCall]) -> None:
    ran = (
        RangeOutcome(1, 0, 2, RangeStatus.OK, 0.5, None, 5.0, (0, 0)),
        RangeOutcome(2, 0, 1, RangeStatus.OK, 0.5, None, 6.0, (0, 0)),
    )
    batch = Call(RequestId("client", 0), 3, "2 tasks: map(f) ...", False)
    batch.value = unpack(pack(BatchReport(ran, pack([["fine", OnArrival()], OnArrival()])).as_value()))
    results, missing = ToCaller(UnretrievedErrors()).read(batch, tasks.get, copy=False)
    assert missing == ()
    assert [(run.task_id, run.start, run.stop, run.status) for run in results] == [
        (1, 0, 1, RangeStatus.OK),
        (1, 1, 2, RangeStatus.FAILED),
        (2, 0, 1, RangeStatus.FAILED),
    ]
    assert results[0].value == ["fine"]
    assert "item 1 of map(f)" in _told(results[1].value)
    assert "apply(g)" in _told(results[2].value)
    assert "2 tasks" not in _told(results[1].value) + _told(results[2].value)


def test_an_item_of_a_chunk_has_its_number_in_the_lazy_map(tasks: dict[int, TaskCall]) -> None:
    lazy = tasks[1]
    assert isinstance(lazy, MapCall)
    lazy.first = 40
    ran = RangeOutcome(1, 0, 2, RangeStatus.OK, 0.5, None, 5.0, (0, 0))
    batch = Call(RequestId("client", 0), 3, "1 task", False)
    batch.value = unpack(pack(BatchReport((ran,), pack([["fine", OnArrival()]])).as_value()))
    (_, unreadable), _ = ToCaller(UnretrievedErrors()).read(batch, tasks.get, copy=False)
    assert "item 41 of map(f)" in _told(unreadable.value)

    failure = Failure.capture(ValueError("bad"), engine_id=3, call="map(f)", item=(0, ("x",)))
    late = Expired(1.0, None)
    for place, value in enumerate([failure, late]):
        outcome = RangeOutcome(1, place, place + 1, RangeStatus.FAILED, 0.5, value, 5.0, (0, 0))
        ToCaller(UnretrievedErrors()).deliver(lazy, outcome, 3)
    first, second = (piece.error for piece in lazy.pieces)
    assert first is not None
    assert "item 40 of map(f) is x" in _told(first).replace("'", "")
    assert second is not None
    assert "item 41 of map(f)" in _told(second)


def test_a_part_of_a_sequence_is_no_item(tasks: dict[int, TaskCall]) -> None:
    parallel = tasks[1]
    assert isinstance(parallel, MapCall)
    parallel.joins = True
    failure = Failure.capture(ValueError("bad"), engine_id=3, call="parallel(f)", item=(0, ("x",)))
    outcome = RangeOutcome(1, 0, 1, RangeStatus.FAILED, 0.5, failure, 5.0, (0, 0))
    ToCaller(UnretrievedErrors()).deliver(parallel, outcome, 3)
    (piece,) = parallel.pieces
    assert piece.error is not None
    assert "item" not in _told(piece.error)


def _told(error: Exception) -> str:
    return " ".join([str(error), *getattr(error, "__notes__", ())])
