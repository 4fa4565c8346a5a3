"""Engines as kernels of Jupyter: a console, a notebook or an editor runs its cells on one engine.

A small process speaks Jupyter's protocol, and is a client of the engine (see :mod:`nsactors.cluster.kernel_process`).
Cells go through the engine's stream of requests, as requests of any client do: they wait for earlier requests, and are
in the history and in the journal.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nsactors.errors import CapabilityError, NsactorsError, PackageMissing, WrongValue
from nsactors.protocol import arguments as arg
from nsactors.system.processes import ProcessIdentity
from nsactors.views.direct import DirectView

if TYPE_CHECKING:
    from nsactors.transport.base import ConnectionInfo

END_S = 10.0
KILL_S = 5.0
LOOK_S = 0.01
_TAKES = "a view of one engine, such as rc[3]"


class EngineKernel:
    """A kernel of Jupyter whose cells run on an engine.

    The kernel ends when its engine or the cluster ends, or when :meth:`close` is called, but not when the process that
    started the kernel ends. While the engine restarts, the kernel stays.

    Attributes:
        engine_id: the engine.
        connection_file: the file with which programs of Jupyter connect: ``jupyter console --existing FILE``. The file
            and the sockets are in a folder that only this user can read. No port is opened.
    """

    def __init__(self, engine_id: int, connection_file: str, process: ProcessIdentity) -> None:
        self.engine_id = engine_id
        self.connection_file = connection_file
        self._process = process

    @property
    def is_running(self) -> bool:
        """True while programs can connect to the kernel."""
        return not self._process.is_gone

    def close(self) -> None:
        """End the kernel; the engine stays as it is."""
        pause = threading.Event()
        for stop, wait_s in ((signal.SIGTERM, END_S), (signal.SIGKILL, KILL_S)):
            give_up = time.monotonic() + wait_s
            if self.is_running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._process.pid, stop)
            while self.is_running and time.monotonic() < give_up:
                pause.wait(LOOK_S)

    def __repr__(self) -> str:
        command = f"jupyter console --existing {self.connection_file}"
        return f"<EngineKernel of engine {self.engine_id}: {command if self.is_running else 'has ended'}>"


def bind_kernel(engine: DirectView | None = None) -> EngineKernel:
    """Start a kernel of Jupyter whose cells run on an engine, and return it when programs can connect to it.

    Output, figures and errors appear as in any notebook. Interrupting the kernel interrupts the engine's cell. TAB and
    Shift-TAB ask the engine, also while it runs something. Restarting or shutting down the kernel ends the kernel's
    process only.

    Args:
        engine: a view of one engine, such as ``rc[3]``. In code that runs on an engine the default is that engine.

    Returns:
        The kernel. Its ``repr`` is the command that opens a console.

    Raises:
        WrongValue: if the view is of several engines.
        PackageMissing: without the package ``ipykernel``.
        CapabilityError: if engines are threads, or if no view is given in a process that is not an engine.
        NsactorsError: if the kernel cannot be started; the text says why.

    Example:
        >>> nsactors.bind_kernel(rc[3])
        <EngineKernel of engine 3: jupyter console --existing /tmp/nsa-4711-x/kernel.json>
    """
    arg.check("bind_kernel", engine=arg.instance(engine, DirectView, _TAKES, or_none=True))
    if engine is None:
        return start_kernel(*_engine_here())
    session = engine.client.session
    ids = session.resolve(engine.targets)
    if len(ids) != 1:
        raise WrongValue("bind_kernel", "engine", engine, _TAKES)
    return start_kernel(session.transport.connection_info(), ids[0])


def _engine_here() -> tuple[ConnectionInfo, int]:
    from nsactors.transport.ray.engine_process import engine_here

    found = engine_here()
    if found is None:
        raise CapabilityError("become a kernel", "this process", "it is no engine; give a view of one, such as rc[3]")
    return found


def start_kernel(info: ConnectionInfo, engine_id: int) -> EngineKernel:
    """Start a kernel whose cells run on an engine of a cluster; see :func:`bind_kernel`.

    Args:
        info: the connection info of the cluster.
        engine_id: the engine.
    """
    try:
        import ipykernel  # noqa: F401 (the other process needs it)
    except ImportError as error:
        raise PackageMissing("bind_kernel()", "ipykernel", "pip install 'nsactors[jupyter]'") from error
    process = subprocess.Popen(
        [sys.executable, "-m", "nsactors.cluster.kernel_process", str(engine_id)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C at a terminal is for the programs there
    )
    try:
        found = _ask(process, json.dumps(asdict(info)))
    finally:
        process.wait()  # it has forked the kernel, and ends
    if "connection_file" not in found:
        raise NsactorsError(
            f"the kernel of engine {engine_id} did not start: {found.get('error', 'its process ended')}"
        )
    return EngineKernel(engine_id, found["connection_file"], ProcessIdentity.of(found["pid"]))


def _ask(process: subprocess.Popen[str], request: str) -> dict[str, Any]:
    """Send the process its request, and return its answer; an empty dictionary if the process ends without one."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(request)
    with process.stdout:
        answer: dict[str, Any] = json.loads(process.stdout.readline() or "{}")
    return answer
