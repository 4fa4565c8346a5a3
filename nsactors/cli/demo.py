"""``nsactors demo``: a tour on real input that checks each of its answers."""

import ast
import contextlib
import io
import linecache
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.pretty import Pretty
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.rule import Rule
from rich.segment import Segment
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from nsactors._frozen import frozen
from nsactors._version import __version__
from nsactors.errors import draw, plural
from nsactors.system.resources import available_cores

if TYPE_CHECKING:
    from rich.console import RenderableType


@frozen
class Check:
    """A condition that must hold after a step.

    Attributes:
        got: a Python expression over the names of the demo; ``error`` is the exception that the step raised.
        expected: a Python expression that must have the same value and type.
        what: the name of the check in the output; if empty, ``got``.
    """

    got: str
    expected: str
    what: str = ""


@frozen
class DemoStep:
    """A few lines of code, and the checks that must pass after them.

    Attributes:
        title: the heading.
        code: Python code, run exactly as it is shown, in one namespace for all steps.
        checks: the checks to make after the code.
        remark: a sentence for the reader.
        raises: the name of the exception class that the code must raise; empty if none.
        columns: headings of a table; if given, the value of the code's last expression is a dictionary of its rows.
    """

    title: str
    code: str
    checks: tuple[Check, ...] = ()
    remark: str = ""
    raises: str = ""
    columns: tuple[str, ...] = ()


_PROMPT = (
    DemoStep(
        "Start four engines",
        """
from nsactors import Cluster

cluster = Cluster(n=4)
cluster.start_cluster_sync()           # Ray and the controller
rc = cluster.start_and_connect_sync()  # the engines
rc
""",
        (Check("rc.ids", "[0, 1, 2, 3]"),),
        "An engine is a process that owns a namespace. rc, the client, drives them all.",
    ),
    DemoStep(
        "Who is connected",
        """
import os, platform

def who():
    return os.getpid(), platform.node(), platform.python_version()

engines = rc[:].apply_async(who).get_dict()
engines
""",
        (
            Check(
                "len({pid for pid, *_ in engines.values()} | {os.getpid()})", "5", "different processes, this one too"
            ),
            Check(
                "{version for *_, version in engines.values()}",
                "{platform.python_version()}",
                "the engines' Python is the one here",
            ),
        ),
        "Functions typed at the prompt travel to the engines by value.",
        columns=("engine", "pid", "host", "python"),
    ),
    DemoStep(
        "A statement on all engines",
        """
rc[:].execute("import math; a = 5", block=True)
rc["a"]
""",
        (Check('rc["a"]', "[5, 5, 5, 5]"),),
    ),
    DemoStep(
        "Another on some of them",
        """
result = rc[[0, 1]].execute("c = a*math.pi; print(c)")
result.display_outputs()
""",
        (Check("result.stdout", r"['15.707963267948966\n', '15.707963267948966\n']", "printed on engines 0 and 1"),),
        "Names stay between calls, and output comes back to the prompt.",
    ),
    DemoStep(
        "The others have no such name",
        """
rc[2:].execute("print(c)", block=True)
""",
        (
            Check("[e.engine_id for e in error.exceptions]", "[2, 3]", "failed on engines"),
            Check(
                "[isinstance(e, NameError) for e in error.exceptions]", "[True, True]", "each is a NameError here too"
            ),
        ),
        "Equal failures of several engines are shown once.",
        raises="CompositeError",
    ),
    DemoStep(
        "A function on every engine",
        """
sums = rc[:].apply_sync(lambda: sum(x**4 for x in range(1000)))
sums
""",
        (Check("sums", "[199500333333300] * 4"),),
    ),
)

