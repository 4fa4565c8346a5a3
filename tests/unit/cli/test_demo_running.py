"""Running and judging the demo's steps, without engines."""

from typing import Any

import pytest

from nsactors.cli.demo.running import Outcome, judge, run_step
from nsactors.cli.demo.script import Check, Step


def run(code: str, *checks: Check, raises: str = "", names: dict[str, Any] | None = None) -> Outcome:
    return run_step(Step("Try", code, checks, raises=raises), {} if names is None else names)


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
    run_step(Step("Try", "\nfirst = len(seen)\nif True:\n    second = len(seen)\n"), names, announce=seen.append)
    assert seen == ["first = len(seen)", "if True:"]
    assert (names["first"], names["second"]) == (1, 2)


def test_time_is_that_of_the_code_alone() -> None:
    times = iter([10.0, 12.5])
    assert run_step(Step("Try", "pass"), {}, clock=lambda: next(times)).seconds == 2.5
