"""What several engines print alike is shown once."""

from __future__ import annotations

import io
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nsactors.protocol.messages import ClearOutput, Display, ExecuteResult, StreamText
from nsactors.results.display.line_editor import LINE_LIMIT, LineEditor
from nsactors.results.display.merging import (
    LAST_LINES,
    Merger,
    Piece,
    Shown,
    TextLine,
    arrange,
    engine_label,
)
from nsactors.results.display.screen import ChangingOutput, VisibleOutput
from nsactors.results.display.terminal import TerminalScreen


def printed(text: str) -> list[StreamText]:
    return [StreamText("stdout", text)]


def shown_lines(shown: list[Shown]) -> list[tuple[tuple[int, ...], str]]:
    return [(one.engines, one.piece.text) for one in shown if isinstance(one.piece, TextLine)]


def test_a_line_of_all_engines_is_shown_at_once_and_once() -> None:
    merger = Merger([0, 1])
    merger.add(0, printed("hello\n"), now=0.0)
    assert merger.due(now=0.0) == []
    merger.add(1, printed("hello\n"), now=0.1)
    assert shown_lines(merger.due(now=0.1)) == [((0, 1), "hello")]


def test_a_line_that_nobody_joins_is_shown_after_a_moment() -> None:
    merger = Merger([0, 1], hold_s=0.2)
    merger.add(0, printed("only here\n"), now=0.0)
    assert merger.next_due() == pytest.approx(0.2)
    assert shown_lines(merger.due(now=0.2)) == [((0,), "only here")]


def test_nobody_waits_for_an_engine_that_has_answered() -> None:
    merger = Merger([0, 1])
    merger.end(1, now=0.0)
    merger.add(0, printed("hello\n"), now=0.0)
    assert shown_lines(merger.due(now=0.0)) == [((0,), "hello")]


def test_lines_that_one_engine_prints_more_do_not_part_the_common_ones() -> None:
    merger = Merger([0, 1, 2])
    for engine_id, text in enumerate(("a\nb\n", "mine\na\nb\n", "a\nb\n")):
        merger.add(engine_id, printed(text), now=0.0)
    assert shown_lines(merger.rest()) == [((1,), "mine"), ((0, 1, 2), "a"), ((0, 1, 2), "b")]


def test_an_unfinished_line_is_a_status_until_its_engine_has_answered() -> None:
    merger = Merger([0])
    merger.add(0, printed("10%\r20%"), now=0.0)
    assert merger.statuses(now=0.0) == {0: "20%"}
    assert merger.due(now=9.0) == []
    merger.end(0, now=9.0)
    assert merger.statuses(now=9.0) == {}
    assert shown_lines(merger.due(now=9.0)) == [((0,), "20%")]


def test_a_display_comes_after_the_text_before_it() -> None:
    figure = Display({"image/png": "..."}, {})
    merger = Merger([0])
    merger.add(0, [StreamText("stdout", "see: "), figure], now=0.0)
    assert [one.piece for one in merger.rest()] == [TextLine("stdout", "see: "), figure]


def test_equal_values_of_cells_with_different_numbers_lose_their_number() -> None:
    merger = Merger([0, 1])
    merger.add(0, [ExecuteResult(1, {"text/plain": "7"}, {})], now=0.0)
    merger.add(1, [ExecuteResult(4, {"text/plain": "7"}, {})], now=0.0)
    assert merger.rest() == [Shown((0, 1), ExecuteResult(0, {"text/plain": "7"}, {}))]


def values(text: str, number: int = 1) -> list[ExecuteResult]:
    return [ExecuteResult(number, {"text/plain": text}, {})]


def figure(content: str) -> list[Display]:
    return [Display({"image/png": content}, {})]


