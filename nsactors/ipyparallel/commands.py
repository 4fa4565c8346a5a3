"""``ipcluster``, ``ipcontroller`` and ``ipengine``, as commands of nsactors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["PROGRAMS", "Command", "command_for", "nsactors_command", "run"]

PROGRAMS = ("ipcluster", "ipcontroller", "ipengine")

# Flags of ipyparallel's programs. All others have no effect here: they are reported and left out.
_NUMBER = ("-n", "--n", "--IPClusterEngines.n", "--Cluster.n")
_NAME = ("--cluster-id", "--Cluster.cluster_id", "--IPController.cluster_id")
_ENGINES = ("--engines", "--Cluster.engine_launcher_class", "--IPClusterEngines.engine_launcher_class")
_TAKES_A_VALUE = {
    "--controller",
    "--delay",
    "--enginessh",
    "--file",
    "--ip",
    "--ipython-dir",
    "--location",
    "--log-level",
    "--log-to-file",
    "--log-url",
    "--mpi",
    "--ping",
    "--port",
    "--ports",
    "--profile",
    "--profile-dir",
    "--scheme",
    "--ssh",
    "--sshkey",
    "--startup-delay",
    "--timeout",
    "--url",
    "--usethreads",
    "--work-dir",
    "-c",
}
_BATCH = ("slurm", "pbs", "sge", "lsf")


class Command(NamedTuple):
    """A command of nsactors, and the original flags that have no effect."""

    words: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def command_for(program: str, arguments: Sequence[str]) -> Command:
    """Return the command of nsactors that is equivalent to one of ipyparallel's.

    Args:
        program: ``ipcluster``, ``ipcontroller`` or ``ipengine``.
        arguments: the arguments that the user typed.

    Raises:
        ValueError: if there is no such subcommand, or no equivalent for its engine launcher.
    """
    given, positional, left_out = _parsed(arguments)
    subcommand = positional[0] if positional else "start"
    name, count = _first(given, _NAME), _first(given, _NUMBER)
    cluster = [] if name is None else ["--cluster", name]
    if program == "ipengine":
        return Command(("engines", *cluster, "add", "1"), left_out)
    if program == "ipcontroller":
        return Command(("start", "-n", "0", "--foreground", *_named(name)), left_out)
    match subcommand:
        case "start":
            numbered = [] if count is None else ["-n", count]
            kind = (_first(given, _ENGINES) or "local").lower()
            if kind in _BATCH:
                nodes = [] if count is None else ["--engines-per-node", count]
                return Command(("launch", kind, *nodes, *_named(name)), left_out)
            if kind in ("ssh", "sshproxy"):
                raise ValueError("engines by ssh are: nsactors start --hosts HOST:N,HOST:N")
            if kind not in ("local", "mpi"):
                raise ValueError(f"there is no command that starts engines by {kind}: see nsactors launch --help")
            stays = [] if "--daemonize" in given else ["--foreground"]
            return Command(("start", *numbered, *_named(name), *stays), left_out)
        case "engines":
            return Command(("engines", *cluster, "add", count or "1"), left_out)
        case "stop":
            return Command(("stop", *([] if name is None else [name])), left_out)
        case "list" | "clean":  # `nsactors list` also cleans up after dead clusters
            return Command(("list",), left_out)
    raise ValueError(f"ipcluster has no command {subcommand!r}: it has start, stop, engines, list and clean")


def run(program: str, arguments: Sequence[str]) -> int:
    """Print and run the equivalent of one of ipyparallel's commands; return its exit status."""
    try:
        command = command_for(program, arguments)
    except ValueError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    for flag in command.left_out:
        print(f"{program}: {flag} does nothing here", file=sys.stderr)
    print(f"{program}: this is `nsactors {' '.join(command.words)}`", file=sys.stderr)
    return subprocess.call(nsactors_command(*command.words))


def nsactors_command(*words: str) -> list[str]:
    """Return the ``nsactors`` command with arguments, run by this interpreter, for :mod:`subprocess`."""
    return [sys.executable, "-c", "from nsactors.cli import main; main()", *words]


def _parsed(arguments: Sequence[str]) -> tuple[dict[str, str], list[str], tuple[str, ...]]:
    """Return flags with their values, other words, and flags without effect."""
    known = {*_NUMBER, *_NAME, *_ENGINES}
    given: dict[str, str] = {}
    positional: list[str] = []
    left_out: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        if not word.startswith("-"):
            positional.append(word)
        elif flag in known:
            given[flag] = value if equals or not words else words.pop(0)
        elif flag == "--daemonize":
            if value.lower() != "false":
                given[flag] = ""
        else:
            if flag in _TAKES_A_VALUE and not equals and words:
                words.pop(0)
            left_out.append(flag)
    return given, positional, tuple(left_out)


def _first(given: dict[str, str], flags: Sequence[str]) -> str | None:
    return next((given[flag] for flag in flags if given.get(flag)), None)


def _named(name: str | None) -> list[str]:
    return [] if name is None else ["--name", name]
