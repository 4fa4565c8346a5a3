"""How results of detached tasks reach who waits for them, and what they hear if none will come."""

from __future__ import annotations

import threading
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from nsactors.errors import ClusterUnreachable, ResultUnavailable, SchedulerLost, TaskAborted
from nsactors.protocol.messages import RequestId
from nsactors.protocol.tasks import TaskRange
from nsactors.results import NOWHERE, TaskCall
from nsactors.tasks.detached_client import ResultPoller
from nsactors.tasks.detached_results import TaskProgress
from nsactors.tasks.messages import Fail, Why

ABORTED = Fail(TaskRange(1), Why.ABORTED, "it was aborted")


def collector(*answers: dict[int, TaskProgress] | Exception) -> ResultPoller:
    """One whose scheduler answers with these, one after the other; between two questions is no pause."""
    script = deque(answers)

    def collect(wanted: dict[int, int], wait_s: float) -> dict[int, TaskProgress]:
        answer = script.popleft()
        if isinstance(answer, Exception):
            raise answer
        return answer

    session: Any = SimpleNamespace(leaving=SimpleNamespace(wait=lambda s: None), unretrieved=SimpleNamespace())
    return ResultPoller(session, collect, threading.Lock())


def end_of(collector: ResultPoller) -> Exception | None:
    """Wait for the end of task 1; return its error."""
    call = TaskCall(RequestId("detached", 1), NOWHERE, "apply(f)", False)
    ended = threading.Event()
    call.when_settled(lambda call: ended.set())
    collector.want([call])
    assert ended.wait(10)
    collector.join()
    assert (collector.calls, collector.find(1)) == ([], None)
    return call.error


@pytest.mark.parametrize(
    "error", [SchedulerLost("a task", "it was killed"), RuntimeError("nobody has thought of this")]
)
def test_who_waits_is_told_when_nothing_will_come(error: Exception) -> None:
    assert end_of(collector(error)) is error


def test_who_waits_is_told_when_results_are_not_kept_any_more() -> None:
    error = end_of(collector({1: TaskProgress((), lost="newer ones have taken its place")}))
    assert isinstance(error, ResultUnavailable)
    assert "newer ones" in str(error)


def test_it_is_asked_again_when_there_was_no_answer_or_nothing_new() -> None:
    answers = ClusterUnreachable("the head node", "no answer"), {}, {1: TaskProgress((ABORTED,))}
    assert isinstance(end_of(collector(*answers)), TaskAborted)


def test_what_was_not_asked_for_is_left_alone() -> None:
    assert isinstance(end_of(collector({2: TaskProgress((ABORTED,))}, {1: TaskProgress((ABORTED,))})), TaskAborted)
