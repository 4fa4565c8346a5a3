"""Resources of this machine and versions of this process.

Clusters use them for defaults (the number of engines, and threads per engine), and to compare a client with its
cluster.
"""

from __future__ import annotations

import functools
import math
import os
import platform
import resource
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from nsactors._version import __version__
from nsactors.errors import ProcessLimit, WrongValue, bytes_from_words, bytes_in_words

SMALLEST_STORE_BYTES = 75 * 1024 * 1024  # the smallest that Ray accepts

_VERSION_1 = ("cpu", "cpu,cpuacct")  # mount points of the controller; usually one is a link to the other
_MANY_PROCESSES = 100_000  # a limit that is not worth a look at all processes
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def available_cores(cgroup: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Return the number of cores that CPU affinity and the quotas of cgroups leave to this process; at least 1.

    Args:
        cgroup: the mount point of control groups (version 2, or version 1's ``cpu`` controller).
        membership: the file that names this process's groups. The quotas of a group's ancestors apply as well.
    """
    # os.cpu_count() counts all cores of the machine; a batch job or a container may have few of them.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    groups = _groups(membership)
    quotas = [
        *_quotas(cgroup, groups.get("", ""), _quota_of_version_2),
        *(quota for name in _VERSION_1 for quota in _quotas(cgroup / name, groups.get("cpu", ""), _quota_of_version_1)),
    ]
    return max(1, min([allowed, *map(math.ceil, quotas)]))


def _groups(membership: Path) -> dict[str, str]:
    """Return this process's group for each controller, by the controller's name; for version 2, under an empty name."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return {}
    found = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    return {controller: path for _, controllers, path in found for controller in controllers.split(",")}


def _quotas(mounted: Path, group: str, read: Callable[[Path], float | None]) -> Iterator[float]:
    """Yield the quotas of a group and its ancestors, as far as they are visible.

    In a container, the path may be the one on the host, and only its last group is mounted here, as the root. So groups
    that are missing are skipped.
    """
    parts = [part for part in group.split("/") if part not in ("", "..")]
    for count in range(len(parts) + 1):
        try:
            quota = read(mounted.joinpath(*parts[:count]))
        except (OSError, ValueError):
            continue
        if quota is not None:
            yield quota


def _quota_of_version_2(group: Path) -> float | None:
    quota, period = (group / "cpu.max").read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_of_version_1(group: Path) -> float | None:
    quota, period = (int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    return None if quota < 0 else quota / period


def check_processes(needed: int, folder: Path = Path("/proc")) -> None:
    """Check that this user may start so many more processes and threads on this machine.

    Ray waits for ever, or prints the stack of its C++ code, where it cannot start a thread.

    Args:
        needed: the number of processes and threads.
        folder: the folder with the system's files on processes.

    Raises:
        ProcessLimit: if the user's limit does not allow it.
    """
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if limit == resource.RLIM_INFINITY or limit >= _MANY_PROCESSES or os.geteuid() == 0:  # root is exempt
        return
    running = sum(_threads_of(process, os.getuid()) for process in folder.glob("[0-9]*"))
    if running + needed > limit:
        raise ProcessLimit(needed, limit, running)


def _threads_of(process: Path, uid: int) -> int:
    """Return the number of threads of a process; 0 if it is another user's, or has ended."""
    try:
        return len(os.listdir(process / "task")) if process.stat().st_uid == uid else 0
    except OSError:
        return 0


def thread_environment(cores: int, engines: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables that give each engine its share of the cores for linear algebra and OpenMP.

    Variables that the user has set are passed on unchanged.
    """
    share = str(max(1, cores // max(1, engines)))
    return {name: environment.get(name, share) for name in _THREAD_VARIABLES}


def store_bytes(amount: int | str | None, address: str | None) -> int | None:
    """Return the size of the object store that a user asked for; None for the default.

    Args:
        amount: a number of bytes, or text such as ``"2GB"``.
        address: the address of an existing Ray cluster, which already has a store.

    Raises:
        ValueError: if ``amount`` is not a size, is less than Ray accepts, or there is an address.
    """
    if amount is None:
        return None
    nbytes = bytes_from_words(amount)
    if address is not None:
        takes = f"None: the Ray cluster at {address} has its object store"
        raise WrongValue("Cluster", "object_store_memory", amount, takes)
    if nbytes < SMALLEST_STORE_BYTES:
        takes = f"at least {bytes_in_words(SMALLEST_STORE_BYTES)}"
        raise WrongValue("Cluster", "object_store_memory", amount, takes)
    return nbytes


TRIED_RAY = ("2.60",)  # minor versions on which all tests run


def installed_ray() -> str | None:
    """Return the version of the Ray that is installed, without importing it; None if there is none."""
    try:
        return metadata.version("ray")
    except metadata.PackageNotFoundError:
        return None


def ray_was_tried(version: str) -> bool:
    """Return whether all tests run on this version of Ray, or on another patch of its minor version.

    Example:
        >>> ray_was_tried("2.60.1"), ray_was_tried("2.6.0")
        (True, False)
    """
    return ".".join(version.split(".")[:2]) in TRIED_RAY


PROTOCOL = "11"  # raise it when classes or functions are pickled under other names, or with another state
_PACKAGES = ("ray", "cloudpickle", "ipython", "numpy", "pandas", "pyarrow")


@functools.cache
def versions_here() -> dict[str, str]:
    """Return the versions of Python, nsactors, and installed packages whose objects are sent to engines, by name."""
    found = {"python": platform.python_version(), "nsactors": __version__, "protocol": PROTOCOL}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
