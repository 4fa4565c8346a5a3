"""Failures drawn for people."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace, TracebackType
from typing import cast

import pytest
from rich.cells import cell_len

from nsactors.errors import CompositeError, EngineLost, Failure, render_text
from nsactors.errors.rendering import Uncaught, show_uncaught_briefly
from tests.unit.errors.raising import remote

SOURCES = [
    "def f(x):\n    # half\n    return 1 / x\n\nf(0)",
    "if 1\n    pass",
    "def f(n):\n    return f(n + 1)\nf(0)",
    "try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('v ' * 300) from e",
    "raise ExceptionGroup('g', [ValueError(1), ExceptionGroup('h', [KeyError('k')])])",
    "import json\njson.loads('{bad')",
    "x = '漢字'; y = '" + "long " * 60 + "'; 1 / 0",
    "if True:\n\tx = 1\n\t1 / 0",
    "raise ValueError('\\x1b[31mred\\x1b[0m \\x1b[2J')",
    "raise ValueError('\\ud800')",
]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("width", [40, 80, 140])
def test_no_line_is_wider_than_asked_and_none_has_escape_codes(source: str, width: int) -> None:
    text = render_text(remote(source), width=width)
    assert "\x1b" not in text
    assert max(map(cell_len, text.splitlines())) <= width
    assert len({cell_len(line) for line in text.splitlines()}) == 1  # the frame is straight


def test_a_marker_stands_under_the_failing_expression() -> None:
    lines = render_text(remote("def f(x):\n    return 2 + 1 / x\nf(0)"), width=80).splitlines()
    row = next(index for index, line in enumerate(lines) if "return 2 + 1 / x" in line)
    assert lines[row].index("1 / x") == lines[row + 1].index("^")
    assert lines[row + 1].count("^") == len("1 / x")


def test_a_marker_under_wide_characters_counts_columns() -> None:
    lines = render_text(remote("x = '漢字' + 1 / 0"), width=80).splitlines()
    row = next(index for index, line in enumerate(lines) if "漢字" in line)
    assert cell_len(lines[row].partition("1 / 0")[0]) == lines[row + 1].index("^")


def test_the_title_names_engines_call_and_class() -> None:
    text = render_text(remote("1 / 0", engine_id=4, call="apply(f)"), width=80)
    assert text.startswith("╭─ engine 4 · apply(f) · ZeroDivisionError ─")


def test_a_composite_has_its_lines_first_and_a_panel_per_group() -> None:
    failures = [*(remote("1 / 0", engine_id=i) for i in range(4)), EngineLost(5, "execute", "killed")]
    text = render_text(CompositeError("execute failed", failures), width=100)
    head, first, second = text.split("╭─")
    assert head.splitlines()[0] == "execute failed"
    assert "[engines 0-3]" in head
    assert first.startswith(" engines 0-3 · execute · ZeroDivisionError")
    assert second.startswith(" engine 5 · execute · EngineLost")


def test_untrusted_text_is_no_markup() -> None:
    text = render_text(remote("raise ValueError('[bold]not[/bold] :smile: [/]')"), width=80)
    assert "ValueError: [bold]not[/bold] :smile: [/]" in text


def test_a_chain_is_told_with_pythons_sentence() -> None:
    text = render_text(remote(SOURCES[3]), width=80)
    assert "The above exception was the direct cause of the following exception:" in text
    assert text.index("KeyError: 'k'") < text.index("ValueError: v v")


def test_a_recursion_is_told_briefly() -> None:
    text = render_text(remote(SOURCES[2]), width=80)
    assert "frames left out" in text
    assert len(text.splitlines()) < 40


def test_notes_are_drawn() -> None:
    assert "try again" in render_text(remote("e = ValueError()\ne.add_note('try again')\nraise e"), width=80)


def test_the_place_of_the_call_at_the_client_is_drawn() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        raise remote("1 / 0")
    assert render_text(caught.value, width=200).startswith(f'Called from "{__file__}", line ')


def test_a_call_in_a_cell_of_ipython_is_drawn_with_the_number_of_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = SimpleNamespace(format_code_name=lambda name: ("Cell", "In[5]") if name == "/tmp/7.py" else None)
    ipython = SimpleNamespace(get_ipython=lambda: SimpleNamespace(compile=compiler))
    monkeypatch.setitem(sys.modules, "IPython", cast(ModuleType, ipython))
    with pytest.raises(ZeroDivisionError) as caught:
        exec(compile("raise error", "/tmp/7.py", "exec"), {"error": remote("1 / 0")})
    assert render_text(caught.value, width=200).startswith('Called from "<In[5]>", line 1, in <module>')


def test_colours_are_there_if_asked_for() -> None:
    assert "\x1b[" in render_text(remote("1 / 0"), color=True)


def test_an_error_without_engine_is_drawn_by_its_message() -> None:
    assert "just this" in render_text(ValueError("just this"), width=60)


def test_importing_errors_imports_neither_rich_nor_ray_nor_ipython() -> None:
    code = "import sys, nsactors.errors; print({'rich', 'ray', 'IPython', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# Errors of several engines that nobody catches.


Told = list[BaseException]


@pytest.fixture
def passed_on() -> Told:
    return []


@pytest.fixture
def hook(passed_on: Told) -> Uncaught:
    return Uncaught(lambda kind, error, at: passed_on.append(error))


def raised(error: Exception) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    try:
        raise error
    except Exception as caught:
        return type(caught), caught, caught.__traceback__


def composite() -> CompositeError:
    return CompositeError("execute failed on 64 of 64 engines", [remote("1 / 0", engine_id=i) for i in range(64)])


def test_equal_engines_are_told_once_below_the_users_own_frames(
    hook: Uncaught, capsys: pytest.CaptureFixture[str]
) -> None:
    hook(*raised(composite()))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert __file__ in lines[1]
    assert lines[3] == "nsactors.CompositeError: execute failed on 64 of 64 engines"
    assert lines[4].startswith("ZeroDivisionError: division by zero  [engines 0-63]")
    assert len(lines) < 15


def test_what_it_was_raised_from_is_told_before_it(hook: Uncaught, capsys: pytest.CaptureFixture[str]) -> None:
    error = composite()
    error.__cause__ = KeyError("first")
    hook(*raised(error))
    text = capsys.readouterr().err
    assert text.index("KeyError: 'first'") < text.index("direct cause") < text.index("execute failed on 64")


def test_other_errors_are_shown_by_the_hook_that_was_there(
    hook: Uncaught, passed_on: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    error = ValueError("not ours")
    hook(*raised(error))
    assert passed_on == [error]
    assert capsys.readouterr().err == ""


def test_it_takes_the_place_of_pythons_own_hook_and_of_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    show_uncaught_briefly()
    ours = sys.excepthook
    assert isinstance(ours, Uncaught)
    show_uncaught_briefly()
    assert sys.excepthook is ours
    monkeypatch.setattr(sys, "excepthook", print)
    show_uncaught_briefly()
    assert sys.excepthook is print


def test_it_does_not_pass_errors_on_to_rays_hook(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def hook(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
        raise AssertionError("it would wait for a server")

    hook.__module__ = "ray._private.worker"
    monkeypatch.setattr(sys, "excepthook", hook)
    show_uncaught_briefly()
    sys.excepthook(*raised(ValueError("not ours")))
    assert "ValueError: not ours" in capsys.readouterr().err


def test_the_item_of_a_map_is_in_the_title_and_below_the_error() -> None:
    failure = Failure.capture(ValueError("bad"), engine_id=0, call="map(f)", item=(17, (42,)))
    shown = render_text(failure.to_exception(), says_where=False)
    assert "engine 0 · item 17 · map(f) · ValueError" in shown
    assert "item 17 is 42" in shown
