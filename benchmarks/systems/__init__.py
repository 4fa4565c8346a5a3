"""The systems that are compared. Each is driven in a separate process."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

__all__ = ["SYSTEMS", "System", "SystemEntry", "find_program", "is_installed", "make"]

Run = Callable[[], object]


class System(Protocol):
    """Engines, and the same operations on them for all systems."""

    def start(self, engines: int) -> None:
        """Import the library, start engines, and return when each of them has answered a call."""
        ...

    def prepare(self, operation: str, engines: int) -> Run | None:
        """Return a function that runs an operation once and waits for its end; None if there is no such operation."""
        ...

    def close(self) -> None:
        """End every process that was started."""
        ...


@dataclass(frozen=True, slots=True)
class SystemEntry:
    """A system: its title, its library, its class, and the system whose engines and process it uses, if any.

    Its process is started by ``launcher``, a command with arguments, if there is one.
    """

    title: str
    library: str
    location: str
    beside: str = ""
    launcher: tuple[str, ...] = ()


SYSTEMS = {
    "nsactors": SystemEntry("nsactors", "nsactors", "benchmarks.systems.ns:Nsactors"),
    "broadcast": SystemEntry(
        "nsactors broadcast", "nsactors", "benchmarks.systems.ns:NsactorsBroadcast", beside="nsactors"
    ),
    "ray": SystemEntry("bare Ray", "ray", "benchmarks.systems.bare_ray:BareRay"),
    "pool": SystemEntry("Ray's Pool", "ray", "benchmarks.systems.pools:RayPool", beside="ray"),
    "ipyparallel": SystemEntry("ipyparallel", "ipyparallel", "benchmarks.systems.ipp:Ipyparallel"),
    "dask": SystemEntry("Dask", "distributed", "benchmarks.systems.dask:Dask"),
    "processes": SystemEntry("ProcessPoolExecutor", "concurrent.futures", "benchmarks.systems.pools:ProcessPool"),
    "multiprocessing": SystemEntry("multiprocessing.Pool", "multiprocessing", "benchmarks.systems.pools:PlainPool"),
    "loky": SystemEntry("loky", "joblib", "benchmarks.systems.pools:LokyPool"),
    "mpi": SystemEntry("mpi4py.futures", "mpi4py", "benchmarks.systems.pools:MpiPool", launcher=("mpiexec", "-n", "1")),
    "local": SystemEntry("one process", "nsactors", "benchmarks.systems.ns:NsactorsLocal"),
    "serial": SystemEntry("a plain loop", "builtins", "benchmarks.systems.serial:Serial"),
}


def is_installed(name: str) -> bool:
    """Return whether the library of a system can be imported, and its launcher be found."""
    entry = SYSTEMS[name]
    return importlib.util.find_spec(entry.library) is not None and None not in map(find_program, entry.launcher[:1])


def find_program(name: str) -> str | None:
    """Return the path of a program that is installed beside Python, or is on the search path."""
    folders = os.path.dirname(sys.executable), os.environ.get("PATH", "")
    return shutil.which(name, path=os.pathsep.join(folders))


def make(name: str, beside: System | None = None) -> System:
    """Return a system that has not been started, or a system that uses the engines of another one."""
    module, _, class_name = SYSTEMS[name].location.partition(":")
    system_class = getattr(importlib.import_module(module), class_name)
    return cast(System, system_class() if beside is None else system_class(beside))
