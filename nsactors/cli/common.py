"""Options, error texts and output that all subcommands share."""

from __future__ import annotations

import functools
import getpass
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import decode_source
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsactors.errors import (
    ClusterNotFound,
    ClusterStopped,
    ClusterUnreachable,
    ConnectionLost,
    NoEngines,
    NoSuchEngine,
    NsactorsError,
    NsactorsWarning,
    TargetError,
    as_text,
)
from nsactors.protocol.targets import Targets, targets_from_text
from nsactors.transport.registry import CLUSTER_VARIABLE

if TYPE_CHECKING:
    from nsactors.client import Client
    from nsactors.errors import EngineStartError
    from nsactors.transport.registry import ClusterRecord, Registry

INTERRUPTED = 130  # the status that shells give a command that Ctrl-C has ended

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class PlainErrors(click.Group):
    """A group whose commands print an error of nsactors as one plain message, and end with status 1."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command that the user named."""
        try:
            with plain_warnings():
                return super().invoke(context)
        except BrokenPipeError:  # the reader of the output has ended: click exits without a message then
            raise
        except (NsactorsError, OSError) as error:
            raise click.ClickException(in_words(error)) from error


def in_words(error: Exception, *, starts_at: str | None = None) -> str:
    """Return the message of an error; for a file that cannot be used, its path and the reason.

    Args:
        error: the error.
        starts_at: the address of the Ray cluster that the user chose for the engines; None if the user chose none.
    """
    if isinstance(error, ClusterUnreachable) and starts_at:
        return (
            f"no Ray cluster answers at {error.address}: {error.reason}. Check that it runs, and its address; "
            "without --address the cluster starts its own Ray"
        )
    if isinstance(error, ClusterNotFound):
        return advice_at_a_shell(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print warnings of nsactors without the line of code that issued them, inside the ``with`` block."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, NsactorsWarning):
                click.echo(f"Warning: {message}", err=True)
            else:
                usual(message, category, *where, **more)

        warnings.showwarning = show
        yield


@contextmanager
def plain_refusals() -> Iterator[None]:
    """Report a ValueError or TypeError as a mistake in the user's arguments, inside the ``with`` block."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise click.ClickException(str(error)) from error


class FiniteRange(click.FloatRange):
    """A finite number in a range. Click's own type accepts ``inf``, and ``nan`` in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail with a usage error."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class _TargetsType(click.ParamType[Targets]):
    name = "engines"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Targets:
        try:
            return targets_from_text(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


TARGETS = _TargetsType()

json_option: Decorator = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
targets_option: Decorator = click.option(
    "-t",
    "--targets",
    type=TARGETS,
    default="all",
    show_default=True,
    metavar="ENGINES",
    help="The engines: 3, 0,2 or ::2 or all.",
)
cluster_option: Decorator = click.option(
    "-c",
    "--cluster",
    "name",
    envvar=CLUSTER_VARIABLE,
    show_envvar=True,
    metavar="NAME",
    help="The name of the cluster; needed if several run.",
)


def cluster_argument_or_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take the cluster's name as an argument or as ``--cluster NAME``."""

    @functools.wraps(command)
    def called(*args: Any, name: str | None, option: str | None, **kwargs: Any) -> Any:
        if name and option and name != option:
            raise click.UsageError(f"one cluster at a time: {name!r} or {option!r}")
        return command(*args, name=name or option or os.environ.get(CLUSTER_VARIABLE) or None, **kwargs)

    with_option = click.option("-c", "--cluster", "option", metavar="NAME", hidden=True)(called)
    with_argument: Callable[..., Any] = click.argument("name", required=False)(with_option)
    return with_argument


def checked(check: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """Return a callback that checks an option's value before the command runs; its ValueError is a usage error."""

    def callback(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        try:
            if value is not None and value != parameter.default:
                check(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
        return value

    return callback


def the_cluster(name: str | None) -> ClusterRecord:
    """Return the record of the cluster of this name, or of the only one.

    Raises:
        ClusterNotFound: if there is no such cluster, or no name and several clusters.
    """
    from nsactors.transport.registry import Registry

    return Registry().find(name)


def job_folder(registry: Registry, name: str) -> Path:
    """Return the default folder of a batch job's files."""
    return registry.folder.parent / "jobs" / name


@contextmanager
def attached(name: str | None, purpose: str) -> Iterator[Client]:
    """Connect a client to a cluster for the duration of one command.

    Args:
        name: the cluster's name, or the path of a connection file; None for the only cluster.
        purpose: the command; the cluster's history shows it next to the user's name.
    """
    from nsactors.client import Client

    try:
        with Client(name, f"{getpass.getuser()} ({purpose})") as client:
            _leave_problems_to_status(client)
            try:
                yield client
            finally:
                _leave_problems_to_status(client)
    except (ConnectionLost, TargetError) as error:
        raise click.ClickException(advice_at_a_shell(error, name)) from error


def _leave_problems_to_status(client: Client) -> None:
    """Keep a command from reporting engines that failed to start: `add` has reported them, and `status` shows them."""
    client.session.unretrieved.heard(map(str, client.session.directory.take_problems()))


def without_place(client: Client) -> dict[int, EngineStartError]:
    """Map each engine that has no place to the error that gives the reason and a remedy at a shell."""
    return {
        engine_id: obstacle.with_advice(
            f"It starts when there is a place; `nsactors engines remove {engine_id}` cancels it"
        )
        for engine_id, obstacle in client.session.directory.waiting.items()
    }


def advice_at_a_shell(error: NsactorsError, name: str | None = None) -> str:
    """Return an error's message with advice for a shell in place of advice for Python programs.

    Args:
        error: the error.
        name: the cluster's name as the user typed it.
    """
    match error:
        case ClusterNotFound():
            context = click.get_current_context()
            command = " ".join(filter(None, [context.command_path, context.invoked_subcommand]))
            return error.message(lambda chosen: f"`{command} -c {chosen}`")
        case ClusterStopped():
            return "the cluster has stopped: `nsactors start` starts another one"
        case ClusterUnreachable(address=address, reason=reason):
            named = name or _the_only_one()
            return (
                f"no cluster answers at {address}: {reason}. `nsactors logs{named and f' {named}'}` may say why, and "
                f"`nsactors stop{named and f' {named}'}` ends its remaining processes"
            )
        case NoSuchEngine(ids=(), engine_id=engine_id):
            return f"there is no engine {engine_id}, nor any other: `nsactors engines add N` starts some"
        case NoEngines(hint=None, targets=None):
            return "there are no engines: `nsactors engines add N` starts some"
    return str(error)


def _the_only_one() -> str:
    from nsactors.transport.registry import Registry

    records = Registry().records()
    return records[0].name if len(records) == 1 else ""


def source_of(file: Any) -> str:
    """Return the text of a binary file, read as Python reads source: UTF-8, unless its first lines name another."""
    try:
        return decode_source(file.read())
    except (SyntaxError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{file.name} cannot be read as Python: {error}") from None


def print_json(value: Any) -> None:
    """Print a value as JSON, for scripts."""
    click.echo(json.dumps(value, indent=2))


def print_rich(value: Any) -> None:
    """Print a value that rich can show; in a pipe, lines may have 200 columns."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, markup=False)
    console.print(value, width=None if console.is_terminal else 200, soft_wrap=False)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table for people; in a pipe, lines may have 200 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(*headings, box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for row in rows:
        table.add_row(*(as_text(str(cell)) for cell in row))
    print_rich(table)
