"""The command and its subcommands; each imports most modules when it is called, so that ``--help`` is quick."""

import click

from nsactors._version import __version__
from nsactors.cli.clusters import engines, interrupt, list_clusters, logs, stack, start, status, stop, top
from nsactors.cli.common import PlainErrors
from nsactors.cli.doctor import doctor
from nsactors.cli.execute import console, execute, kernel, run
from nsactors.cli.launch import launch


@click.group(cls=PlainErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nsactors")
def main() -> None:
    """Interactive parallel computing in Python on Ray.

    An engine is a process with a namespace of its own that stays alive between your calls. At a Python prompt,
    `from nsactors import Cluster` starts engines, and you call one, several or all of them. With `nsactors start`
    engines stay in the background, and any of your programs connects to them: from nsactors import Client; rc =
    Client().

    To see nsactors at work on this machine, run: nsactors demo

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
    kernel,
    top,
    stack,
    doctor,
    launch,
):
    main.add_command(_command)


@main.command()
@click.pass_context
def demo(context: click.Context) -> None:
    """Show nsactors at work, and check every answer.

    Starts four engines on this machine, runs code in their namespaces, moves data, counts the words of Python's own
    sources, makes engines fail, kills one, and stops the rest. The code on the screen is the code that runs, and each
    answer is compared with one known beforehand or computed without engines.

    Takes less than a minute and changes nothing on this machine. Exits with status 1 if an answer is wrong.
    """
    from nsactors.cli.demo import STEPS, make_console, run_demo

    context.exit(0 if run_demo(STEPS, make_console()) else 1)
