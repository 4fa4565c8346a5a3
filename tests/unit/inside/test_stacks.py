"""Stacks are asked for, read from outside where there is no reply, and shown with equal ones once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from nsactors.inside import stacks
from nsactors.inside.processes import INSTALL
from nsactors.inside.stacks import SILENT, Stacks, read_stacks
from nsactors.protocol.control import HistoryEntry, QueryReply
from nsactors.protocol.engine_info import EngineInfo
from nsactors.protocol.inspection import EngineStack, ProcessStacks, ReadProcesses, ReadStack, StackFrame, ThreadStack
from nsactors.protocol.messages import RequestId

STEP = StackFrame("<cell 2>", 4, "step", "return np.sort(x)")
BUSY = EngineStack("apply(step)", "anna-1", 3.0, (ThreadStack("requests", (STEP,)),))
IDLE = EngineStack(threads=(ThreadStack("requests"),))


@dataclasses.dataclass
class FakeController:
    """Has the replies of engines; those without one are silent."""

    replies: dict[int, EngineStack]
    outside: list[ProcessStacks] | None = None
    asked: list[Any] = dataclasses.field(default_factory=list)

    def query(self, engine_ids: Sequence[int], query: Any, timeout_s: float) -> dict[int, QueryReply]:
        self.asked.append((list(engine_ids), query))
        if isinstance(query, ReadProcesses):
            return {} if self.outside is None else {engine_ids[0]: QueryReply(0, self.outside)}
        return {i: QueryReply(0, self.replies[i]) for i in engine_ids if i in self.replies}

    def running(self) -> dict[int, tuple[int, list[HistoryEntry]]]:
        entry = HistoryEntry(RequestId("anna-1", 7), 1, "apply(hold)", "", 0.0, None, "running")
        return {1: (3, [entry])}


def engine(engine_id: int, host: str = "far") -> EngineInfo:
    return EngineInfo(engine_id, 0, 1000 + engine_id, host, None, f"/tmp/engine-{engine_id}")


ENGINES = [engine(0), engine(1), engine(2)]


def test_engines_that_reply_are_asked_once() -> None:
    controller = FakeController({0: BUSY, 1: BUSY, 2: IDLE})
    found = read_stacks(controller, ENGINES, lambda: {0: ["barrier with 2 for 5 s"]})
    assert controller.asked == [([0, 1, 2], ReadStack())]
    assert found[0].waits == ("barrier with 2 for 5 s",)
    assert found[2].is_idle
    assert list(found) == [0, 1, 2]


def test_idle_engines_are_not_looked_up_among_the_services() -> None:
    controller = FakeController({0: IDLE, 1: IDLE, 2: IDLE})
    assert all(stack.is_idle for stack in read_stacks(controller, ENGINES, pytest.fail).by_engine.values())


def test_a_silent_engine_is_read_by_an_engine_of_its_machine() -> None:
    controller = FakeController({0: BUSY, 2: IDLE}, [ProcessStacks((ThreadStack("requests", (STEP,)),))])
    found = read_stacks(controller, ENGINES, dict)
    assert controller.asked[1:] == [([0], ReadProcesses((1001,)))]
    assert (found[1].call, found[1].frames, found[1].notes) == ("apply(hold)", (STEP,), (SILENT,))


def test_a_request_that_has_ended_is_not_that_of_a_silent_engine() -> None:
    controller = FakeController({0: BUSY, 2: IDLE}, [ProcessStacks((ThreadStack("requests", (STEP,)),))])
    found = read_stacks(controller, ENGINES, dict, lambda request: request == RequestId("anna-1", 7))
    assert (found[1].call, found[1].for_s, found[1].frames) == ("", None, (STEP,))


def test_an_engine_that_was_read_from_outside_may_be_idle() -> None:
    assert EngineStack(threads=(ThreadStack("requests", ()),), notes=(SILENT,)).is_idle
    assert not EngineStack(notes=(SILENT,)).is_idle


def test_a_signal_is_sent_only_if_it_was_asked_for() -> None:
    controller = FakeController({0: BUSY, 2: IDLE}, [ProcessStacks()])
    read_stacks(controller, ENGINES, dict, disturb=True)
    assert controller.asked[1] == ([0], ReadProcesses((1001,), ("/tmp/engine-1.stacks",)))


def test_the_reason_is_told_if_a_silent_engine_cannot_be_read() -> None:
    controller = FakeController({0: BUSY, 2: IDLE}, [ProcessStacks(note=f"not installed: {INSTALL}")])
    found = read_stacks(controller, ENGINES, dict)
    assert found[1].notes == (SILENT, f"not installed: {INSTALL}")
    assert INSTALL in repr(found)


def test_an_engine_without_a_neighbour_is_told_so() -> None:
    controller = FakeController({0: BUSY, 2: IDLE})
    found = read_stacks(controller, [engine(0), engine(1, "alone"), engine(2)], dict)
    assert "no other engine on alone that could read it replies" in found[1].notes[1]


def test_an_engine_that_is_a_thread_is_only_asked_again() -> None:
    controller = FakeController({})
    thread = dataclasses.replace(engine(0), output_path=None)
    assert read_stacks(controller, [thread], dict)[0].notes == (SILENT,)
    assert [query for _, query in controller.asked] == [ReadStack(), ReadStack()]


def test_equal_stacks_are_shown_once_with_the_shortest_and_the_longest_time() -> None:
    found = Stacks({0: BUSY, 1: IDLE, 2: BUSY._replace(for_s=12.0), 3: IDLE})
    assert [ids for ids, _ in found.groups()] == [[0, 2], [1, 3]]
    assert [line.strip() for line in repr(found).splitlines()[2:]] == [
        "0, 2     apply(step) of anna-1, for 3.0 s to 12.0 s",
        "step (<cell 2>, line 4): return np.sort(x)",
        "1, 3     idle",
    ]


@pytest.mark.parametrize("name", ["<cell {}>", "<cell {}.1>", "<ipython-input-{}-0a1b2c>"])
def test_engines_that_have_run_different_numbers_of_cells_share_a_row(name: str) -> None:
    def stack(number: int, **changes: Any) -> EngineStack:
        frames = (STEP._replace(file=name.format(number), **changes),)
        thread = ThreadStack("requests", frames)
        return BUSY._replace(threads=(thread,), program=ThreadStack("MainThread", frames))

    found = Stacks({0: stack(2), 1: stack(3), 2: stack(2, line=5), 3: stack(2, source="return sort(x)")})
    assert [ids for ids, _ in found.groups()] == [[0, 1], [2], [3]]
    assert found.groups()[0][1] == stack(2)


def test_different_files_do_not_share_a_row() -> None:
    first, second = (
        BUSY._replace(threads=(ThreadStack("requests", (STEP._replace(file=name),)),))
        for name in ("<string>", "<cell 2>")
    )
    assert [ids for ids, _ in Stacks({0: first, 1: second}).groups()] == [[0], [1]]


def test_different_waits_are_shown_apart_and_their_seconds_do_not_count() -> None:
    first, second = BUSY._replace(waits=("recv from 2 for 1 s",)), BUSY._replace(waits=("recv from 2 for 9 s",))
    third = BUSY._replace(waits=("recv from 3 for 9 s",))
    assert [ids for ids, _ in Stacks({0: first, 1: second, 2: third}).groups()] == [[0, 1], [2]]


def test_of_a_deep_stack_the_innermost_functions_are_shown() -> None:
    deep = BUSY._replace(threads=(ThreadStack("requests", (STEP,) * 1_000),))
    text = repr(Stacks({0: deep}))
    assert f"… {1_000 - stacks.SHOWN_FRAMES} functions further out" in text
    assert text.count("step (<cell 2>") == stacks.SHOWN_FRAMES


def test_names_of_others_are_shown_as_text() -> None:
    hostile = BUSY._replace(client="\x1b[2J<b>", call="[red]x[/]")
    found = Stacks({0: hostile})
    assert "\x1b[2J" not in repr(found)
    assert "[red]x[/]" in repr(found)
    assert "&lt;b&gt;" in found._repr_html_()


@pytest.mark.parametrize("values", [Stacks({0: BUSY}).as_dict(), Stacks({}).as_dict()])
def test_stacks_are_values_of_json(values: Any) -> None:
    import json

    assert set(json.loads(json.dumps(values))) <= {"0"}


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("/x/lib/python3.11/asyncio/tasks.py", "asyncio/tasks.py"),
        ("/x/lib/python3.11/site-packages/numpy/core.py", "numpy/core.py"),
        ("/home/me/model.py", "/home/me/model.py"),
        ("<cell 3>", "<cell 3>"),
    ],
)
def test_paths_of_libraries_are_shortened(path: str, short: str) -> None:
    assert stacks.short_path(path) == short
