"""``run`` and ``exec``: code on engines, with its output here and its failure as exit status."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from nsactors.cli.common import INTERRUPTED, attached, cluster_option, targets_option
from nsactors.core.targets import Targets

if TYPE_CHECKING:
    from nsactors.results import AsyncResult
    from nsactors.views.direct import DirectView

__all__ = ["execute", "exit_status", "run"]

PROGRESS_AFTER_S = 2.0


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@cluster_option
@targets_option
@click.option("--timeout", type=float, metavar="SECONDS", help="Interrupt it after so long.")
@click.argument("script", type=click.File())
@click.argument("arguments", nargs=-1)
@click.pass_context
def run(
    context: click.Context,
    name: str | None,
    targets: Targets,
    timeout: float | None,
    script: Any,
    arguments: tuple[str, ...],
) -> None:
    """Run SCRIPT of this machine on engines, with ARGUMENTS in its sys.argv; - is standard input.

    It runs in their namespaces, and what it binds stays there. What it prints comes as it is printed, with the engines
    in front. Exits with the status that the script has exited with, the highest if they differ, and 1 if it has failed.
    Ctrl-C interrupts it.
    """
    source = script.read() + "\n"
    with attached(name, "run") as client:
        view = client.direct_view(targets)
        view.apply(_set_arguments, [script.name, *arguments])
        context.exit(_execute(view, source, label=f"run {script.name}", silent=True, timeout=timeout))


@click.command("exec")
@cluster_option
@targets_option
@click.option("--timeout", type=float, metavar="SECONDS", help="Interrupt it after so long.")
@click.argument("code")
@click.pass_context
def execute(context: click.Context, name: str | None, targets: Targets, timeout: float | None, code: str) -> None:
    """Run CODE on engines, as at a prompt: nsactors exec "import os; os.getpid()"."""
    with attached(name, "exec") as client:
        context.exit(_execute(client.direct_view(targets), code, label="exec", silent=False, timeout=timeout))


def exit_status(errors: list[BaseException]) -> int:
    """What a command exits with whose engines have failed like this.

    Args:
        errors: of the engines that have failed.
    """
    return max((_status(error) for error in errors), default=0)


def _execute(view: DirectView, code: str, *, label: str, silent: bool, timeout: float | None) -> int:
    from nsactors.results.live import LiveOutput, open_screen
    from nsactors.results.waiting import wait_or_interrupt

    result = view.execute(code, silent=silent, block=False, label=label, timeout=timeout)
    live = LiveOutput(result.calls, open_screen(blocking=True), label=label, progress_after_s=PROGRESS_AFTER_S)
    try:
        wait_or_interrupt(live.wait, result.calls, view.client.session, None)
    except KeyboardInterrupt as left:
        for note in getattr(left, "__notes__", ()):
            click.echo(note, err=True)
        return INTERRUPTED
    return _tell(result)


def _tell(result: AsyncResult) -> int:
    from nsactors.errors import CompositeError, render_text

    try:
        result.get()
    except CompositeError as error:
        failed: list[BaseException] = list(error.exceptions)
        shown: Exception = error
    except Exception as error:
        failed, shown = [error], error
    else:
        return 0
    if any(_is_failure(error) for error in failed):
        click.echo(render_text(shown, color=sys.stderr.isatty()), err=True)
    return exit_status(failed)


def _status(error: BaseException) -> int:
    match _name(error), getattr(error, "original", None):
        case "SystemExit", SystemExit(code=None | 0 | False):
            return 0
        case "SystemExit", SystemExit(code=int(code)):
            return code & 0xFF or 1
        case "KeyboardInterrupt", _:
            return INTERRUPTED
    return 1


def _is_failure(error: BaseException) -> bool:
    """Whether there is something to tell: a script that exits with a number has said what it had to say."""
    original = getattr(error, "original", None)
    return not (isinstance(original, SystemExit) and isinstance(original.code, int | None))


def _name(error: BaseException) -> str:
    return getattr(error, "ename", type(error).__name__)


def _set_arguments(arguments: list[str]) -> None:
    import sys

    sys.argv[:] = arguments
