"""Ray's servers under this process, and a watchdog of their death.

A driver depends on the raylet of its machine and on the GCS of the cluster. Ray does not report their deaths in time:
it ends the process (``_exit(1)``, no traceback). After the raylet's death, it does so at the first contact with the
object store, even if an array of the store is only freed; after the GCS's death, 60 s later. A process that has
*disconnected* before that lives on. So this module watches the servers: on this machine the process itself, on another
machine a connection, which breaks.

The servers are found by private names of Ray. If such a name is gone, that server is not watched.

If a thread is inside Ray's object store when the raylet dies, the process ends before Python runs again, and nothing in
the process can report this. So a shell, which needs one megabyte, waits for the end of the process. The shell writes
its report to the terminal. Without a terminal, as in a notebook, it writes to a file that the next client shows.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nsactors._frozen import frozen
from nsactors.errors.reporting import print_traceback
from nsactors.system.private_files import private_folder_at
from nsactors.system.processes import close_in_children

CONNECT_S = 1.5
TRIES = 3  # new connections to a server that has closed one, with a pause before each
PAUSE_S = 0.5
KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVE_PROBES = 3, 1, 3  # a machine that is gone is noticed within six seconds
RAYLET, GCS = "Ray's raylet", "Ray's GCS"
_TAIL_BYTES = 20_000
_RAYS_PROGRAMS = (b"/raylet", b"/gcs_server", b"/agent_stub.py", b"/run_script.py", b"/worker_stub.py")
_FAILED_AGENT = re.compile(rb"agent failed, agent_name = (\w+)")


@frozen
class ServerDeath:
    """The end of a server.

    Attributes:
        server: its name for people, with process id or address.
        reason: the reason, worded as the rest of a sentence that begins with the name.
        holds_store: whether the object store of this machine has ended with it.
    """

    server: str
    reason: str
    holds_store: bool


class ServerProcess:
    """A server that is a process of this machine.

    Args:
        name: its name, for people.
        pid: its process id.
        child: the process, if this process started it; its exit status is then known.
        logs: the folder of Ray's logs.

    Raises:
        OSError: if there is no such process.
    """

    def __init__(self, name: str, pid: int, child: subprocess.Popen[Any] | None = None, logs: str = "") -> None:
        self._name = name
        self._pid = pid
        self._child = child
        self._logs = logs
        self._pidfd = os.pidfd_open(pid)

    def fileno(self) -> int:
        """Return a file descriptor that is readable when the process has ended."""
        return self._pidfd

    def death(self) -> ServerDeath | None:
        """Return the death of the process, whose descriptor was readable."""
        return ServerDeath(f"{self._name} (process {self._pid})", self._reason(), self._name == RAYLET)

    def close(self) -> None:
        """Stop watching it."""
        os.close(self._pidfd)

    def _reason(self) -> str:
        if agent := _failed_agent(self._logs):
            return f"ended because its {agent} had died"
        status = None if self._child is None else self._child.poll()
        if status is not None and status < 0:
            with contextlib.suppress(ValueError):
                return f"was killed by {signal.Signals(-status).name}"
        return "has died" if status is None else f"ended with status {status}"


class ServerSocket:
    """A server at a known address, watched through a silent connection.

    Args:
        name: its name, for people.
        host: the host of the server.
        port: the port of the server.

    Raises:
        OSError: if the server does not accept the connection.
    """

    def __init__(self, name: str, host: str, port: int) -> None:
        self._name = name
        self._place = host, port
        self._connection = self._connect()

    def fileno(self) -> int:
        """Return a file descriptor that is readable when the server has sent data or closed the connection."""
        return self._connection.fileno()

    def death(self) -> ServerDeath | None:
        """Return the death of the server; None if it is alive, since gRPC closes silent connections."""
        try:
            if self._connection.recv(4096):
                return None
        except OSError:
            pass  # the connection is broken, but the server may be alive
        self._connection.close()
        pause = threading.Event()
        if time.monotonic() - self._connected_at < PAUSE_S:
            pause.wait(PAUSE_S)  # a proxy in front of a dead server accepts every connection, and closes it immediately
        for _ in range(TRIES):
            try:
                self._connection = self._connect()
            except OSError as error:
                reason = "does not answer any more" if isinstance(error, TimeoutError) else "has died"
                pause.wait(PAUSE_S)
            else:
                return None
        return ServerDeath(f"{self._name} at {self._place[0]}:{self._place[1]}", reason, False)

    def close(self) -> None:
        """Stop watching it."""
        self._connection.close()

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(self._place, CONNECT_S)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
            ("TCP_KEEPINTVL", KEEPALIVE_EVERY_S),
            ("TCP_KEEPCNT", KEEPALIVE_PROBES),
        ):
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self._connected_at = time.monotonic()
        return connection


Server = ServerProcess | ServerSocket


def servers_of(ray: Any) -> Iterator[Server]:
    """Yield the servers on which this driver depends, as far as they can be found."""
    node, logs = _node(ray), logs_folder(ray)
    children = _children(node)
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            if raylet := children.get("raylet"):
                yield ServerProcess(RAYLET, raylet.pid, raylet, logs)
            elif (pid := raylet_process(ray)) is not None:
                yield ServerProcess(RAYLET, pid, logs=logs)
        if gcs := children.get("gcs_server"):
            with contextlib.suppress(OSError):
                yield ServerProcess(GCS, gcs.pid, gcs)
            return
    host, _, port = str(ray.get_runtime_context().gcs_address).rpartition(":")
    if host and port.isdigit():
        with contextlib.suppress(OSError):
            yield ServerSocket(GCS, host.strip("[]"), int(port))


def logs_folder(ray: Any) -> str:
    """Return the folder of Ray's logs on this machine; empty if it is not known."""
    return str(getattr(_node(ray), "_logs_dir", None) or "")


