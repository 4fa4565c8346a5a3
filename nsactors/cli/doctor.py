"""``nsactors doctor``: faults of this machine, and their remedies."""

from __future__ import annotations

import enum
import importlib.util
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from nsactors.errors import FolderTooLong, bytes_in_words
from nsactors.system.private_files import parent_folder

if TYPE_CHECKING:
    from nsactors.mpi import Library

LEAST_FILES = 4_096  # Ray keeps some 50 open in each process
LEAST_MEMORY = 1_000_000_000  # an idle Ray with four engines takes 0.6 GB
LEAST_SHARED = 256_000_000
LEAST_DISK = 1_000_000_000
LOCAL_HOSTS = ("127.0.0.1", "localhost")


class Level(enum.Enum):
    """Severity of a finding."""

    GOOD = "good"
    NOTE = "note"
    WRONG = "wrong"


class Finding(NamedTuple):
    """The subject of a check, its severity, what was found, and the remedy."""

    subject: str
    level: Level
    found: str
    advice: str = ""


def examine() -> Iterator[Finding]:
    """Run all checks that need no cluster."""
    yield from packages()
    yield starts(os.environ)
    yield memory(_available_memory())
    yield shared_memory(_free(Path("/dev/shm")))
    yield temporary_folder(tempfile.gettempdir())
    yield open_files(_file_limit())
    yield loopback()
    yield from environment(os.environ)
    yield mpi()
    yield clusters()


def packages() -> Iterator[Finding]:
    """Check that Ray can be imported; report the versions of packages that all machines of a cluster share."""
    from nsactors.system.resources import versions_here

    return check_packages(versions_here())


def check_packages(versions: Mapping[str, str]) -> Iterator[Finding]:
    """Report versions of packages, and check Ray's.

    Args:
        versions: the versions by the names of the packages.
    """
    from nsactors.system.resources import TRIED_RAY, ray_was_tried

    yield Finding("versions", Level.GOOD, ", ".join(f"{name} {version}" for name, version in versions.items()))
    if "ray" not in versions:
        yield Finding("ray", Level.WRONG, "is not installed", "pip install 'ray>=2.60,<3'")
    elif importlib.util.find_spec("ray") is None:
        yield Finding("ray", Level.WRONG, "is installed, but cannot be imported", "pip install --force-reinstall ray")
    elif not ray_was_tried(versions["ray"]):
        tried = ", ".join(TRIED_RAY)
        found = f"{versions['ray']} was never tested with nsactors: clusters start slower, in Ray's own way"
        yield Finding("ray", Level.NOTE, found, f"if something fails, install a tested version: {tried}")


def starts(variables: Mapping[str, str]) -> Finding:
    """Report how the processes of engines start.

    Args:
        variables: environment variables.
    """
    from nsactors.transport.ray.zygote_process import obstacle_to_forking

    obstacle = obstacle_to_forking(variables)
    if obstacle is None:
        return Finding("engines", Level.GOOD, "are forked from a process that has imported Ray")
    return Finding("engines", Level.GOOD, f"start slower, each by itself: {obstacle}")


def memory(available: int | None) -> Finding:
    """Check the cores and the memory of this machine.

    Args:
        available: available memory in bytes; None if the system does not report it.
    """
    from nsactors.system.resources import available_cores

    cores = f"{available_cores()} cores"
    if available is None:
        return Finding("machine", Level.GOOD, cores)
    found = f"{cores}, {bytes_in_words(available)} of memory available"
    if available < LEAST_MEMORY:
        return Finding("machine", Level.NOTE, found, "close something; four idle engines and Ray take 0.6 GB")
    return Finding("machine", Level.GOOD, found)


def shared_memory(free: int | None) -> Finding:
    """Check the shared memory, which holds the object store.

    Args:
        free: free bytes in ``/dev/shm``; None if this machine has none.
    """
    if free is None:
        return Finding("shared memory", Level.NOTE, "there is no /dev/shm", "large arrays will go through files")
    found = f"{bytes_in_words(free)} free in /dev/shm"
    if free < LEAST_SHARED:
        return Finding("shared memory", Level.WRONG, found, "in a container, start it with --shm-size=2g or more")
    return Finding("shared memory", Level.GOOD, found)


def temporary_folder(folder: str) -> Finding:
    """Check the folder of Ray's sockets and logs."""
    subject = "temporary files"
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding(subject, Level.WRONG, f"{folder} cannot be written to", "set TMPDIR to a folder of yours")
    try:
        used = parent_folder(folder)
    except FolderTooLong as error:
        return Finding(subject, Level.WRONG, f"{folder} is too long a path for sockets", str(error).partition(": ")[2])
    free = shutil.disk_usage(used).free
    found = f"{bytes_in_words(free)} free in {used}"
    if used != folder:
        found += f", for {folder} is too long a path for sockets"
    if free < LEAST_DISK:
        return Finding(subject, Level.NOTE, found, "make room: Ray moves objects there when the object store is full")
    return Finding(subject, Level.GOOD, found)


def open_files(limit: int | None) -> Finding:
    """Check the number of files that a process may open; None for no limit."""
    if limit is None:
        return Finding("open files", Level.GOOD, "no limit")
    if limit < LEAST_FILES:
        return Finding("open files", Level.NOTE, f"at most {limit} a process", f"ulimit -n {16 * LEAST_FILES}")
    return Finding("open files", Level.GOOD, f"at most {limit} a process")


