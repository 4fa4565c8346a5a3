"""Output that is shown to the thread that waits for results."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Mapping, Sequence

import pytest

from nsactors.protocol.messages import Display, ExecuteResult, OutputChunk, RequestId, StreamText
from nsactors.results import Call, EngineOutput, MapCall, OutputGoes
from nsactors.results.display import live
from nsactors.results.display.line import HELD_CHARS, LentLine, PlainOutput
from nsactors.results.display.live import AwaitedOutput, MergedOutput
from nsactors.results.display.merging import Merger, Shown, TextLine
from nsactors.results.display.screen import HeldInterrupts, Progress


class FakeScreen:
    def __init__(self) -> None:
        self.lines: list[tuple[tuple[int, ...], str]] = []
        self.statuses: list[dict[int, str]] = []
        self.progress: Progress | None = None

    def show(self, shown: Sequence[Shown]) -> None:
        self.lines += [(one.engines, one.piece.text) for one in shown]  # type: ignore[union-attr]

    def status(self, lines: Mapping[int, str], progress: Progress | None) -> None:
        self.statuses.append(dict(lines))
        self.progress = progress or self.progress

    def notice(self, text: str) -> None:
        self.lines.append(((), text))

    def close(self) -> None: ...


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> FakeScreen:
    """A screen that shows output as a terminal does."""
    screen = FakeScreen()
    monkeypatch.setattr(live, "is_watched", lambda: True)
    monkeypatch.setattr(live, "_screen", lambda: screen)
    return screen


def call(engine_id: int = 0) -> Call:
    return Call(RequestId("me", engine_id), engine_id, "apply(f)", False)


def says(call: Call, text: str, stream: str = "stdout") -> None:
    call.output.chunks.append(StreamText(stream, text))


def test_what_is_printed_during_a_wait_is_shown_then(screen: FakeScreen) -> None:
    first, second = call(0), call(1)
    moments = iter([False, True])

    def wait(timeout_s: float | None) -> bool:
        if screen.lines:
            return next(moments)
        for one in (first, second):
            if not one.output.chunks:
                says(one, "hello\n")
        return False

    assert AwaitedOutput([first, second]).around(wait)(60.0)
    assert screen.lines == [((0, 1), "hello")]


def test_each_line_is_shown_once_whoever_waits(screen: FakeScreen) -> None:
    one = call()
    says(one, "a\nb\n")
    one.settle(None, None)
    for _ in range(2):
        AwaitedOutput([one]).settle()
    assert screen.lines == [((0,), "a"), ((0,), "b")]


def test_an_unfinished_line_is_shown_whole_when_its_call_has_ended(screen: FakeScreen) -> None:
    one = call()
    output = AwaitedOutput([one])
    says(one, "be")
    output.settle()
    assert screen.lines == []
    says(one, "gun")
    one.settle(None, None)
    output.settle()
    assert screen.lines == [((0,), "begun")]


@pytest.mark.parametrize("goes", [OutputGoes.NOWHERE, OutputGoes.TO_DISPLAY])
def test_what_goes_elsewhere_is_left_alone(screen: FakeScreen, goes: OutputGoes) -> None:
    one = call()
    one.output_goes = goes
    says(one, "a\n")
    one.settle(None, None)
    AwaitedOutput([one]).settle()
    assert (screen.lines, one.has_unshown) == ([], True)


def test_output_of_a_map_bears_the_engines_that_ran_its_items(screen: FakeScreen) -> None:
    one = MapCall(RequestId("me", 1), -1, "map(f)", False, size=3, left=3)
    for engine_id, text in [(1, "item 0\n"), (0, "item 1\n"), (1, "item 2\n")]:
        one.add_output(engine_id, None, [StreamText("stdout", text)])
    one.settle([], None)
    AwaitedOutput([one]).settle()
    assert sorted(screen.lines) == [((0,), "item 1"), ((1,), "item 0"), ((1,), "item 2")]


def test_a_line_of_progress_is_taken_over_by_the_first_output(screen: FakeScreen) -> None:
    removed: list[str] = []

    class Line:
        def draw(self, progress: Progress) -> None: ...
        def leave(self) -> None: ...
        def remove(self) -> None:
            removed.append("the line")

    one, progress = call(), Progress("map(f)", 1, 2, 3.0)
    output = AwaitedOutput([one])
    output.line = LentLine(Line(), lambda: progress)
    waits = iter([False, False, True])
    wait = output.around(lambda timeout_s: next(waits))
    says(one, "begun ")
    assert wait(60.0)
    assert (removed, screen.progress) == (["the line"], progress)


def test_control_c_leaves_out_most_of_a_flood_and_it_is_said(
    screen: FakeScreen, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, show = call(), screen.show
    says(one, "".join(f"{n}\n" for n in range(5_000)))
    output = AwaitedOutput([one])
    monkeypatch.setattr(screen, "show", lambda shown: (show(shown), signal.raise_signal(signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt):
        output.around(lambda timeout_s: False)(None)
    monkeypatch.setattr(screen, "show", show)
    one.settle(None, None)
    output.settle()
    texts = [text for _, text in screen.lines]
    assert len(texts) < 1_000
    assert texts[-1] == "4999"
    assert any("lines left out here" in text for text in texts)


def test_control_c_is_held_back_while_something_is_drawn(screen: FakeScreen) -> None:
    merged = MergedOutput(screen, [call()])
    merged.add(EngineOutput(0, None, [StreamText("stdout", "a\n")]), 0.0)
    interrupts = HeldInterrupts()

    def draw() -> None:
        with interrupts:
            signal.raise_signal(signal.SIGINT)
            merged.draw(interrupts, 1.0, None)

    with pytest.raises(KeyboardInterrupt):
        draw()
    assert screen.lines == [((0,), "a")]


def test_the_value_of_a_cell_is_not_shown_by_a_wait(capsys: pytest.CaptureFixture[str]) -> None:
    one = call()
    one.output.chunks += [StreamText("stdout", "text\n"), ExecuteResult(1, {"text/plain": "42"}, {})]
    one.settle(None, None)
    AwaitedOutput([one]).settle()
    assert capsys.readouterr().out == "text\n"


def plain(*outputs: tuple[int, OutputChunk], over: bool = True) -> None:
    output = PlainOutput()
    for engine_id, chunk in outputs:
        output.add(EngineOutput(engine_id, None, [chunk]), 0.0)
    output.settle(HeldInterrupts(), over=over)


def test_without_a_terminal_text_goes_to_its_stream_as_it_was_printed(capsys: pytest.CaptureFixture[str]) -> None:
    plain((0, StreamText("stdout", "a\r\x1b[31mb\n")), (1, StreamText("stderr", "c")))
    assert capsys.readouterr() == ("a\r\x1b[31mb\n", "c")


def test_without_a_terminal_lines_of_several_engines_stay_whole(capsys: pytest.CaptureFixture[str]) -> None:
    parts = [(0, "one "), (1, "ONE "), (0, "two\nthr"), (1, "TWO\n"), (0, "ee\n")]
    plain(*((engine_id, StreamText("stdout", text)) for engine_id, text in parts))
    assert capsys.readouterr().out == "one two\nONE TWO\nthree\n"


def test_lines_of_two_requests_to_one_engine_stay_whole_though_the_second_overtakes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, first, second = PlainOutput(), RequestId("me", 1), RequestId("me", 2)
    merger = Merger([0])
    for source, text in [(first, "one "), (second, "two\n"), (first, "ends\n")]:
        output.add(EngineOutput(0, source, [StreamText("stdout", text)]), 0.0)
        merger.add(0, [StreamText("stdout", text)], 0.0, source)
    assert capsys.readouterr().out == "two\none ends\n"
    assert [one.piece for one in merger.rest()] == [TextLine("stdout", "two"), TextLine("stdout", "one ends")]


def test_without_a_terminal_an_endless_line_does_not_wait_for_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    plain((0, StreamText("stdout", "x" * (HELD_CHARS + 1))), over=False)
    assert len(capsys.readouterr().out) == HELD_CHARS + 1


def test_without_a_terminal_a_display_is_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    plain((0, Display({"text/plain": "<Figure>", "image/png": "..."}, {})))
    assert capsys.readouterr().out == "<Figure>\n"


def test_characters_that_standard_output_does_not_know_fail_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    plain((0, StreamText("stdout", "\u2603\n")))
    assert stream.buffer.getvalue() == b"\\u2603\n"  # type: ignore[attr-defined]
