"""What the demo draws, and how it ends, without engines."""

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from nsactors.cli.demo import STEPS, make_console, run_demo
from nsactors.cli.demo.drawing import shorten
from nsactors.cli.demo.script import Check, Step

COLUMNS = 80
RIGHT = Step("Add", "total = 1 + 1\ntotal", (Check("total", "2"),), "A remark.")
WRONG = Step("Subtract", "total = 1 - 1", (Check("total", "1"),))
BROKEN = Step("Divide", "1 / 0")


def show(*steps: Step, terminal: bool = False) -> tuple[bool, str]:
    """Whether all was right, and what was drawn."""
    console = Console(file=io.StringIO(), width=COLUMNS, force_terminal=terminal, highlight=False, legacy_windows=False)
    right = run_demo(steps, console)
    assert isinstance(console.file, io.StringIO)
    return right, console.file.getvalue()


def test_a_step_shows_its_code_its_value_and_its_check() -> None:
    right, text = show(RIGHT)
    assert right
    for part in ("1/1 Add", "A remark.", "  total = 1 + 1\n  total\n\n  2\n\n✓ total: expected 2, got 2", "1 of 1"):
        assert part in text


def test_a_wrong_answer_is_marked_and_the_demo_goes_on() -> None:
    right, text = show(WRONG, RIGHT)
    assert not right
    assert "✗ WRONG total: expected 1, got 0" in text
    assert "2/2 Add" in text
    assert "1 wrong; " in text


def test_a_step_that_breaks_is_the_last_one() -> None:
    right, text = show(BROKEN, RIGHT)
    assert not right
    assert "✗ WRONG raised: expected nothing, got ZeroDivisionError" in text
    assert "2/2 Add" not in text
    assert "1 wrong, and 1 of 2 steps did not run; " in text


def test_a_pipe_gets_neither_colours_nor_spinner() -> None:
    _, text = show(RIGHT, WRONG)
    assert "\x1b" not in text
    assert "\r" not in text
    assert "0:00:00" not in text


def test_a_pipe_gets_no_spaces_at_line_ends() -> None:
    table = Step("Tell", "\n1\n\n{1: ('two', 'three')}\n", columns=("one", "two", "three"))
    _, text = show(RIGHT, table)
    assert [line for line in text.splitlines() if line != line.rstrip()] == []


def test_a_value_is_drawn_as_a_table_where_there_are_headings() -> None:
    _, text = show(Step("Tell", "{0: ('a', 1), 1: 'b'}", columns=("engine", "first", "second")))
    cells = [line.split() for line in text.splitlines()]
    assert ["engine", "first", "second"] in cells
    assert ["0", "a", "1"] in cells
    assert ["1", "b"] in cells


def test_drawing_goes_past_what_captures_a_steps_output(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.StringIO()
    monkeypatch.setattr("sys.stdout", stdout)
    console = make_console()
    with contextlib.redirect_stdout(io.StringIO()) as captured:
        console.print("drawn")
    assert (stdout.getvalue(), captured.getvalue()) == ("drawn\n", "")


def test_a_sign_that_cannot_be_encoded_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    assert not run_demo([WRONG], make_console())
    assert b"? WRONG total: expected 1, got 0" in raw.getvalue()


def test_a_terminal_gets_colours() -> None:
    _, text = show(RIGHT, terminal=True)
    assert "\x1b[32m✓" in text


@pytest.mark.parametrize("raised", ["pass", "raise KeyboardInterrupt"])
def test_the_cluster_is_stopped_however_the_demo_ends(raised: str) -> None:
    stopped: list[bool] = []

    class FakeCluster:
        def stop_cluster_sync(self) -> None:
            stopped.append(True)

    start = Step("Start", "import builtins\ncluster = builtins.fake_cluster()")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.fake_cluster", FakeCluster, raising=False)
        try:
            show(start, Step("Go on", raised))
        except KeyboardInterrupt:
            assert raised != "pass"
    assert stopped == [True]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_code_fits_into_80_columns_and_is_python(step: Step) -> None:
    compile(step.code, step.title, "exec")
    assert max(map(len, step.code.splitlines())) <= COLUMNS - 2
    assert len(step.remark) <= COLUMNS


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_every_step_checks_something(step: Step) -> None:
    assert step.checks
    for check in step.checks:
        compile(check.got, "got", "eval")
        compile(check.expected, "expected", "eval")


@given(st.text(), st.integers(10, 100))
def test_a_shortened_text_fits_and_keeps_both_ends(text: str, columns: int) -> None:
    short = shorten(text, columns)
    assert len(short) <= columns
    assert short == text or (text.startswith(short[:2]) and text.endswith(short[-2:]) and " ... " in short)
