"""The time for which a query to a busy engine waits for its reply."""

from __future__ import annotations

from queue import SimpleQueue
from types import SimpleNamespace

from nsactors.protocol.control import QueryReply, StealTasks
from nsactors.protocol.tasks import TaskRange
from nsactors.tasks.driver import REPLY_S, EngineQueries
from nsactors.tasks.messages import Steal
from nsactors.testing import TIMEOUT_S

SPANS = (TaskRange("map", 3, 9),)


class SlowController:
    """Its engines reply after ``seconds``; no test waits for that."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def query(self, engine_ids: list[int], query: StealTasks, timeout_s: float) -> dict[int, QueryReply]:
        return {i: QueryReply(0, dict(query.batches)) for i in engine_ids if self._seconds < timeout_s}


def stolen(reply_s: float, *, hurry: bool = False) -> tuple[TaskRange, ...]:
    queries = EngineQueries(SimpleNamespace(controller=SlowController(reply_s)), "client")  # type: ignore[arg-type]
    given: SimpleQueue[tuple[TaskRange, ...]] = SimpleQueue()
    queries.steal(Steal(0, 1, SPANS), given.put, hurry=hurry)
    return given.get(timeout=TIMEOUT_S)


def test_tasks_are_stolen_from_an_engine_that_a_loaded_machine_makes_slow_to_reply() -> None:
    assert stolen(10 * REPLY_S) == SPANS


def test_a_query_in_a_hurry_does_not_wait_for_an_engine_that_is_slow_to_reply() -> None:
    assert stolen(10 * REPLY_S, hurry=True) == ()
