"""Fork workers of Ray from a process that has imported Ray, nsactors and IPython: ``python zygote.py OWNER LISTENER``.

The process listens at a UNIX socket in a private folder. Its owner, the process OWNER, has made the socket, and passes
it as the file descriptor LISTENER. The zygote ends with its owner, and with the raylet. It has one thread, because only
such a process can be forked safely. :mod:`worker_stub` asks it for workers.

Ray reads the process id of the raylet once, when its library is loaded, and a worker ends when that process has ended.
So the zygote imports Ray only after its owner has written this id to stdin; it imports the other modules before that.

A forked worker must be like a worker that was started by ``exec``. So it takes over what a process keeps through
``exec``: environment, file descriptors, working folder, signals, process group, priority, limits. If that is not
enough, because modules read the environment when they are imported, the zygote refuses, and the stub becomes the
worker.

The zygote does not import NumPy, because an engine must set NumPy's environment variables first.

This file is run by path.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import os
import resource
import runpy
import select
import signal
import site
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_SCRIPT_FOLDER = sys.path[0]  # where an interpreter puts the folder of its script, unless PYTHONSAFEPATH is set
_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(_FOLDER))))
_STUB, _RUN_SCRIPT = os.path.join(_FOLDER, "worker_stub.py"), os.path.join(_FOLDER, "run_script.py")
REQUEST_S = 5.0  # limit for the answer of a stub to the offer

OF_NSACTORS = "nsactors.transport.ray.transport", "nsactors.namespace.ipython_shell", "asyncio.staggered"
OF_RAY = (
    "ray._common.pydantic_compat",
    "ray._private.node",
    "ray._private.utils",
    "ray.actor",
    "ray._private.arrow_serialization",
    "ray._private.async_compat",
    "ray._private.parameter",
    "ray._private.ray_logging",
    "ray._private.runtime_env.setup_hook",
    "ray.util.scheduling_strategies",
)
# Ray reads these when it is loaded. If a worker starts without a job, the raylet gives it a job later, as it does for
# the workers that it starts in advance.
JOB, NO_JOB, RAYLET = "RAY_JOB_ID", "ffffffff", "RAY_RAYLET_PID"
# Set by Ray since the start of this process; workers do not read them before the fork.
SET_BY_RAY = {
    b"RAY_CLIENT_MODE",
    b"RAY_JOB_ID",
    b"RAY_LD_PRELOAD_ON_WORKERS",
    b"RAY_enable_worker_prestart",
    b"PYTHONBREAKPOINT",
    b"SPT_NOENV",
}
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


class ForkRefused(Exception):
    """A worker cannot be forked; the message is the reason."""


class Stub:
    """The process that a worker replaces, and the attributes that the worker inherits from it.

    Args:
        pid: its process id. The process waits until the worker has replaced it.

    Raises:
        ForkRefused: if its command line is not that of a stub.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.environment = environment_of(pid)
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
        with open(f"/proc/{pid}/status") as file:
            self._status = dict(line.split(":", 1) for line in file)
        self.command, self.arguments = _commands(words)

    def become(self, descriptors: list[int], set_by_imports: dict[bytes, bytes]) -> None:
        """Turn this process, which was forked for the stub, into what the stub would have become.

        Args:
            descriptors: its stdin, stdout and stderr.
            set_by_imports: the environment variables that modules set when they are imported.
        """
        pid = self.pid
        ignored = self._signals("SigIgn")
        reports_crashes = faulthandler.is_enabled()  # with PYTHONFAULTHANDLER: its handlers are none of Python's
        faulthandler.disable()
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            usual: Any = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            handler = signal.SIG_IGN if number in ignored else usual
            if signal.getsignal(number) != handler:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._signals("SigBlk"))
        group = os.getpgid(pid)
        os.setpgid(0, 0 if group == pid else group)
        os.umask(int(self._status["Umask"], 8))
        for limit in _LIMITS:
            resource.setrlimit(limit, resource.prlimit(pid, limit))
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, pid))
        os.sched_setaffinity(0, os.sched_getaffinity(pid))
        with open(f"/proc/{pid}/oom_score_adj") as file:
            score = file.read()
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(score)
        os.environ.clear()
        os.environb.update({**self.environment, **set_by_imports})
        os.chdir(f"/proc/{pid}/cwd")
        importlib.invalidate_caches()  # a folder of the search path may have been made since
        for standard, descriptor in enumerate(descriptors):
            os.dup2(descriptor, standard)
        if reports_crashes:
            faulthandler.enable()
        sys.orig_argv[:] = self.command
        sys.argv[:] = self.arguments
        if not sys.flags.safe_path:
            sys.path[sys.path.index(_SCRIPT_FOLDER)] = os.path.dirname(sys.argv[0])

    def _signals(self, field: str) -> set[int]:
        mask = int(self._status[field], 16)
        return {int(number) for number in signal.valid_signals() if mask >> (number - 1) & 1}


