"""Running and judging the demo's steps, without engines."""

import contextlib
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from nsactors.cli.demo import STEPS, Check, DemoStep, StepOutcome, judge, make_console, run_demo, run_step, shorten


def run(code: str, *checks: Check, raises: str = "", names: dict[str, Any] | None = None) -> StepOutcome:
    return run_step(DemoStep("Try", code, checks, raises=raises), {} if names is None else names)


def test_a_right_answer_passes() -> None:
    outcome = run("a = 5", Check("a", "2 + 3"))
    assert [(v.expected, v.got) for v in outcome.verdicts] == [("5", "5")]
    assert outcome.passed


def test_a_wrong_answer_fails_the_step_and_leaves_it_whole() -> None:
    outcome = run("a = 5", Check("a", "5"), Check("a", "6", "the answer"))
    assert [verdict.passed for verdict in outcome.verdicts] == [True, False]
    assert outcome.verdicts[1].what == "the answer"
    assert not outcome.passed
    assert not outcome.broken


@pytest.mark.parametrize(("got", "expected"), [("1", "True"), ("1", "1.0"), ("[1]", "(1,)"), ("'1'", "1")])
def test_an_equal_value_of_another_type_is_wrong(got: str, expected: str) -> None:
    assert not judge(Check(got, expected), {}).passed


def test_a_check_that_cannot_be_evaluated_does_not_hold() -> None:
    verdict = judge(Check("missing", "1"), {})
    assert not verdict.passed
    assert verdict.got == "NameError: name 'missing' is not defined"


def test_steps_share_their_names() -> None:
    names: dict[str, Any] = {}
    run("a = 5", names=names)
    assert run("b = a + 1", Check("b", "6"), names=names).passed


def test_the_value_is_that_of_the_last_expression() -> None:
    assert run("1\n2").value == 2
    assert run("1\na = 2").value is None


def test_output_is_captured(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("import sys\nprint('out')\nprint('err', file=sys.stderr)").output == "out\nerr\n"
    assert capsys.readouterr() == ("", "")


def test_the_exception_that_was_expected_can_be_checked() -> None:
    outcome = run("{}['k']", Check("error.args", "('k',)"), raises="KeyError")
    assert [verdict.what for verdict in outcome.verdicts] == ["raised", "error.args"]
    assert outcome.passed


@pytest.mark.parametrize(("code", "raises"), [("1/0", ""), ("1/0", "KeyError"), ("pass", "KeyError")])
def test_a_step_that_ends_otherwise_than_it_should_is_wrong_and_broken(code: str, raises: str) -> None:
    outcome = run(code, raises=raises)
    assert not outcome.passed
    assert outcome.broken


def test_an_interrupt_is_not_taken_for_an_answer() -> None:
    with pytest.raises(KeyboardInterrupt):
        run("raise KeyboardInterrupt")


def test_each_statement_is_announced_before_it_runs() -> None:
    seen: list[str] = []
    names: dict[str, Any] = {"seen": seen}
    run_step(DemoStep("Try", "\nfirst = len(seen)\nif True:\n    second = len(seen)\n"), names, announce=seen.append)
    assert seen == ["first = len(seen)", "if True:"]
    assert (names["first"], names["second"]) == (1, 2)


def test_time_is_that_of_the_code_alone() -> None:
    times = iter([10.0, 12.5])
    assert run_step(DemoStep("Try", "pass"), {}, clock=lambda: next(times)).seconds == 2.5


# What the demo draws, and how it ends, without engines.


COLUMNS = 80
RIGHT = DemoStep("Add", "total = 1 + 1\ntotal", (Check("total", "2"),), "A remark.")
WRONG = DemoStep("Subtract", "total = 1 - 1", (Check("total", "1"),))
BROKEN = DemoStep("Divide", "1 / 0")


def show(*steps: DemoStep, terminal: bool = False) -> tuple[bool, str]:
    """Run the demo; return whether all answers were right, and the drawn text."""
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
    table = DemoStep("Tell", "\n1\n\n{1: ('two', 'three')}\n", columns=("one", "two", "three"))
    _, text = show(RIGHT, table)
    assert [line for line in text.splitlines() if line != line.rstrip()] == []


def test_a_value_is_drawn_as_a_table_where_there_are_headings() -> None:
    _, text = show(DemoStep("Tell", "{0: ('a', 1), 1: 'b'}", columns=("engine", "first", "second")))
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

    start = DemoStep("Start", "import builtins\ncluster = builtins.fake_cluster()")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.fake_cluster", FakeCluster, raising=False)
        try:
            show(start, DemoStep("Go on", raised))
        except KeyboardInterrupt:
            assert raised != "pass"
    assert stopped == [True]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_code_fits_into_80_columns_and_is_python(step: DemoStep) -> None:
    compile(step.code, step.title, "exec")
    assert max(map(len, step.code.splitlines())) <= COLUMNS - 2
    assert len(step.remark) <= COLUMNS


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_every_step_checks_something(step: DemoStep) -> None:
    assert step.checks
    for check in step.checks:
        compile(check.got, "got", "eval")
        compile(check.expected, "expected", "eval")


@given(st.text(), st.integers(10, 100))
def test_a_shortened_text_fits_and_keeps_both_ends(text: str, columns: int) -> None:
    short = shorten(text, columns)
    assert len(short) <= columns
    assert short == text or (text.startswith(short[:2]) and text.endswith(short[-2:]) and " ... " in short)