def loopback() -> Finding:
    """Check that a connection to 127.0.0.1 works."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=2).close()
    except OSError as error:
        return Finding("loopback", Level.WRONG, f"127.0.0.1 does not answer: {error}", "ip link set lo up")
    return Finding("loopback", Level.GOOD, "127.0.0.1 answers")


def environment(variables: Mapping[str, str]) -> Iterator[Finding]:
    """Check environment variables that change the behaviour of clusters."""
    if address := variables.get("RAY_ADDRESS"):
        found = f"RAY_ADDRESS={address}: clusters start their engines on that Ray cluster, not on one of their own"
        yield Finding("environment", Level.NOTE, found, "unset RAY_ADDRESS, unless you want engines there")
    excluded = variables.get("no_proxy", variables.get("NO_PROXY", ""))
    for name in ("http_proxy", "HTTP_PROXY", "grpc_proxy"):
        if variables.get(name) and excluded != "*" and not any(host in excluded for host in LOCAL_HOSTS):
            advice = f"export no_proxy={','.join(filter(None, (excluded, *LOCAL_HOSTS)))}"
            yield Finding(
                "environment", Level.NOTE, f"{name} is set, and applies even to connections to this machine", advice
            )
            break


def mpi() -> Finding:
    """Check that engines can form an MPI world."""
    from importlib import metadata

    from nsactors.mpi.library import library_here

    try:
        version = metadata.version("mpi4py")
    except metadata.PackageNotFoundError:
        return Finding("MPI", Level.NOTE, "mpi4py is not installed", "pip install 'nsactors[mpi]', if you need MPI")
    return check_mpi(version, library_here())


def check_mpi(version: str, library: Library | str) -> Finding:
    """Check the library of mpi4py.

    Args:
        version: the version of mpi4py.
        library: its library, or the error of mpi4py.
    """
    from nsactors.mpi.launcher import launcher_of
    from nsactors.mpi.library import OPEN_MPI

    if isinstance(library, str):
        advice = "pip install mpich, or load the environment module of your site's MPI; MPI4PY_LIBMPI can name its file"
        return Finding("MPI", Level.NOTE, f"mpi4py {version} cannot be used: {library}", advice)
    found = f"mpi4py {version} with {library}"
    if library.name != OPEN_MPI:
        return Finding("MPI", Level.GOOD, found)
    launcher = launcher_of(library)
    if not launcher:
        return Finding("MPI", Level.NOTE, f"{found}, without its mpiexec", "install it (Debian: openmpi-bin)")
    return Finding("MPI", Level.GOOD, f"{found}; {launcher[0]} starts the ranks")


def clusters() -> Finding:
    """Check this user's clusters, and remove the remains of dead ones."""
    from nsactors.transport.registry import Registry

    registry = Registry()
    try:
        names = [record.name for record in registry.records()]
    except OSError as error:
        advice = f"make it yours: chmod -R u+rwX {registry.folder}"
        return Finding("clusters", Level.WRONG, f"their folder cannot be used: {error}", advice)
    return Finding("clusters", Level.GOOD, f"running: {', '.join(names)}" if names else "none is running")


def trial() -> Finding:
    """Start a cluster of one engine, call it, and stop it."""
    from nsactors.cluster.cluster import Cluster

    began = time.monotonic()
    try:
        with Cluster(n=1) as rc:
            answer = rc[0].apply_sync(sum, [20, 22])
    except Exception as error:  # any failure is a finding
        return Finding(
            "a cluster", Level.WRONG, f"does not start: {type(error).__name__}: {error}", "check the findings above"
        )
    if answer != 42:
        return Finding("a cluster", Level.WRONG, f"20 + 22 is {answer} on it", "pip install --force-reinstall nsactors")
    took_s = time.monotonic() - began
    return Finding("a cluster", Level.GOOD, f"of one engine started, answered and stopped in {took_s:.1f} s")


@click.command()
@click.option("--trial/--no-trial", "tries", default=True, help="Start a cluster of one engine as well (the default).")
@click.option("--json", "as_json", is_flag=True, help="For scripts: a list of findings.")
@click.option(
    "--ipyparallel",
    "programs",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH",
    help="Check programs and notebooks, not this machine: list the lines that must change if they use ipyparallel.",
)
@click.pass_context
def doctor(context: click.Context, tries: bool, as_json: bool, programs: tuple[Path, ...]) -> None:
    """Check this machine for faults, and print a remedy for each.

    Takes some seconds and changes nothing, except that the remains of dead clusters are removed. Exits with status 1
    if a check fails, and with 0 if all pass or give notes.
    """
    findings: list[Finding] = []
    looks: tuple[Callable[[], Iterable[Finding]], ...] = (examine, lambda: [trial()] if tries else [])
    if programs:
        looks = (lambda: lines_to_change(programs),)
    show = _nothing if as_json else _line
    for look in looks:
        for finding in look():
            findings.append(finding)
            show(finding)
    if as_json:
        import json

        click.echo(json.dumps([{**f._asdict(), "level": f.level.value} for f in findings], indent=2))
    context.exit(int(any(finding.level is Level.WRONG for finding in findings)))


def lines_to_change(paths: Iterable[Path]) -> Iterator[Finding]:
    """Read programs written for ipyparallel; yield the lines that must change or behave differently, and a summary.

    Args:
        paths: programs, notebooks and folders.
    """
    from nsactors.ipyparallel.reading import Reader

    reader = Reader()
    for path in paths:
        for place, finding in reader.read(path):
            yield Finding(place, Level.NOTE, finding.text)
    is_good = reader.files and not reader.found
    yield Finding("programs for ipyparallel", Level.GOOD if is_good else Level.NOTE, reader.summary())


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
    """Print no line: with ``--json`` all findings are printed at the end."""


def _available_memory() -> int | None:
    import psutil  # deferred: 35 ms

    try:
        return int(psutil.virtual_memory().available)
    except OSError:  # /proc does not exist, or may not be read
        return None


def _free(folder: Path) -> int | None:
    return shutil.disk_usage(folder).free if folder.is_dir() else None


def _file_limit() -> int | None:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
