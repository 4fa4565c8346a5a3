"""What the commands have in common: which cluster, what scripts read, and how failures are told."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from nsactors.core.targets import Targets, targets_from_text
from nsactors.errors import NsactorsError

if TYPE_CHECKING:
    from nsactors.client import Client
    from nsactors.transport.registry import ClusterRecord

__all__ = [
    "INTERRUPTED",
    "TARGETS",
    "PlainErrors",
    "attached",
    "cluster_argument",
    "cluster_option",
    "json_option",
    "print_json",
    "print_table",
    "targets_option",
    "the_cluster",
]

INTERRUPTED = 130  # what shells give a command that was ended by Ctrl-C

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class PlainErrors(click.Group):
    """A group whose commands end with status 1 and one plain message where nsactors raises an error."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(context)
        except NsactorsError as error:
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


def the_cluster(name: str | None) -> ClusterRecord:
    """The cluster of this name, or the only one.

    Raises:
        ClusterNotFound: if there is no such cluster, or no name and several clusters.
    """
    from nsactors.transport.registry import Registry

    return Registry().find(name)


@contextmanager
def attached(name: str | None, purpose: str) -> Iterator[Client]:
    """A client of a cluster, for one command.

    Args:
        name: of the cluster; None for the only one, and the path of a connection file will do, too.
        purpose: the command, which the cluster's history names with its user.
    """
    from nsactors.client import Client

    with Client(name, f"{getpass.getuser()} ({purpose})") as client:
        yield client


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