def _node(ray: Any) -> Any:
    return getattr(getattr(getattr(ray, "_private", None), "worker", None), "_global_node", None)


def raylet_process(ray: Any) -> int | None:
    """Return the process id of this machine's raylet; None if it is not known."""
    path = getattr(_node(ray), "raylet_socket_name", None)
    if path not in _raylets:
        try:
            _raylets[path] = _listener(path)
        except OSError:
            return None
    return _raylets[path]


_raylets: dict[str | None, int | None] = {}  # by the path of its socket


def end_rest(folder: str) -> None:
    """Kill the other processes of an embedded Ray whose server has died: they would stay for half a minute.

    The processes are recognised by their open logs, since Ray writes their titles over their environment.

    Args:
        folder: the folder of that Ray.
    """
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process has ended, or belongs to another user
            command = (process / "cmdline").read_bytes().split(b"\0")
            of_ray = command[0].startswith(b"ray::") or any(part.endswith(_RAYS_PROGRAMS) for part in command[:4])
            if of_ray and any(os.readlink(file).startswith(folder) for file in (process / "fd").iterdir()):
                os.kill(int(process.name), signal.SIGKILL)


def _children(node: Any) -> dict[str, subprocess.Popen[Any]]:
    """Return the servers that this process has started, by Ray's names."""
    processes = getattr(node, "all_processes", None) or {}
    return {name: infos[0].process for name, infos in processes.items() if infos and hasattr(infos[0], "process")}


def _listener(path: str | None) -> int | None:
    """Return the id of the process that listens at a UNIX socket."""
    if not path or not hasattr(socket, "SO_PEERCRED"):
        return None
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(CONNECT_S)
        connection.connect(path)
        pid: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return pid or None


def _failed_agent(logs: str) -> str:
    """Return the agent whose death ended the raylet, if its log names one: a raylet ends with any of its agents."""
    try:
        with open(Path(logs) / "raylet.out", "rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - _TAIL_BYTES))
            found = _FAILED_AGENT.search(log.read())
    except OSError:
        return ""
    return "" if found is None else found[1].decode().replace("_", " ")


class ServerMonitor:
    """Wait for the first death of a server, on a thread that takes no processor time while it waits.

    Args:
        servers: the servers, which are closed at the end.
        died: called once, on the monitor's thread.
    """

    def __init__(self, servers: list[Server], died: Callable[[ServerDeath], object]) -> None:
        self._servers = servers
        self._died = died
        self._wake, self._stop = os.pipe()
        self._stopped = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="nsactors-ray-monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching: later deaths are intended."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            os.close(self._stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(CONNECT_S)

    def _run(self) -> None:
        death = None
        try:
            death = self._first_death()
        finally:
            os.close(self._wake)
            for server in self._servers:
                server.close()
        with self._lock:
            intended = self._stopped
        if death is not None and not intended:
            try:
                self._died(death)
            except Exception:
                print_traceback()

    def _first_death(self) -> ServerDeath | None:
        while True:
            poll = select.poll()
            by_number = {server.fileno(): server for server in self._servers}
            for number in (self._wake, *by_number):
                poll.register(number, select.POLLIN)
            for number, _ in poll.poll():
                if number == self._wake:
                    return None
                if (death := by_number[number].death()) is not None:
                    return death


OLD_AFTER_S = 86_400.0

_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "watchdog.sh")


class Watchdog:
    """A shell that reports the end of this process, unless it is stopped first.

    Args:
        raylet: the process id of its raylet, for people.
        logs: the folder of that Ray's logs.
        folder: the folder for reports that cannot be written to a terminal.

    Raises:
        OSError: if there is no shell.
    """

    def __init__(self, raylet: int, logs: str, folder: Path) -> None:
        arguments = [str(os.getpid()), os.fspath(folder), logs, str(raylet)]
        # A shell, not Python, which would take 10 MB and tens of milliseconds.
        self._shell = subprocess.Popen(
            ["/bin/sh", _SCRIPT, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C must not end the shell
        )
        assert self._shell.stdin is not None
        close_in_children(self._shell.stdin)

    def stop(self) -> None:
        """Stop watching: a later end is intended, or has been reported."""
        with contextlib.suppress(BrokenPipeError):  # the shell has been killed
            self._shell.communicate(b"quiet\n")


def take_death_reports(folder: Path) -> list[str]:
    """Return the reports of watchdogs about processes of this user, each once; old reports are dropped."""
    if not folder.is_dir():
        return []
    private_folder_at(folder)
    texts = []
    for file in sorted(folder.glob("*.txt")):
        with contextlib.suppress(FileNotFoundError):  # another client has just shown it
            age_s = time.time() - file.stat().st_mtime
            text = file.read_text().strip()
            file.unlink()
            if text and age_s < OLD_AFTER_S:
                texts.append(text)
    return texts