def test_a_value_waits_for_as_long_as_an_engine_may_join_it() -> None:
    merger = Merger([0, 1, 2, 3])
    merger.add(2, values("42"), now=0.0)
    merger.end(2, now=0.0)
    assert merger.due(now=1_000.0) == []
    assert merger.statuses(now=1_000.0) == {2: "Out: 42"}
    for engine_id in (3, 0, 1):
        merger.add(engine_id, values("42"), now=1_000.0)
    assert merger.due(now=1_000.0) == [Shown((0, 1, 2, 3), values("42")[0])]


def test_values_that_differ_come_in_the_order_of_the_engines() -> None:
    merger = Merger([0, 1, 2])
    for engine_id in (2, 1, 0):
        merger.add(engine_id, values(str(engine_id % 2)), now=float(engine_id))
        merger.end(engine_id, now=float(engine_id))
    assert [one.engines for one in merger.due(now=3.0)] == [(0, 2), (1,)]


def test_a_value_does_not_wait_for_engines_that_gave_none() -> None:
    merger = Merger([0, 1])
    merger.add(0, values("42"), now=0.0)
    merger.end(1, now=0.0)
    assert [one.engines for one in merger.due(now=0.0)] == [(0,)]


@pytest.mark.parametrize("order", [(1, 2, 0, 3), (3, 2, 1, 0)])
def test_figures_come_in_the_order_of_the_engines(order: tuple[int, ...]) -> None:
    merger, shown = Merger(range(4), hold_s=0.2), []
    for moment, engine_id in enumerate(order):
        merger.add(engine_id, figure(f"of {engine_id}"), now=moment / 2)
        shown += merger.due(now=moment / 2)
    assert [one.engines for one in shown] == [(0,), (1,), (2,), (3,)]


def test_a_figure_of_one_engine_is_shown_after_a_while() -> None:
    merger = Merger([0, 1], hold_s=0.2)
    merger.add(0, figure("of 0"), now=0.0)
    assert merger.due(now=0.3) == []
    assert [one.engines for one in merger.due(now=2.0)] == [(0,)]


@pytest.mark.parametrize(("took_s", "shown_at"), [(0.0, 2.0), (6.0, 12.0), (60.0, 70.0)])
def test_a_figure_waits_for_others_as_long_as_it_took(took_s: float, shown_at: float) -> None:
    merger = Merger([0, 1])
    merger.began = 0.0
    merger.add(1, figure("of 1"), now=took_s)
    assert merger.due(now=shown_at - 0.1) == []
    assert merger.due(now=shown_at) == [Shown((1,), figure("of 1")[0])]


def test_equal_figures_are_shown_once_though_other_ones_come_between() -> None:
    merger = Merger([0, 1])
    merger.add(0, figure("same"), now=0.0)
    merger.add(1, [*figure("mine"), *figure("same")], now=0.0)
    assert [one.engines for one in merger.rest()] == [(1,), (0, 1)]


@pytest.mark.parametrize(
    "html",
    [
        '<div id="altair-viz-{:032x}"></div><script>draw("altair-viz-{:032x}")</script>',
        '<div id="{:08x}-0000-4000-8000-000000000000" class="plotly-graph-div">',
        "<style>#T_{:05x}_row0 {{}}</style><table id=\"T_{:05x}\"><td id='T_{:05x}_row0'>",
    ],
)
def test_figures_that_differ_by_random_ids_of_elements_are_equal(html: str) -> None:
    merger = Merger([0, 1])
    for engine_id in (0, 1):
        number = 100 + engine_id
        merger.add(engine_id, [ExecuteResult(1, {"text/html": html.format(number, number, number)}, {})], now=0.0)
    assert [one.engines for one in merger.due(now=0.0)] == [(0, 1)]


def test_digests_in_a_table_are_values() -> None:
    merger = Merger([0, 1])
    for engine_id in (0, 1):
        merger.add(engine_id, [ExecuteResult(1, {"text/html": f"<td>{engine_id:032x}</td>"}, {})], now=0.0)
    assert [one.engines for one in merger.due(now=0.0)] == [(0,), (1,)]