_DATA = (
    DemoStep(
        "Push and pull",
        """
thing = {"none": None, "text": "π", "nested": [1, (2.5, {3})]}
rc["thing"] = thing
rc[0].push({"b": 10}, block=True)
rc[0].pull(["b", "a + b", "thing['nested']"], block=True)
""",
        (
            Check('rc["thing"]', "[thing] * 4", "came back unchanged from every engine"),
            Check('rc[0]["a + b"]', "15"),
        ),
        "Values go to one engine or to all; what is pulled may be an expression.",
    ),
    DemoStep(
        "Scatter and gather",
        """
rc[:].scatter("xdata", range(64), block=True)
rc[:].execute("ydata = [x**10 for x in xdata]", block=True)
ydata = rc[:].gather("ydata", block=True)
ydata[:6]
""",
        (
            Check("ydata", "[x**10 for x in range(64)]", "equals the serial answer"),
            Check("ydata[-1]", "984930291881790849"),
            Check('[len(part) for part in rc["xdata"]]', "[16, 16, 16, 16]", "items on each engine"),
        ),
    ),
    DemoStep(
        "Map a function over a million numbers",
        """
powers = rc[:].map_sync(lambda x: x**10, range(10**6))
len(powers)
""",
        (
            Check("powers[-1]", "999990000044999880000209999748000209999880000044999990000001"),
            Check("sum(powers)", "90908590909924242424241424242424243424242424241924242424242500000"),
        ),
    ),
    DemoStep(
        "Count the words of Python's standard library",
        r"""
import re, sysconfig, time
from collections import Counter
from pathlib import Path
from nsactors import Reference

def count_words(files):
    counts = Counter()
    for file in files:
        text = Path(file).read_text(encoding="utf-8", errors="replace")
        counts.update(re.findall(r"\w+", text))
    return counts

library = Path(sysconfig.get_paths()["stdlib"])
files = [str(file) for file in sorted(library.rglob("*.py"))
         if not {"site-packages", "dist-packages"} & {*file.parts}]

begin = time.perf_counter()
rc[:].scatter("files", files, dist="r", block=True)  # dealt out in turn
words = Counter()
for part in rc[:].apply_async(count_words, Reference("files")):
    words.update(part)
middle = time.perf_counter()
serial = count_words(files)
end = time.perf_counter()

print(len(files), "files,", words.total(), "words:", words.most_common(3))
{"4 engines": f"{middle - begin:.2f}", "one process": f"{end - middle:.2f}"}
""",
        (
            Check("sorted(words.items())", "sorted(serial.items())", "equals the serial answer"),
            Check("words.total() > 100_000", "True", "more than 100,000 words"),
        ),
        "Each engine reads its share. The serial count finds the files in memory.",
        columns=("counted by", "seconds"),
    ),
)

_FAILURES = (
    DemoStep(
        "Three engines fail alike",
        """
rc[:].scatter("divisor", [2, 0, 0, 0], flatten=True, block=True)

def divide():
    return 10 / divisor

rc[:].apply_sync(divide)
""",
        (
            Check("[e.engine_id for e in error.exceptions]", "[1, 2, 3]", "failed on engines"),
            Check("len(error.groups)", "1", "kinds of failure shown"),
            Check(
                "[isinstance(e, ZeroDivisionError) for e in error.exceptions]",
                "[True] * 3",
                "each is the built-in error",
            ),
        ),
        "The function sees the engine's names.",
        raises="CompositeError",
    ),
    DemoStep(
        "An engine is killed while it works",
        """
import signal

others = rc[:3].apply_async(lambda: sum(range(10**7)))
busy = rc[3].execute("import time; print('at work'); time.sleep(60)")
while not busy.stdout:  # output arrives as it is printed
    busy.wait(0.05)
pid, *_ = engines[3]
os.kill(pid, signal.SIGKILL)
busy.get()
""",
        (
            Check("error.engine_id", "3", "the engine named by the error"),
            Check("rc.ids", "[0, 1, 2, 3]", "engine 3 stays one of four"),
        ),
        "The call that engine 3 was running fails at once, and the error says why.",
        raises="EngineLost",
    ),
    DemoStep(
        "The other engines go on",
        """
print(others.get())
rc[:3].apply_async(who).get_dict()
""",
        (
            Check("others.get()", "[49999995000000] * 3", "what they were computing at that time"),
            Check("rc[:3].apply_async(who).get_dict()", "{i: engines[i] for i in (0, 1, 2)}", "the same processes"),
            Check('rc[:3]["a"]', "[5, 5, 5]", "their names are still there"),
        ),
        columns=("engine", "pid", "host", "python"),
    ),
    DemoStep(
        "Engine 3 has a new process",
        """
print("the process that was killed:", pid)
rc[[3]].apply_async(who).get_dict()
""",
        (
            Check("rc[3].apply_sync(who)[0] != pid", "True", "another process than before"),
            Check("rc[3].apply_sync(lambda: 'a' in globals())", "False", "the name a is there"),
        ),
        "Its namespace is empty: Cluster(n=4, recovery='replay') would restore it.",
        columns=("engine", "pid", "host", "python"),
    ),
)

STEPS = (*_PROMPT, *_DATA, *_FAILURES)
"""All steps, in order; each uses names that earlier ones have bound."""


