"""Running a step as though it were typed at a prompt, and judging it."""

import ast
import contextlib
import io
import linecache
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nsactors.cli.demo.script import Check, Step

__all__ = ["Outcome", "Verdict", "judge", "run_step"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A check, and what came of it; ``expected`` and ``got`` are texts for the reader."""

    what: str
    expected: str
    got: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a step.

    Attributes:
        step: the step.
        output: what it printed.
        value: the value of its last expression; None without one.
        error: what it raised, if anything.
        verdicts: one for each check, after one for ``error`` if there was one or should have been.
        seconds: how long the code took, without the checks.
    """

    step: Step
    output: str
    value: object
    error: Exception | None
    verdicts: tuple[Verdict, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(verdict.passed for verdict in self.verdicts)

    @property
    def broken(self) -> bool:
        """Whether it ended otherwise than it should, so that later steps lack its names."""
        return _raised(self.error) != self.step.raises


def run_step(
    step: Step,
    names: dict[str, Any],
    *,
    filename: str = "<demo>",
    announce: Callable[[str], object] = lambda statement: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Run a step's code in ``names``, then its checks. What the code raises is part of the outcome.

    Args:
        step: what to run.
        names: the namespace that all steps share; what the step raised is bound there to ``error``.
        filename: the name of the code in tracebacks.
        announce: called with the first line of each statement before it runs.
        clock: gives seconds.
    """
    value: object = None
    error: Exception | None = None
    printed = io.StringIO()
    begin = clock()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            value = _run(step.code.strip("\n"), names, filename, announce)
        except Exception as raised:
            error = raised
    seconds = clock() - begin
    names["error"] = error
    verdicts = [judge(check, names) for check in step.checks]
    if error is not None or step.raises:
        verdicts.insert(0, _judge_error(step, error))
    return Outcome(step, printed.getvalue(), value, error, tuple(verdicts), seconds)


def judge(check: Check, names: dict[str, Any]) -> Verdict:
    """Evaluate both sides of a check and compare them. One that cannot be evaluated does not hold."""
    what = check.what or check.got
    try:
        got, expected = eval(check.got, names), eval(check.expected, names)
    except Exception as error:
        return Verdict(what, check.expected, f"{type(error).__name__}: {error}", passed=False)
    return Verdict(what, repr(expected), repr(got), type(got) is type(expected) and got == expected)


def _judge_error(step: Step, error: Exception | None) -> Verdict:
    got = _raised(error)
    return Verdict("raised", step.raises or "nothing", got or "nothing", got == step.raises)


def _raised(error: Exception | None) -> str:
    return "" if error is None else type(error).__name__


def _run(source: str, names: dict[str, Any], filename: str, announce: Callable[[str], object]) -> object:
    """Run statement by statement; the value of the last one, if it is an expression."""
    # Tracebacks look up source lines here, also those of functions that travel.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    value: object = None
    for statement in ast.parse(source, filename).body:
        announce(source.splitlines()[statement.lineno - 1])
        if isinstance(statement, ast.Expr):
            value = eval(compile(ast.Expression(statement.value), filename, "eval"), names)
        else:
            value = None
            exec(compile(ast.Module([statement], []), filename, "exec"), names)
    return value
