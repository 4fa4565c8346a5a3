"""What several engines print alike is shown once."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.core.messages import ClearOutput, Display, ExecuteResult, StreamText
from nsactors.results.live.grouping import LAST_LINES, Merger, Shown, TextLine, arrange, engine_label


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
    assert merger.statuses == {0: "20%"}
    assert merger.due(now=9.0) == []
    merger.end(0, now=9.0)
    assert merger.statuses == {}
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
