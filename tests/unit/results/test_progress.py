"""How far calls are, as lines of progress tell it."""

from __future__ import annotations

import io
import threading
from types import SimpleNamespace

import pytest
from rich.console import Console

from nsactors.protocol.messages import RequestId
from nsactors.results import Call, MapCall, MapPiece, TaskCall
from nsactors.results.display import line
from nsactors.results.display.progress import ProgressMeter, amount_of, show_progress, wait_showing
from nsactors.results.display.screen import Progress
from nsactors.results.display.terminal import progress_bar
from nsactors.testing import wait_until


def call(engine_id: int = 0, *, done: bool = False) -> Call:
    return Call(RequestId("me", 1), engine_id, "map(f)", False, done=done)


def task(*, done: bool = False) -> TaskCall:
    return TaskCall(RequestId("me", 1), -1, "apply(f)", False, done=done)


def balanced_map(size: int, ended: int = 0) -> MapCall:
    made = MapCall(RequestId("me", 2), -1, "map(f)", False, size=size, left=size)
    if ended:
        made.add(MapPiece(RequestId("me", 2), 0, "map(f)", False, start=0, stop=ended, value=[None] * ended))
    return made


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([], (0, 0, "engines")),
        ([call(0, done=True), call(1)], (1, 2, "engines")),
        ([call(0, done=True), call(0), call(1)], (1, 3, "parts")),
        ([task(done=True), task(done=True), task()], (2, 3, "tasks")),
        ([balanced_map(1_000, ended=300)], (300, 1_000, "items")),
        ([balanced_map(10, ended=10), balanced_map(5), task(done=True)], (11, 16, "items")),
    ],
)
def test_what_is_counted_depends_on_the_calls(calls: list[Call], expected: tuple[int, int, str]) -> None:
    assert amount_of(calls) == expected


@pytest.mark.parametrize(
    ("progress", "amount", "times"),
    [
        (Progress("f", 3, 4, 12.3), "3/4 engines", "12 s"),
        (Progress("f", 512, 1_000, 12.3, "items", 41.66, 11.7), "512/1,000 items", "12 s, 41.7/s, some 12 s left"),
        (
            Progress("f", 1, 10**4, 125.0, "items", 320.9, 7_380),
            "1/10,000 items",
            "2 min 05 s, 321/s, some 2 h 03 min left",
        ),
        (Progress("f", 4, 4, 12.3, "tasks", 0.325, 0.0), "4/4 tasks", "12 s, 0.325/s"),
        (Progress("push", 1, 4, 1.3, bytes_rate=612e6), "1/4 engines", "1.3 s, 612 MB/s"),
        (Progress("starting", 0, 0, 1.3, doing="Ray"), "Ray", "1.3 s"),
    ],
)
def test_progress_is_told_in_words(progress: Progress, amount: str, times: str) -> None:
    assert (progress.amount, progress.times) == (amount, times)


@pytest.mark.parametrize("width", [80, 140])
def test_a_narrow_terminal_cuts_the_label_first(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    label = "map(a_function_with_a_name_that_is_longer_than_most)"
    with console.capture() as capture:
        console.print(progress_bar(Progress(label, 5, 9, 70.0, "items", 2.0, 2.0)))
    (text,) = capture.get().splitlines()
    assert "5/9 items 70 s, 2/s, some 2 s left" in text
    assert (label in text) == (width == 140)


def test_a_map_is_read_with_rate_and_estimate() -> None:
    work = balanced_map(100)
    work.submitted -= 10.0
    meter = ProgressMeter("map(f)", [work])
    assert meter.read().rate is None
    work.add(MapPiece(work.request_id, 0, "map(f)", False, start=0, stop=50, value=[None] * 50))
    progress = meter.read()
    assert progress.rate == pytest.approx(5.0, rel=0.5)
    assert progress.left_s == pytest.approx(10.0, rel=0.5)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    screen = Terminal()
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    # Not in sys itself, where pytest puts a stream of its own for each phase of a test.
    monkeypatch.setattr(line, "sys", SimpleNamespace(stderr=screen))
    monkeypatch.setattr(line, "REDRAW_S", 0.001)
    return screen


@pytest.mark.parametrize("calls", [[balanced_map(8, ended=3)], [task(done=True), task()]], ids=["map", "tasks"])
def test_whoever_waits_long_for_tasks_sees_a_line(terminal: Terminal, calls: list[Call]) -> None:
    waits: list[float | None] = []

    def wait(timeout_s: float | None) -> bool:
        waits.append(timeout_s)
        if len(waits) == 2:
            wait_until(lambda: f"{amount_of(calls).done}/" in terminal.getvalue())
        return len(waits) == 2

    assert wait_showing(wait, calls, None)
    assert terminal.getvalue().endswith("\x1b[2K")  # the line is erased


def test_who_waits_in_the_background_draws_nothing(terminal: Terminal) -> None:
    waits: list[float | None] = []
    thread = threading.Thread(target=wait_showing, args=(waits.append, [balanced_map(8)], None))
    thread.start()
    thread.join()
    assert waits == [None]


def test_what_has_ended_long_ago_is_told_with_the_time_that_it_took() -> None:
    work = task(done=True)
    work.submitted, work.received = 1_000.0, 1_012.0
    assert ProgressMeter("apply(f)", [work]).sum_up() == Progress("apply(f)", 1, 1, 12.0, "tasks", 1 / 12)


class Result:
    """A map that ends when it has been waited for a few times."""

    def __init__(self) -> None:
        self._label = "map(f)"
        self._calls = [balanced_map(6)]
        self.waits: list[float] = []

    def _wait(self, timeout_s: float) -> bool:
        self.waits.append(timeout_s)
        start = len(self.waits) - 1
        piece = MapPiece(self._calls[0].request_id, 0, "map(f)", False, start=start, stop=start + 1, value=[None])
        self._calls[0].add(piece)
        return start == 5


def test_an_interactive_wait_leaves_its_last_state_at_the_terminal(terminal: Terminal) -> None:
    show_progress(Result(), 0.1, None)  # type: ignore[arg-type]
    assert "1/6 items" in terminal.getvalue()
    assert "6/6 items" in terminal.getvalue().splitlines()[-2]  # the last line shows the cursor again


def test_an_interactive_wait_in_a_pipe_writes_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_progress(Result(), 0.1, None)  # type: ignore[arg-type]
    (text,) = capsys.readouterr().err.splitlines()
    assert text.startswith("map(f): 6/6 items, 0.0 s")


def test_an_interactive_wait_ends_when_time_is_up(capsys: pytest.CaptureFixture[str]) -> None:
    result = Result()
    show_progress(result, 0.1, 0.0)  # type: ignore[arg-type]
    assert result.waits == [0.0]
    assert capsys.readouterr().err.startswith("map(f): 1/6 items")