def test_where_more_engines_may_print_a_line_waits_for_them() -> None:
    merger = Merger([], hold_s=0.2, open_ended=True)
    merger.add(1, printed("hello\n"), now=0.0)
    merger.add(0, printed("hello\n"), now=0.1)
    assert merger.due(now=0.1) == []
    assert shown_lines(merger.due(now=0.2)) == [((0, 1), "hello")]


def test_a_line_that_has_just_begun_is_no_status() -> None:
    merger = Merger([0], hold_s=0.2)
    merger.add(0, printed("hello"), now=0.0)
    assert merger.statuses(now=0.1) == {}
    merger.add(0, printed("\n"), now=0.1)
    assert merger.statuses(now=9.0) == {}
    merger.add(0, printed("waiting ..."), now=9.0)
    assert merger.statuses(now=9.5) == {0: "waiting ..."}


def test_a_line_counts_once_for_each_engine_that_it_names() -> None:
    merger = Merger([0, 1], limit=6)
    for engine_id in (0, 1):
        merger.add(engine_id, printed("".join(f"{n}\n" for n in range(5))), now=0.0)
    assert len(merger.rest()) == 3
    left_out, last = merger.ending()
    assert (left_out, len(last)) == (0, 4)


def test_after_it_is_cut_a_few_more_lines_are_shown() -> None:
    merger = Merger([0])
    merger.add(0, printed("".join(f"{n}\n" for n in range(1_000))), now=0.0)
    merger.due(now=1.0, at_most=100)
    merger.cut(50)
    assert len(merger.rest()) == 50
    assert merger.ending()[0] == 1_000 - 150 - LAST_LINES


def test_displays_that_can_be_updated_stay_apart() -> None:
    display = Display({"text/plain": "0 %"}, {}, {"display_id": "bar"})
    merger = Merger([0, 1])
    merger.add(0, [display], now=0.0)
    merger.add(1, [display], now=0.0)
    assert [one.engines for one in merger.rest()] == [(0,), (1,)]


def test_a_flood_is_cut_and_its_last_lines_are_kept() -> None:
    merger = Merger([0], limit=10)
    merger.add(0, printed("".join(f"{n}\n" for n in range(1_000))), now=0.0)
    assert len(merger.rest()) == 10
    left_out, last = merger.ending()
    assert left_out == 1_000 - 10 - LAST_LINES
    assert shown_lines(last) == [((0,), str(n)) for n in range(1_000 - LAST_LINES, 1_000)]


def test_results_are_shown_after_a_flood_too() -> None:
    value = ExecuteResult(1, {"text/plain": "7"}, {})
    merger = Merger([0], limit=1)
    merger.add(0, [*printed("a\nb\n"), value], now=0.0)
    assert [one.piece for one in merger.rest()] == [TextLine("stdout", "a"), value]


steps = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.floats(0, 0.3)), max_size=40)


@given(steps)
def test_every_line_is_shown_in_its_engines_order(steps: list[tuple[int, str, float]]) -> None:
    merger, now = Merger(range(4)), 0.0
    written: dict[int, list[str]] = defaultdict(list)
    seen: dict[int, list[str]] = defaultdict(list)
    shown: list[Shown] = []
    for engine_id, text, pause in steps:
        now += pause
        merger.add(engine_id, printed(text + "\n"), now)
        written[engine_id].append(text)
        shown += merger.due(now)
    for engines, text in shown_lines(shown + merger.rest()):
        for engine_id in engines:
            seen[engine_id].append(text)
    assert seen == written


@given(st.lists(st.sampled_from("abc"), max_size=20))
def test_equal_programs_are_shown_as_one(lines: list[str]) -> None:
    merger = Merger(range(3))
    for engine_id in range(3):
        merger.add(engine_id, printed("".join(line + "\n" for line in lines)), now=engine_id / 20)
    assert shown_lines(merger.rest()) == [((0, 1, 2), line) for line in lines]


