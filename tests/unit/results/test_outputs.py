"""Output that is shown when it is asked for."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import pytest

from nsactors.protocol.messages import Display, ExecuteResult, OutputChunk, RequestId, StreamText
from nsactors.results import Call, MapCall
from nsactors.results.display.merging import Shown
from nsactors.results.display.outputs import print_outputs
from nsactors.results.display.terminal import TerminalScreen

FIGURE = Display({"text/plain": "<Figure>", "image/png": base64.b64encode(b"a picture").decode()}, {})


def call(engine_id: int, *chunks: OutputChunk) -> Call:
    made = Call(RequestId("me", engine_id), engine_id, "execute", True)
    made.output.chunks += chunks
    return made


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_at_a_terminal_a_figure_is_saved_and_it_is_said_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    print_outputs([call(0, FIGURE), call(1, FIGURE)], "type", result_only=False)
    (path,) = (tmp_path / "nsactors-figures").iterdir()
    assert path.read_bytes() == b"a picture"
    assert terminal.getvalue() == f"[output: engines 0-1]\nfigure saved as nsactors-figures/{path.name}\n"


@pytest.mark.parametrize("content", ["aGVsbG8=", "of no image", {}])
def test_a_figure_that_cannot_be_saved_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: object
) -> None:
    monkeypatch.chdir(tmp_path)
    if content == "aGVsbG8=":
        (tmp_path / "nsactors-figures").touch()
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    figure = Display({"image/png": content, "text/plain": "<Figure>"}, {})
    print_outputs([call(0, figure, StreamText("stdout", "text\n"))], "type", result_only=False)
    screen = TerminalScreen(live=True)
    screen.show([Shown((0,), figure), Shown((0,), figure._replace(transient={"display_id": "a"}))])
    screen.close()
    assert terminal.getvalue().count("figure not saved: ") == 3
    assert "[stdout: engine 0]\ntext\n" in terminal.getvalue()


def test_elsewhere_its_text_stands_for_a_figure(capsys: pytest.CaptureFixture[str]) -> None:
    print_outputs([call(0, FIGURE)], "engine", result_only=False)
    assert capsys.readouterr().out == "[output: engine 0]\n<Figure>\n"


def test_what_has_been_shown_is_not_shown_again_but_for_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    one = call(0, StreamText("stdout", "text\n"), ExecuteResult(1, {"text/plain": "42"}, {}))
    one.take_unshown()  # by a wait, which shows no values
    for _ in range(2):
        print_outputs([one], "type", result_only=False)
    assert capsys.readouterr().out == "[output: engine 0]\n42\n"


def test_output_of_a_map_is_put_together_by_engine(capsys: pytest.CaptureFixture[str]) -> None:
    one = MapCall(RequestId("me", 1), -1, "map(f)", False, size=3, left=0)
    for engine_id, text in [(1, "a\n"), (0, "b\n"), (1, "c\n")]:
        one.add_output(engine_id, None, [StreamText("stdout", text)])
    print_outputs([one], "type", result_only=False)
    assert capsys.readouterr().out == "[stdout: engine 0]\nb\n[stdout: engine 1]\na\nc\n"


def test_text_that_is_passed_over_for_results_is_shown_later(capsys: pytest.CaptureFixture[str]) -> None:
    one = call(0, StreamText("stdout", "text\n"), ExecuteResult(1, {"text/plain": "42"}, {}))
    print_outputs([one], "type", result_only=True)
    assert capsys.readouterr().out == "[output: engine 0]\n42\n"
    print_outputs([one], "type", result_only=False)
    assert capsys.readouterr().out == "[stdout: engine 0]\ntext\n"
