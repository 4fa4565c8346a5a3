"""Typed text, in the form in which engines or IPython must get it."""

from typing import NoReturn

import pytest
from IPython.core.completer import CompletionContext

from nsactors.errors import NoSuchEngine
from nsactors.magics.completion import CellSender, EngineCompleter, ask_engines, remote_part


def test_a_cell_becomes_a_cell_for_engines() -> None:
    assert CellSender("px")(["a = 1\n", "print(a)\n"]) == ["%%px\n", "a = 1\n", "print(a)\n"]


@pytest.mark.parametrize(
    "line",
    ["%autopx\n", "%px a\n", "%%px_even --block\n", "%pn 0 a\n", "%result\n", "%debug\n", "exit\n", "quit()", "\n"],
)
def test_what_is_about_engines_already_stays_as_it_is(line: str) -> None:
    assert CellSender("px")([line]) == [line]


@pytest.mark.parametrize("line", ["exit(1)\n", "%timeit f()\n", "!ls\n", "%pxy\n".replace("pxy", "pwd")])
def test_other_magics_run_on_engines(line: str) -> None:
    assert CellSender("px")([line]) == ["%%px\n", line]


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("%px np.sum?\n", "%pxinfo np.sum 1\n"),
        ("%px np.sum??\n", "%pxinfo np.sum 2\n"),
        ("%px_even x ?\n", "%pxinfo_even x 1\n"),
        ("  %px x?\n", "  %pxinfo x 1\n"),
    ],
)
def test_help_on_a_name_is_asked_of_engines(line: str, asked: str) -> None:
    assert ask_engines([line]) == [asked]


@pytest.mark.parametrize("line", ["x?\n", "%px print('x?')\n", "%px x\n", "%time x?\n"])
def test_other_lines_are_left_alone(line: str) -> None:
    assert ask_engines([line]) == [line]


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("%px np.su", "%px np.su", ("px", "np.su")),
        ("%px_even np.su", "%px_even np.su", ("px_even", "np.su")),
        ("%pn 0 np.su", "%pn 0 np.su", ("pn", "np.su")),
        ("%%px --block\nx = np.su", "x = np.su", ("px", "x = np.su")),
        ("np.su", "np.su", None),
        ("%pn 0", "%pn 0", None),
        ("%timeit np.su", "%timeit np.su", None),
    ],
)
def test_the_part_that_engines_will_see_is_completed_by_them(
    text: str, line: str, part: tuple[str, str] | None
) -> None:
    assert remote_part(text, line) == part


def test_no_names_are_found_on_an_engine_that_has_gone() -> None:
    def locate(magic: str) -> NoReturn:
        raise NoSuchEngine(1, [0])

    line = "%px abc"
    context = CompletionContext(token="abc", full_text=line, cursor_position=len(line), cursor_line=0, limit=None)
    assert EngineCompleter(locate, lambda: None).match(context) == {"completions": []}
