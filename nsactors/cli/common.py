"""What the commands have in common: which cluster, what scripts read, and how failures are told."""

from __future__ import annotations

import getpass
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsactors.core.targets import Targets, targets_from_text
from nsactors.errors import (
    ClusterStopped,
    ClusterUnreachable,
    ConnectionLost,
    NoEngines,
    NoSuchEngine,
    NsactorsError,
    NsactorsWarning,
    TargetError,
)

if TYPE_CHECKING:
    from nsactors.client import Client
    from nsactors.errors import EngineStartError
    from nsactors.transport.registry import ClusterRecord, Registry

__all__ = [
    "INTERRUPTED",
    "TARGETS",
    "PlainErrors",
    "advice_at_a_shell",
    "attached",
    "checked",
    "cluster_argument",
    "cluster_option",
    "in_words",
    "job_folder",
    "json_option",
    "plain_refusals",
    "plain_warnings",
    "print_json",
    "print_table",
    "targets_option",
    "the_cluster",
    "without_place",
]

INTERRUPTED = 130  # what shells give a command that was ended by Ctrl-C

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class PlainErrors(click.Group):
    """A group whose commands end with status 1 and one plain message where nsactors raises an error."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            with plain_warnings():
                return super().invoke(context)
        except BrokenPipeError:  # nobody reads what is printed any more, of which click says nothing
            raise
        except (NsactorsError, OSError) as error:
            raise click.ClickException(in_words(error)) from error


def in_words(error: Exception) -> str:
    """What an error says to people; of a file that cannot be used, which one and why."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Meanwhile warnings of nsactors are told as they are, without the line of code that gave them."""
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
    """Meanwhile a ValueError or TypeError is about what was typed, and told in a sentence."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise click.ClickException(str(error)) from error


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
    help="Which engines: 3, 0,2 or ::2 or all.",
)
cluster_argument: Decorator = click.argument("name", required=False, envvar="NSACTORS_CLUSTER")
cluster_option: Decorator = click.option(
    "-c",
    "--cluster",
    "name",
    envvar="NSACTORS_CLUSTER",
    show_envvar=True,
    metavar="NAME",
    help="Which cluster; needed if several run.",
)


def checked(check: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """A callback for what people type is refused before anything is done."""

    def callback(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        try:
            if value:
                check(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
        return value

    return callback


def the_cluster(name: str | None) -> ClusterRecord:
    """The cluster of this name, or the only one.

    Raises:
        ClusterNotFound: if there is no such cluster, or no name and several clusters.
    """
    from nsactors.transport.registry import Registry

    return Registry().find(name)


def job_folder(registry: Registry, name: str) -> Path:
    """Where the files of a batch job are, if its user has not said where."""
    return registry.folder.parent / "jobs" / name


@contextmanager
def attached(name: str | None, purpose: str) -> Iterator[Client]:
    """A client of a cluster, for one command.

    Args:
        name: of the cluster; None for the only one, and the path of a connection file will do, too.
        purpose: the command, which the cluster's history names with its user.
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
    """Do not tell at the end of each command which engines could not start: who asked for them knows by now."""
    client.session.ledger.heard(map(str, client.session.roster.take_problems()))


def without_place(client: Client) -> dict[int, EngineStartError]:
    """The engines that have no place, by id: why, and what can be done about it where commands are typed."""
    return {
        engine_id: obstacle.with_advice(
            f"It starts when it has one; `nsactors engines remove {engine_id}` takes it back"
        )
        for engine_id, obstacle in client.session.roster.waiting.items()
    }


def advice_at_a_shell(error: NsactorsError, name: str | None = None) -> str:
    """What an error says where commands are typed, if its own advice is what Python programs can do.

    Args:
        error: which.
        name: of the cluster, as it was typed.
    """
    match error:
        case ClusterStopped():
            return "the cluster has stopped: `nsactors start` starts another one"
        case ClusterUnreachable(address=address, reason=reason):
            named = name or _the_only_one()
            return (
                f"no cluster answers at {address}: {reason}. `nsactors logs{named and f' {named}'}` may say why, and "
                f"`nsactors stop{named and f' {named}'}` ends what is left of it"
            )
        case NoSuchEngine(ids=(), engine_id=engine_id):
            return f"there is no engine {engine_id}, nor any other: `nsactors engines add N` starts some"
        case NoEngines(hint=None):
            return "there are no engines: `nsactors engines add N` starts some"
    return str(error)


def _the_only_one() -> str:
    from nsactors.transport.registry import Registry

    records = Registry().records()
    return records[0].name if len(records) == 1 else ""


def print_json(value: Any) -> None:
    """Print a value for scripts."""
    click.echo(json.dumps(value, indent=2))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table for people; in a pipe as wide as it is."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(*headings, box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for row in rows:
        table.add_row(*map(str, row))
    console = Console(file=sys.stdout, highlight=False, markup=False)
    console.print(table, width=None if console.is_terminal else 200, soft_wrap=False)
