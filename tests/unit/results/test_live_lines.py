"""Text as a terminal shows it."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nsactors.results.live.lines import LINE_LIMIT, LineEditor


def edited(*texts: str) -> tuple[list[str], str]:
    """The lines that pieces of text finish, and the line they leave unfinished."""
    editor = LineEditor()
    return [line for text in texts for line in editor.feed(text)], editor.unfinished


@pytest.mark.parametrize(
    ("text", "lines", "unfinished"),
    [
        ("a\nb", ["a"], "b"),
        ("10%\r20%\r30%", [], "30%"),
        ("100%\r 7%", [], " 7%%"),
        ("abc\r\n", ["abc"], ""),
        ("ab\b\bxy\n", ["xy"], ""),
        ("\b\bx\n", ["x"], ""),
        ("abc\r\x1b[Kx\n", ["x"], ""),
        ("abc\x1b[2Kd\n", ["   d"], ""),
        ("\x1b[31mred\x1b[0m\n", ["\x1b[31mred\x1b[0m"], ""),
        ("\x1b[1Aup\n", ["up"], ""),
        ("\x1b]0;title\x07x\n", ["x"], ""),
        ("a\x1b\nb\n", ["a", "b"], ""),
    ],
)
def test_control_characters_do_what_they_do_in_a_terminal(text: str, lines: list[str], unfinished: str) -> None:
    assert edited(text) == (lines, unfinished)


@example("\x1b[31mred\n", 5)
@example("a\x1b\nb", 3)
@given(st.text(st.sampled_from("ab\n\r\b\x1b[K2m"), max_size=60), st.integers(0, 60))
def test_it_does_not_matter_how_text_is_cut_into_pieces(text: str, cut: int) -> None:
    assert edited(text) == edited(text[:cut], text[cut:])


@given(st.text(st.characters(exclude_characters="\n\r\b\x1b")))
def test_plain_text_comes_out_as_it_is(text: str) -> None:
    assert edited(text + "\n") == ([text], "")


def test_a_line_without_end_is_bounded() -> None:
    editor = LineEditor()
    for _ in range(3):
        editor.feed("x" * LINE_LIMIT)
    assert len(editor.unfinished) == LINE_LIMIT
