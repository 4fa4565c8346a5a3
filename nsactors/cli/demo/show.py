"""The demo itself: show a step, run it, show what came of it, and so on."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from nsactors.cli.demo.drawing import draw_heading, draw_outcome, draw_step, draw_summary
from nsactors.cli.demo.running import Outcome, run_step
from nsactors.cli.demo.script import Step
from nsactors.cluster.resources import available_cores

__all__ = ["make_console", "run_demo"]


def make_console() -> Console:
    """Standard output; what it cannot encode is replaced rather than an error."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    # Named, or rich would look it up at each write, and find what captures a step's output.
    return Console(file=sys.stdout, highlight=False)


def run_demo(steps: Sequence[Step], console: Console, clock: Callable[[], float] = time.perf_counter) -> bool:
    """Show and run the steps in one namespace; whether every check held.

    A step that ends otherwise than it should is the last one. A cluster that the steps bind to ``cluster`` is stopped.
    """
    begin = clock()
    # Functions typed at a prompt belong to __main__, and travel by value for that.
    names: dict[str, Any] = {"__name__": "__main__"}
    outcomes: list[Outcome] = []
    console.print(draw_heading(available_cores()))
    try:
        for number, step in enumerate(steps, 1):
            console.print(draw_step(step, number, len(steps)))
            outcome = _run(step, names, f"<step {number}>", console)
            outcomes.append(outcome)
            console.print(draw_outcome(outcome, console.width))
            if outcome.broken:
                break
    finally:
        if "cluster" in names:
            names["cluster"].stop_cluster_sync()
    console.print(draw_summary(outcomes, len(steps), clock() - begin))
    return all(outcome.passed for outcome in outcomes)


def _run(step: Step, names: dict[str, Any], filename: str, console: Console) -> Outcome:
    columns = (SpinnerColumn(), TextColumn("{task.description}", style="dim", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("")

        def announce(statement: str) -> None:
            progress.update(task, description=statement)

        return run_step(step, names, filename=filename, announce=announce)
