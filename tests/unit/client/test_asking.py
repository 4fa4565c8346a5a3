"""How long who asks busy engines waits for an answer."""

from __future__ import annotations

from queue import SimpleQueue
from types import SimpleNamespace

from nsactors.client.tasks.asking import ANSWER_S, Asker
from nsactors.core.cluster import Answer, GiveBack
from nsactors.core.scheduling import Span, TakeBack
from tests.gates import TIMEOUT_S

SPANS = (Span("map", 3, 9),)


class SlowController:
    """Its engines answer after ``seconds``; nobody waits for that here."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def ask(self, engine_ids: list[int], question: GiveBack, timeout_s: float) -> dict[int, Answer]:
        return {i: Answer(0, dict(question.batches)) for i in engine_ids if self._seconds < timeout_s}


def given_back(answer_s: float, *, hurry: bool = False) -> tuple[Span, ...]:
    asker = Asker(SimpleNamespace(controller=SlowController(answer_s)), "client")  # type: ignore[arg-type]
    given: SimpleQueue[tuple[Span, ...]] = SimpleQueue()
    asker.take_back(TakeBack(0, 1, SPANS), given.put, hurry=hurry)
    return given.get(timeout=TIMEOUT_S)


def test_work_is_taken_back_from_an_engine_that_a_loaded_machine_makes_slow_to_answer() -> None:
    assert given_back(10 * ANSWER_S) == SPANS


def test_who_is_in_a_hurry_does_not_wait_for_an_engine_that_is_slow_to_answer() -> None:
    assert given_back(10 * ANSWER_S, hurry=True) == ()
