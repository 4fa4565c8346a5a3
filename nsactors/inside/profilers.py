"""Profilers of an engine: a sampler of stacks, Python's own profiler of calls, and memray for its memory."""

from __future__ import annotations

import contextlib
import cProfile
import os
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Hashable, Iterable
from types import CodeType
from typing import Any, Protocol

from nsactors.errors.failure import file_name, lines_of
from nsactors.inside.frames import BORDERS, Place, user_places
from nsactors.inside.processes import is_border, is_own
from nsactors.namespace.interrupts import CellEventLoop, is_library_file, is_user_code
from nsactors.protocol.inspection import CallTimes, EngineProfile, ProfiledFunction, StackSample
from nsactors.protocol.messages import EngineRequest

MOST_STACKS = 20_000  # different stacks; of each further one, only the outermost functions are kept
OUTERMOST = 5
MOST_DEPTH = 200  # functions of a stack; of a deeper stack, both ends are kept
MACHINERY = "(arguments and results)"
INSTALL = "pip install nsactors[memory]"

Running = Callable[[], tuple[EngineRequest, float] | None]
"""Returns the request that runs, and its start in seconds since the epoch."""


class Profiler(Protocol):
    """A profiler of the requests of one client."""

    client: str

    def stop(self) -> EngineProfile:
        """End the profile, and return it."""
        ...


class Sampler:
    """Looks at the stack of the running request every few milliseconds, from a thread of its own.

    A sample counts for the time since the sample before it, so the sum is the time that requests have run. C code that
    holds the interpreter lock delays the sampler, so the line that runs next gets the time of the C code.

    Args:
        client: the client whose requests are sampled.
        interval_s: the time between two samples in seconds.
        thread: the identifier of the thread that runs requests.
        cell_loop: the event loop of the cells.
        running: returns the request that runs.
    """

    def __init__(self, client: str, interval_s: float, thread: int, cell_loop: CellEventLoop, running: Running) -> None:
        self.client = client
        self._interval_s = interval_s
        self._watched = thread
        self._cell_loop = cell_loop
        self._running = running
        self._stacks: dict[tuple[Hashable, ...], list[float]] = {}
        self._over = threading.Event()
        self._last = time.perf_counter()
        self._thread = threading.Thread(target=self._run, name="nsactors-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> EngineProfile:
        """Take a last sample, and return the profile."""
        self._over.set()
        self._thread.join()
        return sampled_profile(self._stacks)

    def _run(self) -> None:
        while not self._over.wait(self._interval_s):
            self._sample()
        self._sample()

    def _sample(self) -> None:
        running = self._running()
        places: list[Place] | None = None
        if running is not None:
            places = user_places(sys._current_frames().get(self._watched), self._cell_loop)
        now = time.perf_counter()
        elapsed, self._last = now - self._last, now
        if running is None or running[0].id.client != self.client:
            return
        seconds = min(elapsed, max(0.0, time.time() - running[1]))  # the request may have begun since the last sample
        add_sample(self._stacks, places, seconds)


def add_sample(stacks: dict[tuple[Hashable, ...], list[float]], places: list[Place] | None, seconds: float) -> None:
    """Add a sample to the samples with an equal stack.

    Args:
        stacks: for each stack, the outermost function first, the seconds and the number of samples.
        places: the functions, the innermost first; None if the machinery was at work.
        seconds: the time that the sample stands for.
    """
    functions: tuple[Hashable, ...] = (MACHINERY,)
    if places:
        functions = tuple(code for code, _ in reversed(places))
        if len(functions) > MOST_DEPTH:
            functions = functions[: MOST_DEPTH // 2] + functions[-MOST_DEPTH // 2 :]
    if functions not in stacks and len(stacks) >= MOST_STACKS:
        functions = functions[:OUTERMOST]
    times = stacks.setdefault(functions, [0.0, 0])
    times[0] += seconds
    times[1] += 1


def sampled_profile(stacks: dict[tuple[Hashable, ...], list[float]]) -> EngineProfile:
    """Return a profile of samples; see :func:`add_sample`."""
    numbers: dict[Hashable, int] = {}
    samples = [
        StackSample(tuple(numbers.setdefault(one, len(numbers)) for one in functions), seconds, int(count))
        for functions, (seconds, count) in stacks.items()
    ]
    return EngineProfile(tuple(map(_described, numbers)), tuple(samples))


def _described(function: Hashable) -> ProfiledFunction:
    if isinstance(function, CodeType):
        file, line = function.co_filename, function.co_firstlineno
        return _named(file, line, function.co_qualname, is_user_code=is_user_code(function))
    return ProfiledFunction("", 0, str(function), is_user_code=False)


def _named(file: str, line: int, name: str, *, is_user_code: bool) -> ProfiledFunction:
    """Describe a function of a file or a cell."""
    source = "".join(lines_of(file)) if file.startswith("<engine ") else ""
    checksum = zlib.crc32(source.encode(errors="replace")) if source else 0
    return ProfiledFunction(file_name(file), line, name, is_user_code, checksum)


class CallProfiler:
    """Counts and times every function call with Python's own ``cProfile``, beginning with the next request.

    The thread that runs requests calls :meth:`begin` and :meth:`end`.
    """

    def __init__(self, client: str) -> None:
        self.client = client
        self._profile = cProfile.Profile()
        self._is_on = self._was_on = self._was_refused = False

    def begin(self, request: EngineRequest) -> None:
        """Measure a request from here on, if it is from the client.

        From Python 3.12 on, a process has one profiler at a time: if another is active, the request runs unmeasured.
        """
        if request.id.client != self.client:
            return
        try:
            self._profile.enable()
        except ValueError:
            self._was_refused = True
        else:
            self._is_on = self._was_on = True
            if sys.version_info >= (3, 12):
                count_this_thread_only()

    def end(self) -> None:
        """Measure no more."""
        if self._is_on:
            self._is_on = False
            self._profile.disable()

    def stop(self) -> EngineProfile:
        """Return the profile; calls that have not returned are missing.

        Raises:
            RuntimeError: if another profiler was at work whenever a request began.
        """
        if self._was_refused and not self._was_on:
            raise RuntimeError("another profiler is at work in its process")
        self._profile.snapshot_stats()
        stats: Any = self._profile.stats
        return called_profile(stats)


if sys.version_info >= (3, 12):

    def count_this_thread_only() -> None:
        """Let Python's profiler, which has been switched on, count calls of this thread alone.

        From Python 3.12 on, the profiler gets the calls of all threads, and treats them as calls of one.
        """
        monitoring, thread = sys.monitoring, threading.get_ident()

        def only_here(callback: Callable[..., object]) -> Callable[..., object]:
            def count(*args: object) -> None:
                if threading.get_ident() == thread:
                    callback(*args)

            return count

        for name, event in vars(monitoring.events).items():
            if name.isupper() and event and (callback := _callback_of(event)) is not None:
                monitoring.register_callback(monitoring.PROFILER_ID, event, only_here(callback))

    def _callback_of(event: int) -> Any:
        """Remove and return the profiler's callback for an event; return None if there is none."""
        try:
            return sys.monitoring.register_callback(sys.monitoring.PROFILER_ID, event, None)
        except ValueError:  # a combination of events
            return None


_Key = tuple[str, int, str]
_Stats = tuple[int, int, float, float, dict[_Key, tuple[int, int, float, float]]]
_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
# Functions in these files pickle and show values. Neither they nor what they call is the user's work.
_AWAY = ("nsactors/protocol/serialize.py", "IPython/core/displayhook.py")
_BORDERS = {(code.co_filename, code.co_firstlineno, code.co_name) for code in BORDERS}


def called_profile(stats: dict[_Key, _Stats]) -> EngineProfile:
    """Return the part of a profile of calls that lies below the machinery.

    Args:
        stats: in the form of ``pstats``: for each function, given by file, line and name, the number of primitive calls
            and of all calls, the seconds without and with the functions that it called, and its callers.
    """
    called: dict[_Key, list[_Key]] = {}
    for key, (_, _, _, _, callers) in stats.items():
        for caller in callers:
            called.setdefault(caller, []).append(key)
    kept: dict[_Key, int] = {}
    seen: set[_Key] = set(_BORDERS)
    left = [key for border in _BORDERS for key in called.get(border, [])]
    while left:
        key = left.pop()
        if key in seen or key[0].endswith(_AWAY):
            continue
        seen.add(key)
        left += called.get(key, [])
        if not key[0].startswith(_PACKAGE):  # functions of nsactors are left out, but those that they call are not
            kept[key] = len(kept)
    calls = []
    for key, number in kept.items():
        primitive, count, own_s, total_s, callers = stats[key]
        known = tuple((kept[c], n, p, own, total) for c, (p, n, own, total) in callers.items() if c in kept)
        calls.append(CallTimes(number, count, primitive, own_s, total_s, known))
    return EngineProfile(tuple(_called(*key) for key in kept), calls=tuple(calls))


def _called(file: str, line: int, name: str) -> ProfiledFunction:
    if file == "~":  # a built-in function
        return ProfiledFunction("", 0, name, is_user_code=False)
    own = file.startswith("<engine ") or not is_library_file(file)
    return _named(file, line, name, is_user_code=own)


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
        """Stop recording, and return the allocations that were alive when the memory in use was at its peak."""
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
            numbers.setdefault(_named(file, line, name, is_user_code=is_own(file)), len(numbers))
            for name, file, line in places
        )
        if functions:
            total = sizes.setdefault(functions, [0, 0])
            total[0] += one.size
            total[1] += one.n_allocations
    samples = tuple(StackSample(functions, float(size), count) for functions, (size, count) in sizes.items())
    return EngineProfile(tuple(numbers), samples)


class Profilers:
    """The profilers of an engine, by name. Any thread may call the methods.

    Attributes:
        calls: the profiler of calls; None if there is none.
    """

    MOST = 4
    MOST_ENDED = 100

    def __init__(
        self, thread: int, cell_loop: CellEventLoop, running: Running, *, shares_process: bool = False
    ) -> None:
        self.calls: CallProfiler | None = None
        self._shares_process = shares_process
        self._thread = thread
        self._cell_loop = cell_loop
        self._running = running
        self._lock = threading.Lock()
        self._starting: dict[str, str] = {}  # profiles of memory, with their clients
        self._open: dict[str, Profiler] = {}
        self._stopped: dict[str, EngineProfile] = {}
        self._ended: dict[str, None] = {}  # profiles that were stopped before they had begun

    def start(self, profile_id: str, client: str, how: str, interval_s: float) -> None:
        """Begin a profile, unless it has begun.

        Raises:
            RuntimeError: if there are too many profiles, or if this one has been stopped already.
        """
        with self._lock:
            if profile_id in self._ended:
                raise RuntimeError("it ended before it had begun")
            if profile_id in self._starting or profile_id in self._open or profile_id in self._stopped:
                return
            if how == "calls":
                if self.calls is not None:
                    raise RuntimeError(f"calls are being counted for the client {self.calls.client} already")
                self._open[profile_id] = self.calls = CallProfiler(client)
            elif how == "memory":
                if self._shares_process:
                    raise RuntimeError(
                        "it is a thread, and its memory is that of the whole process: use Cluster(backend='ray')"
                    )
                self._starting[profile_id] = client
            elif len(self._open) >= self.MOST:
                raise RuntimeError(f"{len(self._open)} profiles are being made already")
            else:
                self._open[profile_id] = Sampler(client, interval_s, self._thread, self._cell_loop, self._running)
        if how == "memory":
            self._start_memory(profile_id, client)

    def _start_memory(self, profile_id: str, client: str) -> None:
        """Begin a profile of memory. The lock is not held while memray is imported, which takes long."""
        try:
            profiler = MemoryProfiler(client)
        except BaseException:
            with self._lock:
                self._starting.pop(profile_id, None)
            raise
        with self._lock:
            if goes_on := self._starting.pop(profile_id, None) is not None:
                self._open[profile_id] = profiler
        if not goes_on:
            profiler.stop()
            raise RuntimeError("it ended before it had begun")

    def stop(self, profile_id: str) -> EngineProfile:
        """End a profile and return it; a repeated call returns the same profile.

        Raises:
            RuntimeError: if there is no such profile.
        """
        with self._lock:
            if (stopped := self._stopped.get(profile_id)) is not None:
                return stopped
            profiler = self._open.pop(profile_id, None)
            if profiler is None:
                self._starting.pop(profile_id, None)
                self._ended[profile_id] = None
                if len(self._ended) > self.MOST_ENDED:
                    del self._ended[next(iter(self._ended))]
                raise RuntimeError("it was not being profiled: its process is new, or its profile had not begun")
            self.calls = None if self.calls is profiler else self.calls
        stopped = profiler.stop()
        with self._lock:
            self._stopped[profile_id] = stopped
            while len(self._stopped) > self.MOST:
                del self._stopped[next(iter(self._stopped))]
        return stopped

    def forget(self, client: str) -> None:
        """End the profiles of a client that has left."""
        with self._lock:
            self._starting = {i: owner for i, owner in self._starting.items() if owner != client}
            ids = [profile_id for profile_id, profiler in self._open.items() if profiler.client == client]
        for profile_id in ids:
            with contextlib.suppress(RuntimeError):  # another thread ends this profile, or has ended it
                self.stop(profile_id)
            self._stopped.pop(profile_id, None)
