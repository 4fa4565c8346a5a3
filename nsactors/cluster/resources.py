"""What this process may use of its machine."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from nsactors.errors import bytes_from_words, bytes_in_words

__all__ = ["available_cores", "store_bytes", "thread_environment"]

SMALLEST_STORE_BYTES = 75 * 1024 * 1024  # Ray refuses less

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def available_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """How many cores this process may use, by CPU affinity and by the cgroup's limit; at least 1.

    Args:
        cgroup: where control groups are mounted (version 2, or version 1's ``cpu`` controller).
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _cgroup_limit(cgroup)
    return max(1, allowed if limit is None else min(allowed, math.ceil(limit)))


def _cgroup_limit(cgroup: Path) -> float | None:
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return int(quota) / int(period)


def thread_environment(cores: int, engines: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Environment that gives each engine its share of the cores for linear algebra and OpenMP.

    Variables that the user has set are passed on as they are.
    """
    share = str(max(1, cores // max(1, engines)))
    return {name: environment.get(name, share) for name in _THREAD_VARIABLES}


def store_bytes(amount: int | str | None, address: str | None) -> int | None:
    """The size of the object store that somebody wants; None if they did not say.

    Args:
        amount: a number of bytes, or text such as ``"2GB"``.
        address: an existing Ray cluster, which has its store already.

    Raises:
        ValueError: if that is no amount, less than Ray takes, or there is an address.
    """
    if amount is None:
        return None
    nbytes = bytes_from_words(amount)
    if address is not None:
        raise ValueError(f"the Ray cluster at {address} has its object store: leave out object_store_memory={amount!r}")
    if nbytes < SMALLEST_STORE_BYTES:
        raise ValueError(f"an object store has at least {bytes_in_words(SMALLEST_STORE_BYTES)}, not {amount!r}")
    return nbytes
