"""A profiler of an engine's memory, by the package memray: the allocations that were alive at its peak."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from typing import Any, Protocol

from nsactors.errors.failure import file_name
from nsactors.inside.processes import is_border, is_own
from nsactors.protocol.inspection import EngineProfile, ProfiledFunction, StackSample

INSTALL = "pip install nsactors[memory]"


class Allocation(Protocol):
    """Memory that was allocated at one place, as memray reads it from its file."""

    size: int
    n_allocations: int

    def stack_trace(self) -> list[tuple[str, str, int]]:
        """Return function, file and line of each frame, the innermost first."""
        ...


class MemoryProfiler:
    """Records the allocations of this process, until :meth:`stop`.

    Allocations of all threads and clients count, if code of requests made them.

    Args:
        client: the client that has asked for the profile.

    Raises:
        RuntimeError: if memray is not installed, or is recording already.
    """

    def __init__(self, client: str) -> None:
        self.client = client
        try:
            import memray
        except ImportError as error:
            raise RuntimeError(f"memray is not installed there: {INSTALL} ({error})") from None
        self._memray: Any = memray
        handle, self._path = tempfile.mkstemp(prefix="nsactors-memory-")
        os.close(handle)
        try:
            self._tracker = memray.Tracker(
                destination=memray.FileDestination(self._path, overwrite=True),
                file_format=memray.FileFormat.AGGREGATED_ALLOCATIONS,
            )
            self._tracker.__enter__()
        except BaseException:
            os.unlink(self._path)
            raise

    def stop(self) -> EngineProfile:
        """Record no more, and return the allocations that were alive when they took most memory."""
        try:
            self._tracker.__exit__(None, None, None)
            return allocations_profile(
                self._memray.FileReader(self._path).get_high_watermark_allocation_records(merge_threads=True)
            )
        finally:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def allocations_profile(allocations: Iterable[Allocation]) -> EngineProfile:
    """Return a profile of the allocations that code of requests has made, with sizes in place of seconds.

    The line of a function is the line of the allocation, or of the call that leads to it.
    """
    numbers: dict[ProfiledFunction, int] = {}
    sizes: dict[tuple[int, ...], list[int]] = {}
    for one in allocations:
        frames = list(reversed(one.stack_trace()))
        borders = [i for i, (name, file, _) in enumerate(frames) if is_border(file, name)]
        if not borders:
            continue
        places = frames[borders[-1] + 1 :]
        functions = tuple(
            numbers.setdefault(ProfiledFunction(file_name(file), line, name, is_own(file)), len(numbers))
            for name, file, line in places
        )
        if functions:
            total = sizes.setdefault(functions, [0, 0])
            total[0] += one.size
            total[1] += one.n_allocations
    samples = tuple(StackSample(functions, float(size), count) for functions, (size, count) in sizes.items())
    return EngineProfile(tuple(numbers), samples)