OUTPUTS = [
    (i, [StreamText("stdout", f"out {i}\n"), Display({"text/plain": "A"}, {}), Display({"text/plain": "B"}, {})])
    for i in range(2)
]


@pytest.mark.parametrize(
    ("groupby", "kinds"),
    [
        ("engine", ["0 out 0", "0 A", "0 B", "1 out 1", "1 A", "1 B"]),
        ("type", ["0 out 0", "1 out 1", "0 A", "0 B", "1 A", "1 B"]),
        ("order", ["0 out 0", "1 out 1", "0-1 A", "0-1 B"]),
    ],
)
def test_finished_output_can_be_arranged(groupby: str, kinds: list[str]) -> None:
    found = []
    for engines, piece in arrange(OUTPUTS, groupby):
        text = piece.text if isinstance(piece, TextLine) else getattr(piece, "data", {})["text/plain"]
        found.append(f"{engine_label(engines)[1:-1]} {text}")
    assert found == kinds


def test_engines_are_named_in_ranges() -> None:
    assert engine_label([7, 0, 1, 2]) == "[0-2, 7]"


def test_what_is_cleared_before_it_was_shown_never_is() -> None:
    merger = Merger([0, 1])
    merger.add(0, [*printed("old\nunfinished"), ClearOutput(wait=False), *printed("new\n")], now=0.0)
    merger.add(1, printed("old\n"), now=0.0)
    assert sorted(shown_lines(merger.rest())) == [((0,), "new"), ((1,), "old")]


def test_clearing_can_wait_for_the_next_output() -> None:
    merger = Merger([0])
    merger.add(0, [*printed("old\n"), ClearOutput(wait=True)], now=0.0)
    assert shown_lines(merger.due(now=0.0)) == [((0,), "old")]
    merger.add(0, printed("new\n"), now=1.0)
    assert [one.piece for one in merger.rest()] == [ClearOutput(wait=False), TextLine("stdout", "new")]


@pytest.mark.parametrize("groupby", ["engine", "order", "type"])
def test_what_was_cleared_is_not_shown_at_the_end(groupby: str) -> None:
    chunks = [*printed("old\n"), ClearOutput(wait=True), *printed("new\n"), ClearOutput(wait=True)]
    assert shown_lines(arrange([(0, chunks)], groupby)) == [((0,), "new")]


# Output that may still change.


CLEARED = ClearOutput(wait=False)


def line(text: str, *engines: int) -> Shown:
    return Shown(engines or (0,), TextLine("stdout", text))


def named(text: str, *, update: bool = False, image: str = "") -> Shown:
    data = {"text/plain": text, **({"image/svg+xml": image} if image else {})}
    return Shown((0,), Display(data, {}, {"display_id": "x"}, update))


def texts(pieces: list[Shown]) -> list[str]:
    return [str(getattr(one.piece, "text", "") or getattr(one.piece, "data", {}).get("text/plain")) for one in pieces]


def cleared(*engines: int) -> Shown:
    piece: Piece = CLEARED
    return Shown(engines, piece)


def test_what_engines_clear_goes_and_what_others_gave_stays() -> None:
    visible = VisibleOutput()
    visible.add([line("both", 0, 1), line("mine", 0), cleared(0), line("new", 0)])
    assert [(one.engines, one.piece.text) for one in visible] == [((1,), "both"), ((0,), "new")]  # type: ignore[union-attr]


def test_a_display_is_updated_in_its_place() -> None:
    visible = VisibleOutput()
    visible.add([named("old"), line("after"), named("new", update=True)])
    assert texts(visible.take()) == ["new", "after"]
    assert len(visible) == 0


