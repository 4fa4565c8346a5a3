"""The command and its subcommands; each imports what it needs when it is called, so that ``--help`` is quick."""

import click

from nsactors import __version__
from nsactors.cli.clusters import list_clusters, logs, start, status, stop
from nsactors.cli.common import PlainErrors
from nsactors.cli.console import console
from nsactors.cli.doctor import doctor
from nsactors.cli.engines import engines, interrupt
from nsactors.cli.launch import launch
from nsactors.cli.running import execute, run
from nsactors.cli.top import top

__all__ = ["main"]


@click.group(cls=PlainErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nsactors")
def main() -> None:
    """Interactive parallel computing in Python on Ray.

    An engine is a process with a namespace of its own that stays alive between your calls. From a Python prompt, with
    `from nsactors import Cluster`, you start some and drive one, several or all of them. With `nsactors start` they
    stay in the background, and `from nsactors import Client` gets at them from any of your programs: rc = Client().

    To see it work on this machine, run: nsactors demo

    Exits with status 0 if all went well, 1 if something failed, 2 if it was called wrongly.
    """


for _command in (
    start,
    stop,
    list_clusters,
    status,
    logs,
    engines,
    interrupt,
    run,
    execute,
    console,
    top,
    doctor,
    launch,
):
    main.add_command(_command)


@main.command()
@click.pass_context
def demo(context: click.Context) -> None:
    """Show what nsactors does, and check every answer.

    Starts four engines on this machine, runs code in their namespaces, moves data, counts the words of Python's own
    sources, makes engines fail, kills one, and stops the rest. What is shown is what is run, and each answer is
    compared with one known beforehand or computed without engines.

    Takes less than a minute and changes nothing on this machine. Exits with status 1 if an answer is wrong.
    """
    from nsactors.cli.demo import STEPS, make_console, run_demo

    context.exit(0 if run_demo(STEPS, make_console()) else 1)