@frozen
class CheckResult:
    """The result of a check; ``expected`` and ``got`` are texts for the reader."""

    what: str
    expected: str
    got: str
    passed: bool


@frozen
class StepOutcome:
    """The outcome of a step.

    Attributes:
        step: the step.
        output: the text that it printed.
        value: the value of its last expression; None without one.
        error: the exception that it raised; None without one.
        verdicts: one for each check; before them one for ``error``, if the step raised or should have raised.
        seconds: the duration of the code, without the checks.
    """

    step: DemoStep
    output: str
    value: object
    error: Exception | None
    verdicts: tuple[CheckResult, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """True if every check passed."""
        return all(verdict.passed for verdict in self.verdicts)

    @property
    def broken(self) -> bool:
        """True if the step raised a wrong exception or lacked the right one, so that later steps lack its names."""
        return _raised(self.error) != self.step.raises


def run_step(
    step: DemoStep,
    names: dict[str, Any],
    *,
    filename: str = "<demo>",
    announce: Callable[[str], object] = lambda statement: None,
    clock: Callable[[], float] = time.perf_counter,
) -> StepOutcome:
    """Run a step's code in ``names``, then its checks. An exception of the code is part of the outcome.

    Args:
        step: the step.
        names: the namespace that all steps share; the exception that the step raised is bound there to ``error``.
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
    return StepOutcome(step, printed.getvalue(), value, error, tuple(verdicts), seconds)


def judge(check: Check, names: dict[str, Any]) -> CheckResult:
    """Evaluate both sides of a check and compare them. A check that cannot be evaluated fails."""
    what = check.what or check.got
    try:
        got, expected = eval(check.got, names), eval(check.expected, names)
    except Exception as error:
        return CheckResult(what, check.expected, f"{type(error).__name__}: {error}", passed=False)
    return CheckResult(what, repr(expected), repr(got), type(got) is type(expected) and got == expected)


def _judge_error(step: DemoStep, error: Exception | None) -> CheckResult:
    got = _raised(error)
    return CheckResult("raised", step.raises or "nothing", got or "nothing", got == step.raises)


def _raised(error: Exception | None) -> str:
    return "" if error is None else type(error).__name__


def _run(source: str, names: dict[str, Any], filename: str, announce: Callable[[str], object]) -> object:
    """Run code statement by statement; return the value of the last statement if it is an expression."""
    # Tracebacks look up source lines here, also lines of functions that are sent to engines.
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


_INDENT = 2
_EXPECTED, _GOT = "\n  expected ", "\n  got      "


def draw_heading(cores: int) -> "RenderableType":
    """Draw the heading of the demo, with the versions and the number of cores."""
    about = f" {__version__}, Python {platform.python_version()}, {cores} {plural('core', cores)}"
    title = Text.assemble(("nsactors", "bold cyan"), about)
    return Group(title, Text("The code that you see is run, and every answer is checked.", style="italic"), Text())


def draw_step(step: DemoStep, number: int, total: int) -> "RenderableType":
    """Draw a step before it runs: title, remark, code."""
    title = Rule(Text.assemble((f"{number}/{total} ", "dim"), (step.title, "bold")), align="left", style="cyan")
    remark = [Text(step.remark, style="italic"), Text()] if step.remark else []
    # Take only the colours of Syntax: its block is padded with spaces up to the right edge.
    code = Syntax("", "python", theme="ansi_dark", background_color="default").highlight(step.code.strip("\n"))
    code.rstrip()
    return Group(title, *remark, _TextBlock(code))


def draw_outcome(outcome: StepOutcome, width: int) -> "RenderableType":
    """Draw the outcome of a step, in ``width`` columns: output, value, error, and the checks."""
    parts: list[RenderableType] = []
    if outcome.output:
        parts.append(Text.from_ansi(outcome.output.rstrip("\n")))
    if outcome.step.columns and isinstance(outcome.value, Mapping):
        parts.append(_table(outcome.step.columns, outcome.value))
    elif outcome.value is not None:
        parts.append(Pretty(outcome.value, max_length=8, max_string=200))
    if outcome.error is not None:
        parts.append(draw(outcome.error, width=width - _INDENT))
    return Group(*map(_TextBlock, parts), *(_verdict(verdict, width) for verdict in outcome.verdicts), Text())


def draw_summary(outcomes: Sequence[StepOutcome], total: int, seconds: float) -> "RenderableType":
    """Draw the result of each step that ran, and whether all ``total`` steps passed."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("step")
    table.add_column("checks", justify="right")
    table.add_column("seconds", justify="right")
    for outcome in outcomes:
        held = sum(verdict.passed for verdict in outcome.verdicts)
        mark = Text.assemble(_mark(outcome.passed), " ", outcome.step.title)
        table.add_row(mark, f"{held} of {len(outcome.verdicts)}", f"{outcome.seconds:.2f}")
    title = Rule(Text("Summary", style="bold"), align="left", style="cyan")
    return Group(title, table, Text(), _last_line(outcomes, total, seconds))


def shorten(text: str, columns: int) -> str:
    """Cut the middle out of a text that is longer than ``columns``."""
    if len(text) <= columns:
        return text
    gap = " ... "
    tail = (columns - len(gap)) // 2
    return f"{text[: columns - len(gap) - tail]}{gap}{text[len(text) - tail :]}"


class _TextBlock:
    """An indented block with an empty line below; unlike rich's ``Padding`` it adds no spaces at line ends."""

    def __init__(self, part: "RenderableType") -> None:
        self._part = part

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        inner = options.update_width(options.max_width - _INDENT)
        for line in console.render_lines(self._part, inner, pad=False):
            if any(segment.text.strip() for segment in line):
                yield from (Segment(" " * _INDENT), *line)
            yield Segment.line()
        yield Segment.line()


def _table(columns: Sequence[str], rows: Mapping[object, object]) -> Table:
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for key, value in rows.items():
        cells = (key, *value) if isinstance(value, tuple) else (key, value)
        table.add_row(*(Text(str(cell)) for cell in cells))
    return table


def _verdict(verdict: CheckResult, width: int) -> Text:
    head = Text.assemble(_mark(verdict.passed), " ", (verdict.what, "bold"))
    line = Text.assemble(head, f": expected {verdict.expected}, got ", (verdict.got, _colour(verdict.passed)))
    if line.cell_len <= width and "\n" not in line.plain:
        return line
    room = width - len(_GOT)
    expected, got = shorten(verdict.expected, room), shorten(verdict.got, room)
    return Text.assemble(head, _EXPECTED, expected, _GOT, (got, _colour(verdict.passed)))


def _mark(passed: bool) -> tuple[str, str]:
    # The word is for terminals whose encoding lacks the sign.
    return ("✓" if passed else "✗ WRONG", _colour(passed))


def _colour(passed: bool) -> str:
    return "green" if passed else "bold red"


def _last_line(outcomes: Sequence[StepOutcome], total: int, seconds: float) -> Text:
    took = f"{seconds:.1f} s in all, start and stop included"
    wrong = sum(not verdict.passed for outcome in outcomes for verdict in outcome.verdicts)
    if wrong:
        missing = f", and {total - len(outcomes)} of {total} steps did not run" if len(outcomes) < total else ""
        return Text(f"{wrong} wrong{missing}; {took}", style="bold red")
    return Text(f"Every answer is right; {took}", style="bold green")


def make_console() -> Console:
    """Return a console on standard output that replaces characters which it cannot encode."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    # Without `file`, rich looks up sys.stdout at each write, and would find the buffer that captures a step's output.
    return Console(file=sys.stdout, highlight=False)


def run_demo(steps: Sequence[DemoStep], console: Console, clock: Callable[[], float] = time.perf_counter) -> bool:
    """Show and run the steps in one namespace; return whether every check passed.

    A step that is ``broken`` is the last one. A cluster that the steps bind to ``cluster`` is stopped.
    """
    begin = clock()
    # Functions typed at a prompt belong to __main__, and so are pickled by value.
    names: dict[str, Any] = {"__name__": "__main__"}
    outcomes: list[StepOutcome] = []
    console.print(draw_heading(available_cores()))
    try:
        for number, step in enumerate(steps, 1):
            console.print(draw_step(step, number, len(steps)))
            outcome = _run_step(step, names, f"<step {number}>", console)
            outcomes.append(outcome)
            console.print(draw_outcome(outcome, console.width))
            if outcome.broken:
                break
    finally:
        if "cluster" in names:
            names["cluster"].stop_cluster_sync()
    console.print(draw_summary(outcomes, len(steps), clock() - begin))
    return all(outcome.passed for outcome in outcomes)


def _run_step(step: DemoStep, names: dict[str, Any], filename: str, console: Console) -> StepOutcome:
    columns = (SpinnerColumn(), TextColumn("{task.description}", style="dim", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("")

        def announce(statement: str) -> None:
            progress.update(task, description=statement)

        return run_step(step, names, filename=filename, announce=announce)
