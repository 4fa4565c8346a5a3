"""The ``nsactors`` command.

::

    common    options, error texts and output that all subcommands share
    command   the command and its subcommands; each imports most modules when it is called, so that ``--help`` is
              quick
    clusters  subcommands for clusters in the background and their engines
    execute   subcommands that run code on engines: ``run``, ``exec``, ``console`` and ``kernel``
    launch    ``nsactors launch``: clusters by a batch system, and on Ray's own cluster launcher
    serving   the process that owns a cluster in the background: starting, waiting while it is used, stopping
    doctor    ``nsactors doctor``: faults of this machine, and their remedies
    demo      ``nsactors demo``: a tour on real input that checks each of its answers

"""

from nsactors.cli.command import main

__all__ = ["main"]
