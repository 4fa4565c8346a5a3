"""``nsactors doctor``: what is wrong on this machine, and how to mend it."""

from __future__ import annotations

import enum
import importlib.util
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import click

from nsactors.errors import bytes_in_words

__all__ = ["Finding", "Level", "doctor", "examine"]

# As long as paths of sockets get below the folder for temporary files; the system takes no more than 107 bytes.
SOCKET_TAIL = len("/nsa-4194304-abcdefgh/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
SOCKET_LIMIT = 107
LEAST_FILES = 4_096  # Ray keeps some 50 a process
LEAST_MEMORY = 1_000_000_000  # an idle Ray with four engines takes 0.6 GB
LEAST_SHARED = 256_000_000
LEAST_DISK = 1_000_000_000
LOCAL_HOSTS = ("127.0.0.1", "localhost")


class Level(enum.Enum):
    """How bad it is."""

    GOOD = "good"
    NOTE = "note"
    WRONG = "wrong"


class Finding(NamedTuple):
    """What was looked at, what was found, and what to do about it."""

    subject: str
    level: Level
    found: str
    advice: str = ""


def examine() -> Iterator[Finding]:
    """Look at everything that needs no cluster."""
    yield from packages()
    yield memory(_available_memory())
    yield shared_memory(_free(Path("/dev/shm")))
    yield temporary_folder(tempfile.gettempdir())
    yield open_files(_file_limit())
    yield loopback()
    yield from environment(os.environ)
    yield mpi()
    yield clusters()


def packages() -> Iterator[Finding]:
    """Python, Ray, and what travels between processes."""
    from nsactors.transport.versions import versions_here

    versions = versions_here()
    yield Finding("versions", Level.GOOD, ", ".join(f"{name} {version}" for name, version in versions.items()))
    if "ray" not in versions:
        yield Finding("ray", Level.WRONG, "is not installed", "pip install 'ray>=2.60,<3'")
    elif importlib.util.find_spec("ray") is None:
        yield Finding("ray", Level.WRONG, "is installed, but cannot be imported", "pip install --force-reinstall ray")


def memory(available: int | None) -> Finding:
    """Memory of this machine.

    Args:
        available: bytes; None if the system does not tell.
    """
    from nsactors.cluster.resources import available_cores

    cores = f"{available_cores()} cores"
    if available is None:
        return Finding("machine", Level.GOOD, cores)
    found = f"{cores}, {bytes_in_words(available)} of memory available"
    if available < LEAST_MEMORY:
        return Finding("machine", Level.NOTE, found, "close something; four idle engines and Ray take 0.6 GB")
    return Finding("machine", Level.GOOD, found)


def shared_memory(free: int | None) -> Finding:
    """Where the object store is.

    Args:
        free: bytes; None if there is no such place.
    """
    if free is None:
        return Finding("shared memory", Level.NOTE, "there is no /dev/shm", "large arrays will go through files")
    found = f"{bytes_in_words(free)} free in /dev/shm"
    if free < LEAST_SHARED:
        return Finding("shared memory", Level.WRONG, found, "in a container, start it with --shm-size=2g or more")
    return Finding("shared memory", Level.GOOD, found)


def temporary_folder(folder: str) -> Finding:
    """Where Ray keeps its sockets and logs."""
    subject = "temporary files"
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding(subject, Level.WRONG, f"{folder} cannot be written to", "set TMPDIR to a folder of yours")
    if len(folder.rstrip("/").encode()) + SOCKET_TAIL > SOCKET_LIMIT:
        found = f"{folder} is too long a path for sockets"
        return Finding(subject, Level.WRONG, found, "export TMPDIR=/tmp, or another short one")
    free = shutil.disk_usage(folder).free
    found = f"{bytes_in_words(free)} free in {folder}"
    if free < LEAST_DISK:
        return Finding(subject, Level.NOTE, found, "what does not fit into the object store goes there: make room")
    return Finding(subject, Level.GOOD, found)


def open_files(limit: int | None) -> Finding:
    """How many files a process may open; None if there is no such limit."""
    if limit is None:
        return Finding("open files", Level.GOOD, "no limit")
    if limit < LEAST_FILES:
        return Finding("open files", Level.NOTE, f"at most {limit} a process", f"ulimit -n {16 * LEAST_FILES}")
    return Finding("open files", Level.GOOD, f"at most {limit} a process")


def loopback() -> Finding:
    """Whether this machine can talk to itself."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=2).close()
    except OSError as error:
        return Finding("loopback", Level.WRONG, f"127.0.0.1 does not answer: {error}", "ip link set lo up")
    return Finding("loopback", Level.GOOD, "127.0.0.1 answers")


def environment(variables: Mapping[str, str]) -> Iterator[Finding]:
    """Variables that change what a cluster does."""
    if address := variables.get("RAY_ADDRESS"):
        found = f"RAY_ADDRESS={address}: clusters are made on that Ray, and no other is started"
        yield Finding("environment", Level.NOTE, found, "unset RAY_ADDRESS, unless that is what you want")
    excluded = variables.get("no_proxy", variables.get("NO_PROXY", ""))
    for name in ("http_proxy", "HTTP_PROXY", "grpc_proxy"):
        if variables.get(name) and excluded != "*" and not any(host in excluded for host in LOCAL_HOSTS):
            advice = f"export no_proxy={','.join(filter(None, (excluded, *LOCAL_HOSTS)))}"
            yield Finding("environment", Level.NOTE, f"{name} is set, for calls to this machine as well", advice)
            break


def mpi() -> Finding:
    """Whether engines can be an MPI world."""
    try:
        version = metadata.version("mpi4py")
    except metadata.PackageNotFoundError:
        return Finding("MPI", Level.NOTE, "mpi4py is not installed", "pip install 'nsactors[mpi]', if you need MPI")
    try:
        library = f"MPICH {metadata.version('mpich')}"
    except metadata.PackageNotFoundError:
        library = "an MPI of this system"
    return Finding("MPI", Level.GOOD, f"mpi4py {version} with {library}")


def clusters() -> Finding:
    """Clusters of this user; what dead ones have left is cleaned on the way."""
    from nsactors.transport.registry import Registry

    registry = Registry()
    try:
        names = [record.name for record in registry.records()]
    except OSError as error:
        advice = f"give yourself {registry.folder}: chmod -R u+rwX"
        return Finding("clusters", Level.WRONG, f"their folder cannot be used: {error}", advice)
    return Finding("clusters", Level.GOOD, f"running: {', '.join(names)}" if names else "none is running")


def trial() -> Finding:
    """Start a cluster of one engine, call it, and stop it."""
    from nsactors.cluster import Cluster

    began = time.monotonic()
    try:
        with Cluster(n=1) as rc:
            answer = rc[0].apply_sync(sum, [20, 22])
    except Exception as error:  # whatever it is, it is what the user came here for
        return Finding(
            "a cluster", Level.WRONG, f"does not start: {type(error).__name__}: {error}", "see what is above"
        )
    if answer != 42:
        return Finding("a cluster", Level.WRONG, f"20 + 22 is {answer} on it", "pip install --force-reinstall nsactors")
    took_s = time.monotonic() - began
    return Finding("a cluster", Level.GOOD, f"of one engine started, answered and stopped in {took_s:.1f} s")


@click.command()
@click.option("--trial/--no-trial", "tries", default=True, help="Start a cluster of one engine as well (the default).")
@click.option("--json", "as_json", is_flag=True, help="For scripts: a list of findings.")
@click.pass_context
def doctor(context: click.Context, tries: bool, as_json: bool) -> None:
    """Look for what is wrong on this machine, and say how to mend it.

    Takes some seconds and changes nothing. Exits with status 1 if something is wrong, and with 0 if there is no more
    than notes.
    """
    findings: list[Finding] = []
    looks: tuple[Callable[[], Iterable[Finding]], ...] = (examine, lambda: [trial()] if tries else [])
    show = _nothing if as_json else _line
    for look in looks:
        for finding in look():
            findings.append(finding)
            show(finding)
    if as_json:
        import json

        click.echo(json.dumps([{**f._asdict(), "level": f.level.value} for f in findings], indent=2))
    context.exit(int(any(finding.level is Level.WRONG for finding in findings)))


def _line(finding: Finding) -> None:
    from rich.console import Console
    from rich.text import Text

    mark, style = {Level.GOOD: ("✓", "green"), Level.NOTE: ("!", "yellow"), Level.WRONG: ("✗", "bold red")}[
        finding.level
    ]
    console: Any = Console(highlight=False)
    subject = Text.assemble((f"{mark} ", style), (f"{finding.subject}: ", "bold"), finding.found)
    console.print(subject)
    if finding.advice:
        console.print(Text(f"  → {finding.advice}", style=style))


def _nothing(finding: Finding) -> None:
    """For a machine that reads all of it at the end."""


def _available_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    available = kilobytes.get("MemAvailable")
    return None if available is None else 1024 * available


def _free(folder: Path) -> int | None:
    return shutil.disk_usage(folder).free if folder.is_dir() else None


def _file_limit() -> int | None:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