def test_what_an_engine_gives_after_it_has_cleared_may_change() -> None:
    changing = ChangingOutput()
    first = line("before", 0)
    assert changing.part([first, cleared(0), line("step", 0), line("other", 1)]) == (
        [first, line("other", 1)],
        [cleared(0), line("step", 0)],
    )
    assert changing.part([line("next", 0)]) == ([], [line("next", 0)])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Iterable[list[Shown]]], str]:
    """Shows pieces at a terminal, step by step; what stays there when the drawing has been taken away."""

    def left(steps: Iterable[list[Shown]]) -> str:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("NO_COLOR", "1")
        screen = TerminalScreen(live=True, folder=tmp_path)
        for step in steps:
            screen.show(step)
            screen.status({}, None)
        screen.close()
        return terminal.getvalue().rpartition("\x1b[2K")[2]

    return left


def test_streams_stay_as_they_are_while_something_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    before = sys.stderr
    screen = TerminalScreen(live=True)
    screen.status({0: "10%"}, None)
    assert (sys.stdout, sys.stderr) == (terminal, before)
    screen.close()


def test_of_what_changes_at_a_terminal_the_last_state_stays(left: Callable[[Iterable[list[Shown]]], str]) -> None:
    steps = [[cleared(0), line(f"step {n}"), named(f"state {n}")] for n in range(3)]
    assert left(steps).splitlines() == ["[0] step 2", "[0] state 2"]
    assert left([[named("old")], [named("new", update=True)]]).splitlines() == ["[0] new"]


def test_a_figure_that_is_drawn_again_is_saved_in_its_place(
    left: Callable[[Iterable[list[Shown]]], str], tmp_path: Path
) -> None:
    said = left([[named("figure", update=n > 0, image=f"<svg>{n}</svg>")] for n in range(3)])
    (path,) = tmp_path.iterdir()
    assert path.read_text() == "<svg>2</svg>"
    assert f"[0] figure saved as {path}" in said.replace("\n", "")


# Text as a terminal shows it.


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


def frames(editor: LineEditor, *texts: str) -> list[str]:
    """Return the unfinished text after each of the texts, none of which finishes a line."""
    seen = []
    for text in texts:
        assert editor.feed(text) == []
        seen.append(editor.unfinished)
    return seen


def test_two_bars_that_take_turns_are_drawn_over_each_other() -> None:
    editor = LineEditor()
    shown = frames(editor, "\ra  0%", "\n\rb  0%\x1b[A", "\n\rb 50%\x1b[A", "\ra 50%", "\n\rb 99%\x1b[A")
    assert shown == ["a  0%", "a  0%\nb  0%", "a  0%\nb 50%", "a 50%\nb 50%", "a 50%\nb 99%"]
    assert editor.take() == ["a 50%", "b 99%"]


def test_a_drawing_of_several_lines_is_finished_when_the_cursor_is_shown_again() -> None:
    editor = LineEditor()
    frame = "\r\x1b[2K\x1b[1A\x1b[2Ka {0}%\nb {0}%"
    assert frames(editor, "\x1b[?25l", "a 1%\nb 1%", frame.format(2)) == ["", "a 1%\nb 1%", "a 2%\nb 2%"]
    assert editor.feed(frame.format(3) + "\n\x1b[?25h") == ["a 3%", "b 3%"]
    assert editor.unfinished == ""
    assert editor.feed("after\n") == ["after"]


def test_lines_above_a_drawing_come_out() -> None:
    editor = LineEditor()
    editor.feed("a 1%\n\rb 1%\x1b[A")
    assert editor.feed("\n\ndone\n") == ["a 1%", "b 1%"]
    assert editor.take() == ["done"]


def test_a_bar_is_told_from_a_line_that_has_only_begun() -> None:
    editor = LineEditor()
    editor.feed("begun")
    assert not editor.redraws
    editor.feed("\r10%")
    assert editor.redraws


def test_a_line_without_end_is_bounded() -> None:
    editor = LineEditor()
    for _ in range(3):
        editor.feed("x" * LINE_LIMIT)
    assert len(editor.unfinished) == LINE_LIMIT
