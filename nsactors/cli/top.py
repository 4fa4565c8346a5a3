"""``nsactors top``: who runs what where, live."""

from __future__ import annotations

import click

from nsactors.cli.common import attached, cluster_option

__all__ = ["top"]


@click.command()
@cluster_option
@click.option(
    "--seconds", type=click.FloatRange(min=0), help="Stop after so long; the default is to go on until Ctrl-C."
)
def top(name: str | None, seconds: float | None) -> None:
    """Show what each engine runs, for whom, and what it takes, until Ctrl-C.

    Below 100 columns nodes, clients and last errors are left out. CPU is in percent of one core.
    """
    with attached(name, "top") as client:
        client.watch(seconds)
