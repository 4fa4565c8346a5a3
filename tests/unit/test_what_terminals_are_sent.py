"""Names, labels and messages of other people's reach a terminal as text, and never as commands to it."""

from __future__ import annotations

import io
import re
import traceback
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.lib.pretty import pretty
from rich.console import Console

from nsactors import Client, Cluster, Reference
from nsactors.client.activity import activity_table, changes
from nsactors.errors import (
    EngineLost,
    InvalidArgument,
    NsactorsError,
    RemoteError,
    draw,
    printable,
    render_text,
    unknown_attribute,
)
from nsactors.results.display.screen import Progress
from nsactors.results.display.terminal import TerminalScreen, progress_bar

# A title, a cleared screen, a bell, a text that is written backwards, one of the second set; and markup of rich's.
HOSTILE = "x\x1b]0;owned\x07\x1b[2J\a\u202e\x9b1A[red]y"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")

CODE = f"""
class Odd(Exception):
    pass
Odd.__name__ = Odd.__qualname__ = {HOSTILE!r}
def odd():
    raise Odd({HOSTILE!r})
odd.__name__ = odd.__qualname__ = {HOSTILE!r}
odd.__code__ = odd.__code__.replace(co_name={HOSTILE!r})
globals()[{HOSTILE!r}] = type({HOSTILE!r}, (), {{}})()
"""


def printed(drawing: Any) -> str:
    console = Console(file=io.StringIO(), width=400, color_system=None, force_jupyter=False)
    console.print(drawing)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.fixture(scope="module")
def stage() -> Iterator[SimpleNamespace]:
    with Cluster(n=2, backend="local") as rc, rc, Client(rc.session.transport, HOSTILE) as client:
        view = client[:]
        view.execute(CODE, block=True)
        view.with_flags(label=HOSTILE).apply_sync(abs, 1)
        result = view.with_flags(label=HOSTILE).apply_async(Reference("odd"))
        with pytest.raises(NsactorsError) as caught:
            result.get()
        single = client[0].apply_async(Reference("odd"))
        with pytest.raises(RemoteError) as one:
            single.get()
        code = f"type('Odd', (), {{'__repr__': lambda self: {HOSTILE!r}}})()"
        value = client[0].execute(code, silent=False, block=True)
        detached = client.load_balanced_view().with_flags(label=HOSTILE, detached=True)
        detached.apply_sync(abs, 1)
        yield SimpleNamespace(client=client, result=result, errors=caught.value, error=one.value, value=value)


SHOWN: dict[str, Callable[[SimpleNamespace], str]] = {
    "client": lambda stage: repr(stage.client),
    "client, drawn": lambda stage: printed(stage.client),
    "result": lambda stage: repr(stage.result),
    "result, drawn": lambda stage: printed(stage.result),
    "result in HTML": lambda stage: stage.result._repr_html_(),
    "timeline": lambda stage: repr(stage.result.timeline()),
    "timeline, drawn": lambda stage: printed(stage.result.timeline()),
    "timeline as a picture": lambda stage: stage.result.timeline()._repr_svg_(),
    "memory": lambda stage: printed(stage.client.memory()),
    "activity": lambda stage: printed(activity_table(stage.client.activity())),
    "errors": lambda stage: str(stage.errors),
    "errors, drawn": lambda stage: printed(draw(stage.errors)),
    "error, drawn": lambda stage: render_text(stage.error, width=400),
    "its traceback": lambda stage: stage.error.traceback,
    "what was known of it": lambda stage: "\n".join(stage.error.__notes__),
    "a lost engine": lambda stage: str(EngineLost(0, HOSTILE, "it was killed", HOSTILE)),
    "a lost engine, drawn": lambda stage: render_text(EngineLost(0, HOSTILE, "it was killed", HOSTILE)),
    "activity as it is": lambda stage: repr(stage.client.activity()),
    "changes of it": lambda stage: "\n".join(changes(None, stage.client.activity())),
    "history": lambda stage: repr(stage.client.history()),
    "history, drawn": lambda stage: printed(stage.client.history()),
    "history in HTML": lambda stage: stage.client.history()._repr_html_(),
    "tasks": lambda stage: repr(stage.client.tasks()),
    "a value": lambda stage: pretty(stage.value),
    "a reply": lambda stage: repr(stage.value.get()),
    "an unknown name": lambda stage: str(unknown_attribute(stage.client, HOSTILE)),
    "progress": lambda stage: printed(progress_bar(Progress(HOSTILE, 1, 2, 1.0, "items"))),
}


@pytest.mark.parametrize("shown", SHOWN)
def test_what_is_shown_holds_no_control_characters(stage: SimpleNamespace, shown: str) -> None:
    assert CONTROLS.findall(SHOWN[shown](stage)) == []


@pytest.mark.parametrize(
    "shown", ["client, drawn", "result, drawn", "timeline, drawn", "memory", "activity", "errors, drawn", "progress"]
)
def test_brackets_are_no_markup(stage: SimpleNamespace, shown: str) -> None:
    assert "[red]y" in SHOWN[shown](stage)


def test_the_report_of_what_was_not_asked_for_holds_none(capsys: pytest.CaptureFixture[str]) -> None:
    with Cluster(n=1, backend="local") as rc, Client(rc.session.transport, "x") as client:
        client[0].execute(CODE, block=True)
        client[0].with_flags(label=HOSTILE).apply_async(Reference("odd")).wait()
    said = capsys.readouterr().err
    assert "1 call failed" in said
    assert CONTROLS.findall(said) == []


def test_a_notice_and_a_value_hold_none(capsys: pytest.CaptureFixture[str]) -> None:
    screen = TerminalScreen()
    screen.notice(HOSTILE)
    said = capsys.readouterr().out
    assert "owned" in said
    assert CONTROLS.findall(said) == []


def test_python_itself_prints_an_error_of_ours_as_text() -> None:
    error = InvalidArgument(HOSTILE)
    text = "".join(traceback.format_exception(error))
    assert CONTROLS.findall(text) == []


def test_colours_that_a_message_brings_along_are_kept_where_it_is_drawn(stage: SimpleNamespace) -> None:
    stage.client[0].execute("def red(): raise ValueError('\\x1b[31mred\\x1b[0m')", block=True)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # it has the message of the user's, to the last character
        stage.client[0].apply_sync(Reference("red"))
    assert str(caught.value) == "\x1b[31mred\x1b[0m"
    assert "\x1b[31mred" in render_text(caught.value, color=True)  # type: ignore[arg-type]
    assert "\x1b" not in render_text(caught.value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("ein Gruß: 你好", "ein Gruß: 你好"),
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b2J", "\\x9b2J"),
        ("abc\u202edef", "abc\\u202edef"),
        ("\udcff", "\\udcff"),
        ("\r", "\\r"),
    ],
)
def test_control_characters_are_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown
