"""Test that snapshots load in an interpreter without the engine's objects.

A snapshot that loads in the engine's own process may load nowhere else: it may need a name of the engine's
``__main__``, a module made at run time, or a connection that a library has opened. So a snapshot counts only after
another process has loaded it. That process is forked for the test (:mod:`forking`). It ends with the test, whatever the
user's classes have done in that process.

The engines of one cluster on a host share one forking process. It starts for the first snapshot, and ends after a
minute without requests, or with the last engine that has used it.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import socket
import subprocess
import sys
import sysconfig
import threading
import types
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from nsactors.errors import MpiError, SnapshotUnproved
from nsactors.namespace.forking import COMMAND, ONE_THREAD, Tell, has_threads
from nsactors.namespace.module_versions import ModuleVersions, SourceStore, sources_folder
from nsactors.namespace.mpi_guard import barring_mpi
from nsactors.namespace.plain_shell import fresh_names
from nsactors.namespace.snapshot import restore
from nsactors.recovery.encoding import decode
from nsactors.recovery.journal import SegmentHeader, Snapshot

LIMIT_S = 10.0  # for one component on idle processors, and the same again for each LIMIT_BYTES of its pickle
LIMIT_BYTES = 100_000_000
START_S = 30.0  # for the forking process to answer on a very busy host
MOST_DEATHS = 5

_SOCKET_PATH_BYTES = 100
_LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
_PACKAGES = "site-packages", "dist-packages"


class Prover(Protocol):
    """Test that snapshots load."""

    def failures(self, path: str, snapshot: Snapshot) -> dict[str, str]:
        """Load a snapshot; return the names that failed, with the reason.

        Args:
            path: a file that begins with the snapshot.
            snapshot: the snapshot that the file contains.

        Raises:
            SnapshotUnproved: if the test could not be made.
        """
        ...


class CleanInterpreter:
    """The client of the forking process, for one engine; used by one thread at a time.

    Args:
        folder: the folder of the cluster on this host, which other users cannot write. All its engines here use it.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._stream: socket.socket | None = None
        self._lock = threading.Lock()

    def failures(self, path: str, snapshot: Snapshot) -> dict[str, str]:
        """Load a snapshot in a new process; if a component ends the process, load the others in a second process."""
        largest = max((len(part.payload.data) for part in snapshot.parts), default=0)
        limit_s = LIMIT_S * (1 + largest // LIMIT_BYTES) * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        skipped: dict[str, str] = {}
        with self._lock:
            for _ in range(MOST_DEATHS):
                process = {"environment": dict(os.environ), "search": list(sys.path), "folder": self._folder}
                argument = {"path": path, "skipped": skipped, **process}
                loading: str | None = None
                failed: dict[str, str] | None = None
                for answer in self._ask("load_in_child", argument, limit_s):
                    match answer:
                        case {"told": {"loads": name}}:
                            loading = name
                        case {"told": {"failed": failed, "imported": modules}}:
                            self._send({"import": modules})
                        case {"ended": status, "late": is_late} if failed is None:
                            if loading is None or loading in skipped:
                                raise SnapshotUnproved(f"the process that tested it ended with status {status}")
                            took = f"it takes more than {limit_s:.0f} s to load"
                            skipped[loading] = took if is_late else "loading it ends the interpreter"
                if failed is not None:
                    known = snapshot.modules.keys() | {name for part in snapshot.parts for name in part.names}
                    return {name: reason for name, reason in failed.items() if name in known}
        raise SnapshotUnproved(f"loading it ended the interpreter {MOST_DEATHS} times")

    def close(self) -> None:
        """Disconnect; the forking process ends with its last client."""
        with self._lock:
            self._disconnect()

    def _ask(self, function: str, argument: object, limit_s: float) -> Iterator[Any]:
        request = {"call": f"{__name__}:{function}", "argument": argument, "limit_s": limit_s}
        try:
            try:
                yield from self._answers(request, START_S + limit_s)
            except ConnectionError:  # it has ended since the last request
                self._disconnect()
                yield from self._answers(request, START_S + limit_s)
        except (OSError, ValueError) as error:
            self._disconnect()
            raise SnapshotUnproved(f"no process could be started to test it: {error}") from error

    def _answers(self, request: object, limit_s: float) -> Iterator[Any]:
        self._send(request)
        stream = self._stream
        assert stream is not None, "sending connects"
        stream.settimeout(limit_s)
        received = b""
        while True:
            data = stream.recv(1 << 16)
            if not data:
                raise ConnectionResetError("the forking process has ended")
            *lines, received = (received + data).split(b"\n")
            for answer in map(json.loads, lines):
                yield answer
                if "ended" in answer:
                    return

    def _send(self, request: object) -> None:
        if self._stream is None:
            self._stream = _connect(self._folder)
        self._stream.settimeout(START_S)
        self._stream.sendall(json.dumps(request).encode() + b"\n")

    def _disconnect(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def load_in_child(argument: Mapping[str, Any], tell: Tell) -> None:
    """Load a snapshot in this process, which was forked for it, and report which names fail.

    Args:
        argument: ``path`` of the file, ``skipped`` names with the reason, the engine's ``environment``, its ``search``
            path for modules, and the ``folder`` of its cluster.
        tell: called with each step before it begins.
    """
    os.environ.clear()
    os.environ.update({**argument["environment"], **ONE_THREAD})
    sys.path[:] = argument["search"]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    main.__dict__.update(fresh_names())
    before = set(sys.modules)
    with open(argument["path"], "rb") as file:
        # A private mapping: pages are copied only where the user's classes write.
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    base, _ = next(decode(data))
    assert isinstance(base, SegmentHeader)
    assert base.snapshot is not None
    if modules := base.snapshot.process.get(ModuleVersions.name):
        sources = SourceStore(sources_folder(argument["folder"]))
        ModuleVersions(main.__dict__, sources, lambda digests: {}).set(modules)
    with barring_mpi(MpiError("MPI cannot be used while a snapshot is tested")):
        failed = restore(
            base.snapshot,
            main.__dict__,
            skipped=argument["skipped"],
            loads=lambda name: tell({"loads": name}),
            copy=False,
        )
    # With pandas imported in the forking process, the next test takes 0.2 to 0.4 s instead of 1.3 to 5.5 s.
    tell({"failed": failed, "imported": [] if has_threads() else _installed(set(sys.modules) - before)})


def _installed(modules: set[str]) -> list[str]:
    """Return the modules of Python and of installed packages, which nobody edits, without the user's modules."""
    origins = {name: str(getattr(getattr(sys.modules[name], "__spec__", None), "origin", "")) for name in modules}
    return sorted(
        name
        for name, origin in origins.items()
        if origin.startswith(_LIBRARIES) or any(part in origin.split(os.sep) for part in _PACKAGES)
    )


# Connect to the forking process, or start it.


# Rejected:
# - a fork of the engine: locks that the engine's other threads hold would stay locked in it for ever;
# - a new interpreter for each test: it takes 0.25 s, and 1.5 s with pandas;
# - a forking process for each engine: 55 MB and more each, all at the same time after a recovery of all engines.
def _connect(folder: str) -> socket.socket:
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        address = _address(folder, directory)
        if address is None:
            return _start_for_one()
        if (stream := _connected(address)) is not None:
            return stream
        with open(os.path.join(folder, "interpreter.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several engines may find no process
            return _connected(address) or _start_for_all(address)
    finally:
        os.close(directory)


def _address(folder: str, directory: int) -> str | None:
    """Return a path for a socket in ``folder`` that is short enough for the system; None if there is none."""
    path = os.path.join(folder, "interpreter")
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
        return path
    short = f"/proc/self/fd/{directory}"
    return os.path.join(short, "interpreter") if os.path.isdir(short) else None


def _connected(address: str) -> socket.socket | None:
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.settimeout(START_S)
        stream.connect(address)
    except (FileNotFoundError, ConnectionRefusedError):
        stream.close()
        return None
    except BaseException:
        stream.close()
        raise
    return stream


def _start_for_all(address: str) -> socket.socket:
    if os.path.lexists(address):
        os.unlink(address)  # left by a process that has ended
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        listener.listen()
        # Connect first; the process accepts the connection when it is ready. If this engine is killed before that,
        # the process finds a connection that has ended, and ends too.
        stream = _connected(address)
        assert stream is not None, "this process listens"
        try:
            _start("listener", listener)
        except BaseException:
            stream.close()
            raise
    return stream


def _start_for_one() -> socket.socket:
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            _start("connection", theirs)
    except BaseException:
        ours.close()
        raise
    return ours


def _start(kind: str, stream: socket.socket) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, json.dumps(sys.path), kind, str(stream.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[stream.fileno()],
        cwd="/",
    )
    threading.Thread(target=process.wait, name="reap-clean-interpreter", daemon=True).start()
