"""A stub for an agent of Ray: ``python -I -S agent_stub.py [SCRIPT ARGUMENT...]``.

A raylet requires its agents, and ends with any of them. If the stub replaces the dashboard's agent, because there is no
dashboard, it lives as long as the raylet and does nothing. If it replaces the agent for runtime environments, it
listens at the agent's port, and becomes the agent, ``python SCRIPT ARGUMENT...``, when the raylet first connects. The
connection waits at the socket, which the agent takes over (``run_script``).

This file is run by path, without ``site``: it imports nothing of the package, and little else.
"""

import os
import select
import sys
from _socket import SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, getaddrinfo, socket  # see worker_stub

CHECK_S = 1.0
RAYLET = "RAY_RAYLET_PID"
LISTENER = "NSACTORS_LISTENER"  # the descriptor of a socket that listens


def _listener(arguments: list[str]) -> socket:
    """Return a socket that listens where an agent with these arguments would.

    Raises:
        OSError: if the port is in use.
    """
    options = dict(argument.partition("=")[::2] for argument in arguments)
    address, port = options["--node-ip-address"], int(options["--runtime-env-agent-port"])
    family, kind, protocol, _, place = getaddrinfo(address, port, type=SOCK_STREAM)[0]
    listener = socket(family, kind, protocol)
    listener.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)  # the port is reserved by a socket with this option
    listener.bind(place)
    listener.listen()
    return listener


def _wait(raylet: int, listener: socket | None) -> bool:
    """Wait for the first of two events; return True for a connection, and False for the end of the raylet."""
    poll = select.poll()
    if listener is not None:
        poll.register(listener, select.POLLIN)
    every_ms: float | None = CHECK_S * 1000
    ended = -1
    if hasattr(os, "pidfd_open"):
        try:
            ended = os.pidfd_open(raylet)
        except OSError:  # the raylet has ended, or the system is too old
            pass
        else:
            poll.register(ended, select.POLLIN)
            every_ms = None
    while os.getppid() == raylet:
        for descriptor, _ in poll.poll(every_ms):
            return descriptor != ended
    return False


def _accompany(raylet: int, command: list[str]) -> None:
    """Wait for the end of the raylet, or become the agent."""
    listener = _listener(command) if command else None
    if _wait(raylet, listener) and listener is not None:
        os.set_inheritable(listener.fileno(), True)
        os.environ[LISTENER] = str(listener.fileno())
        os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
    _accompany(int(os.environ[RAYLET]), sys.argv[1:])
