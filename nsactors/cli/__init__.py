"""The ``nsactors`` command.

``command`` reads what is typed and knows the subcommands; ``common`` is what these share.

    clusters    start, stop, list, status, logs          engines     engines, interrupt
    running     run, exec                                console     a prompt whose cells go to the engines
    top         a live table                             doctor      what is wrong on this machine
    launch      clusters on other machines               demo        what it all does

A cluster in the background is owned by a process of its own, which does what ``serving`` says; ``detaching`` starts and
ends that.
"""

from nsactors.cli.command import main

__all__ = ["main"]
