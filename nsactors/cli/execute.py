"""Subcommands that run code on engines: ``run``, ``exec``, ``console`` and ``kernel``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from nsactors.cli.common import (
    INTERRUPTED,
    FiniteRange,
    attached,
    cluster_argument_or_option,
    cluster_option,
    source_of,
    targets_option,
    the_cluster,
)
from nsactors.protocol.targets import Targets
from nsactors.transport.registry import Registry

if TYPE_CHECKING:
    from nsactors.client import Client
    from nsactors.results import AsyncResult
    from nsactors.views.direct import DirectView

PROGRESS_AFTER_S = 2.0


@click.command(
    short_help="Run a script on engines.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@cluster_option
@targets_option
@click.option("--timeout", type=FiniteRange(min=0), metavar="SECONDS", help="Interrupt the script after this time.")
@click.argument("script", type=click.File("rb"))
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
    """Run SCRIPT, a file of this machine, on engines, with ARGUMENTS in its sys.argv; - is standard input.

    The script runs in the engines' namespaces, and the names that it binds stay there. Its output is shown as it is
    printed, labelled with the engines. Exits with the script's exit status (the highest, if engines differ), or with 1
    if it raises an error. Ctrl-C interrupts the script.
    """
    source = source_of(script) + "\n"
    _find_modules_in(os.getcwd() if script.name == "<stdin>" else os.path.dirname(os.path.abspath(script.name)))
    with attached(name, "run") as client:
        view = client.direct_view(targets)
        view.apply(_set_arguments, [script.name, *arguments])
        context.exit(_execute(view, source, label=f"run {script.name}", silent=True, timeout=timeout))


@click.command("exec", short_help="Run code on engines, as at a prompt.")
@cluster_option
@targets_option
@click.option("--timeout", type=FiniteRange(min=0), metavar="SECONDS", help="Interrupt the code after this time.")
@click.argument("words", nargs=-1, required=True, metavar="CODE")
@click.pass_context
def execute(
    context: click.Context, name: str | None, targets: Targets, timeout: float | None, words: tuple[str, ...]
) -> None:
    """Run CODE on engines, as at a prompt: nsactors exec "import os; os.getpid()"."""
    name, code = _name_and_code(name, words)
    _find_modules_in(os.getcwd())
    with attached(name, "exec") as client:
        context.exit(_execute(client.direct_view(targets), code, label="exec", silent=False, timeout=timeout))


def _name_and_code(name: str | None, words: tuple[str, ...]) -> tuple[str | None, str]:
    """Return the cluster's name and the code; other commands take the name as an argument, so it may be the first."""
    match words:
        case (code,):
            return name, code
        case (first, code) if first in {record.name for record in Registry().records()}:
            source = click.get_current_context().get_parameter_source("name")
            if source is ParameterSource.COMMANDLINE and name != first:
                raise click.UsageError(f"one cluster at a time: {name!r} or {first!r}")
            return first, code
    raise click.UsageError("CODE is one argument: put it in quotes. A cluster is named with -c NAME")


def _find_modules_in(folder: str) -> None:
    """Let engines import modules from the folder that Python itself would search for the same script or code."""
    # Engines import the modules that this client process can import.
    sys.path.insert(0, folder)


def exit_status(errors: list[BaseException]) -> int:
    """Return the exit status of a command whose engines have failed with ``errors``."""
    return max((_status(error) for error in errors), default=0)


def _execute(view: DirectView, code: str, *, label: str, silent: bool, timeout: float | None) -> int:
    from nsactors.results.display.live import LiveOutput, open_screen
    from nsactors.results.interrupting import wait_or_interrupt

    result = view.execute(code, silent=silent, block=False, label=label, timeout=timeout)
    live = LiveOutput(result.calls, open_screen(blocking=True), label=label, progress_after_s=PROGRESS_AFTER_S)
    try:
        wait_or_interrupt(live.wait, result.calls, view.client.session, None, progress=False)
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
    """Return whether an error should be shown; a script that calls ``sys.exit`` with a number shows its own errors."""
    original = getattr(error, "original", None)
    return not (isinstance(original, SystemExit) and isinstance(original.code, int | None))


