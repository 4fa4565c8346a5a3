"""Drawing steps and what came of them with rich, for terminals and for pipes."""

import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.pretty import Pretty
from rich.rule import Rule
from rich.segment import Segment
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from nsactors import __version__
from nsactors.cli.demo.running import Outcome, Verdict
from nsactors.cli.demo.script import Step
from nsactors.errors import draw

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["draw_heading", "draw_outcome", "draw_step", "draw_summary", "shorten"]

_INDENT = 2
_EXPECTED, _GOT = "\n  expected ", "\n  got      "


def draw_heading(cores: int) -> "RenderableType":
    """Draw what the reader is looking at, on a machine with ``cores`` cores."""
    about = f" {__version__}, Python {platform.python_version()}, {cores} core{'s' * (cores != 1)}"
    title = Text.assemble(("nsactors", "bold cyan"), about)
    return Group(title, Text("What you see is what is run, and every answer is checked.", style="italic"), Text())


def draw_step(step: Step, number: int, total: int) -> "RenderableType":
    """Draw what is about to run: title, remark, code."""
    title = Rule(Text.assemble((f"{number}/{total} ", "dim"), (step.title, "bold")), align="left", style="cyan")
    remark = [Text(step.remark, style="italic"), Text()] if step.remark else []
    # Only the colours of Syntax: its block is padded with spaces up to the right edge.
    code = Syntax("", "python", theme="ansi_dark", background_color="default").highlight(step.code.strip("\n"))
    code.rstrip()
    return Group(title, *remark, _Block(code))


def draw_outcome(outcome: Outcome, width: int) -> "RenderableType":
    """Draw what came of a step, in ``width`` columns: output, value, error, and the checks."""
    parts: list[RenderableType] = []
    if outcome.output:
        parts.append(Text.from_ansi(outcome.output.rstrip("\n")))
    if outcome.step.columns and isinstance(outcome.value, Mapping):
        parts.append(_table(outcome.step.columns, outcome.value))
    elif outcome.value is not None:
        parts.append(Pretty(outcome.value, max_length=8, max_string=200))
    if outcome.error is not None:
        parts.append(draw(outcome.error, width=width - _INDENT))
    return Group(*map(_Block, parts), *(_verdict(verdict, width) for verdict in outcome.verdicts), Text())


def draw_summary(outcomes: Sequence[Outcome], total: int, seconds: float) -> "RenderableType":
    """Draw one line for each step that ran, and whether all ``total`` of them went as they should."""
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


class _Block:
    """Something indented, with an empty line below; unlike rich's ``Padding`` it adds no spaces at line ends."""

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


def _verdict(verdict: Verdict, width: int) -> Text:
    head = Text.assemble(_mark(verdict.passed), " ", (verdict.what, "bold"))
    line = Text.assemble(head, f": expected {verdict.expected}, got ", (verdict.got, _colour(verdict.passed)))
    if line.cell_len <= width and "\n" not in line.plain:
        return line
    room = width - len(_GOT)
    expected, got = shorten(verdict.expected, room), shorten(verdict.got, room)
    return Text.assemble(head, _EXPECTED, expected, _GOT, (got, _colour(verdict.passed)))


def _mark(passed: bool) -> tuple[str, str]:
    # With a word, for where the sign cannot be encoded.
    return ("✓" if passed else "✗ WRONG", _colour(passed))


def _colour(passed: bool) -> str:
    return "green" if passed else "bold red"


def _last_line(outcomes: Sequence[Outcome], total: int, seconds: float) -> Text:
    took = f"{seconds:.1f} s in all, start and stop included"
    wrong = sum(not verdict.passed for outcome in outcomes for verdict in outcome.verdicts)
    if wrong:
        missing = f", and {total - len(outcomes)} of {total} steps did not run" if len(outcomes) < total else ""
        return Text(f"{wrong} wrong{missing}; {took}", style="bold red")
    return Text(f"Every answer is right; {took}", style="bold green")