class Zygote:
    """Accept stubs, one after the other.

    Args:
        listener: the socket to which they connect.
        ends: descriptors; one of them is readable when the owner or the raylet has ended.
        raylet: the process id of the raylet that starts the stubs.
        packages: the result of :func:`installed_packages` when this process started.
    """

    def __init__(self, listener: socket.socket, ends: Sequence[int], raylet: str, packages: Mapping[str, int]) -> None:
        self._listener = listener
        self._ends = ends
        self._packages = packages
        started_with = environment_of("self")
        self._environment = {**started_with, os.fsencode(RAYLET): os.fsencode(raylet)}
        # These include the id of the job, by which log files are named, in Python as well as in Ray's library.
        self._set_since = {name: value for name, value in os.environb.items() if started_with.get(name) != value}

    def serve(self) -> Stub | None:
        """Fork workers until the owner or the raylet ends, and return None; in each worker, return its stub."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system reaps workers that have ended
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        for end in self._ends:
            poll.register(end, select.POLLIN)
        while True:
            if any(ready in self._ends for ready, _ in poll.poll()):
                return None
            connection, _ = self._listener.accept()
            # Errors: the stub has ended or takes too long, or the system has no room for another process.
            with connection, contextlib.suppress(OSError):
                if (stub := self._answer(connection)) is not None:
                    return stub

    def _answer(self, connection: socket.socket) -> Stub | None:
        """Fork a worker for a stub; return the stub in the worker, and None in the zygote."""
        from nsactors.transport.ray.scripts.worker_stub import OFFER, TAKEN

        connection.settimeout(REQUEST_S)
        try:
            stub = self._examine(connection)
        except ForkRefused as reason:
            connection.sendall(str(reason).encode())
            return None
        connection.sendall(OFFER)
        _, descriptors, flags, _ = socket.recv_fds(connection, 1, 3)
        try:
            # If this process cannot have three more descriptors, the system leaves some out.
            complete = len(descriptors) == 3 and not flags & socket.MSG_CTRUNC
            if complete and os.fork() == 0:
                try:
                    self._listener.close()
                    for end in self._ends:
                        os.close(end)
                    stub.become(descriptors, self._set_since)
                    _begin()
                    connection.sendall(TAKEN)
                except BaseException:  # the stub becomes the worker: it sees the end of the connection
                    os._exit(1)
                return stub
            return None
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _examine(self, connection: socket.socket) -> Stub:
        """Return the stub at the other end.

        Raises:
            ForkRefused: if a forked worker would differ from an executed one.
        """
        from nsactors.namespace.forking import has_threads

        pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.getuid():
            raise ForkRefused("another user has asked for it")
        if installed_packages() != self._packages:
            raise ForkRefused("packages were installed since the zygote started")
        if has_threads():
            raise ForkRefused("the zygote has several threads")
        stub = Stub(pid)
        ours, theirs = self._environment, stub.environment
        if changed := {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)} - SET_BY_RAY:
            raise ForkRefused(f"its environment differs in {b', '.join(sorted(changed)).decode(errors='replace')}")
        if os.getsid(pid) != os.getsid(0):
            raise ForkRefused("it is in another session")
        if _cgroup(pid) != _cgroup("self"):
            raise ForkRefused("it is in another control group")
        return stub


def environment_of(process: int | str) -> dict[bytes, bytes]:
    """Return the environment with which a process was executed."""
    with open(f"/proc/{process}/environ", "rb") as file:
        items = (item.partition(b"=") for item in file.read().split(b"\0"))
    return {name: value for name, separator, value in items if name and separator}  # a name can be empty: `=x=1`


def installed_packages() -> dict[str, int]:
    """Return the files and folders by which an interpreter finds installed packages, with their times of change."""
    folders = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    found = {}
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith((".pth", ".dist-info", ".egg-info")):
                    found[entry.path] = entry.stat().st_mtime_ns
    return found


def _commands(stub: list[str]) -> tuple[list[str], list[str]]:
    """Return the command line of the worker that a stub would become, and the script of Ray in it with its arguments.

    Args:
        stub: its command line, ``PYTHON FLAG... -I -S STUB SOCKET RUN_SCRIPT SCRIPT ARGUMENT...``. The flags are those
            that ``sys.executable`` adds, if it is a script that starts Python.

    Raises:
        ForkRefused: if the command line is another one.
    """
    with contextlib.suppress(ValueError):
        i = stub.index(_STUB)
        if stub[i - 2 : i] == ["-I", "-S"] and stub[i + 2 : i + 3] == [_RUN_SCRIPT] and stub[i + 3 :]:
            # Without run_script: the forked process runs Ray's script itself.
            return [*stub[: i - 2], *stub[i + 2 :]], stub[i + 3 :]
    raise ForkRefused("its command line is not that of a stub")


def _cgroup(process: int | str) -> str:
    with open(f"/proc/{process}/cgroup") as file:
        return file.read()


def main(owner: int, listener: int) -> Stub | None:
    """Serve as the zygote; see the module. Return what :meth:`Zygote.serve` returns.

    Args:
        owner: the id of the process that has started this one.
        listener: the descriptor of the socket to which stubs connect.
    """
    packages = installed_packages()
    ended = os.pidfd_open(owner)
    if os.getppid() != owner:  # the owner ended before it could be watched
        return None
    sys.path.insert(0, _PACKAGES)
    importlib.import_module("nsactors")  # this copy of the package, even if a worker would find another one
    sys.path.remove(_PACKAGES)
    from nsactors.transport.ray.scripts.run_script import import_ray, spare_workers_a_full_disk
    from nsactors.transport.ray.zygote_process import start_code

    if start_code():  # the owner may have another environment
        return None
    for name in OF_NSACTORS:
        importlib.import_module(name)
    poll = select.poll()
    for descriptor in (ended, 0):
        poll.register(descriptor, select.POLLIN)
    if any(descriptor == ended for descriptor, _ in poll.poll()) or not (raylet := os.read(0, 64).decode().strip()):
        return None
    # An owner may continue as another program (`os.execv`). Its raylet then ends with the thread that has started it.
    try:
        raylet_ended = os.pidfd_open(int(raylet))
    except ProcessLookupError:
        return None
    os.environ.update({JOB: NO_JOB, RAYLET: raylet})
    import_ray()
    for name in OF_RAY:
        importlib.import_module(name)
    spare_workers_a_full_disk()
    # Workers would share a file that code at the start of the interpreter, in a .pth file, has opened.
    if "numpy" in sys.modules or _descriptors() != {0, 1, 2, listener, ended, raylet_ended}:
        return None
    gc.collect()
    gc.freeze()  # garbage collection in workers would write to pages that all workers share
    return Zygote(socket.socket(fileno=listener), (ended, raylet_ended), raylet, packages).serve()


def _descriptors() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor by which the folder was read is closed
            os.fstat(int(name))
            found.add(int(name))
    return found


def _begin() -> None:
    """Make the state of nsactors in this process that of a process that has just imported it."""
    from nsactors.transport.ray.runtime import ray_runtime

    ray_runtime.belong_here()


if __name__ == "__main__":
    if main(int(sys.argv[1]), int(sys.argv[2])) is None:
        os._exit(0)
    runpy.run_path(sys.argv[0], run_name="__main__")  # in a worker