def _name(error: BaseException) -> str:
    return getattr(error, "ename", type(error).__name__)


def _set_arguments(arguments: list[str]) -> None:
    import sys

    sys.argv[:] = arguments


@click.command(short_help="Make an engine a kernel of Jupyter.")
@cluster_argument_or_option
@click.option("--engine", type=click.IntRange(0), required=True, help="The engine's id.")
def kernel(name: str | None, engine: int) -> None:
    """Make an engine a kernel of Jupyter, and print the command that opens a console there.

    Cells from Jupyter run on the engine, in turn with those of other clients. The kernel stays until its engine leaves,
    or until a program of Jupyter shuts the kernel down, which does not end the engine.
    """
    from nsactors.cluster.kernels import bind_kernel

    with attached(name, "kernel") as client:
        client.wait_for_engines()
        bound = bind_kernel(client[engine])
    click.echo(f"jupyter console --existing {bound.connection_file}")


BANNER = """\
{cluster}: {engines}
Cells run on {where}. %pn 0 x = 5 runs on one engine; %autopx runs cells here, and a second %autopx on engines again;
`rc` is the client here. TAB completes names of the engines, name? describes them; Ctrl-D leaves, engines stay.
"""


@click.command(short_help="Open a prompt whose cells run on engines.")
@cluster_argument_or_option
@targets_option
def console(name: str | None, targets: Targets) -> None:
    """Open an IPython prompt whose cells run on the engines of a cluster.

    The prompt has IPython's history and completion. Output is shown as it is printed, labelled with the engines. Other
    programs can use the same engines at the same time. Leaving the prompt leaves the engines as they are.
    """
    with attached(name, "console") as client:
        _run(client, Path(name).stem if name else the_cluster(None).name, targets)


def banner(cluster: str, ids: Sequence[int], targets: Targets) -> str:
    """Return the text above the first prompt.

    Args:
        cluster: the cluster's name.
        ids: the ids of its engines.
        targets: the engines that cells run on.

    Raises:
        TargetError: if the cluster has no such engines.
    """
    from nsactors.errors import engine_ranges
    from nsactors.protocol.targets import resolve

    there = engine_ranges(ids) if ids else "there is no engine yet, and `nsactors engines add N` starts some"
    where = "all of them" if targets == "all" else engine_ranges(resolve(targets, ids))
    return BANNER.format(cluster=cluster, engines=there, where=where)


def _run(client: Client, cluster: str, targets: Targets) -> None:
    from IPython.terminal.ipapp import TerminalIPythonApp
    from traitlets.config import Config

    from nsactors.client.prompt import join_prompt
    from nsactors.magics import load

    client.wait_for_engines()
    config = Config()
    config.TerminalInteractiveShell.banner1 = banner(cluster, client.ids, targets)
    config.TerminalInteractiveShell.confirm_exit = False
    app: Any = TerminalIPythonApp.instance(config=config, user_ns={"rc": client})
    app.initialize(argv=[])
    session = client.session  # the client has been made before there was a prompt
    leave_prompt = join_prompt(session.unretrieved, debug=session.debug_error)
    extension = load(app.shell)
    if targets != "all":
        extension.activate(client.direct_view(targets), "")
    extension.send_cells("px")
    app.shell.prompts = _prompts(app.shell, cluster, lambda: extension.sends_cells_by is not None)
    app.start()
    leave_prompt()


def _prompts(shell: Any, cluster: str, is_remote: Callable[[], bool]) -> Any:
    """Return prompts that show the cluster's name, or "here" while cells run in this process."""
    from IPython.terminal.prompts import Prompts

    class ClusterPrompts(Prompts):
        def in_prompt_tokens(self) -> Any:
            tokens: Any = super().in_prompt_tokens()  # type: ignore[no-untyped-call]
            return [(tokens[0][0], f"{cluster} " if is_remote() else "here "), *tokens]

    return ClusterPrompts(shell)
