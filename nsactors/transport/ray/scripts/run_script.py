"""Run one of Ray's own scripts, ``python run_script.py SCRIPT ARGUMENT...``, and import seldom-used libraries late.

``import ray`` imports ``jsonschema`` and ``requests``, for runtime environments and TPUs. Each driver and worker also
imports ``requests`` when it connects, to report usage, even if reports are off. If JupyterLab is installed,
``jsonschema`` compiles a grammar for internationalised URLs at its import. This takes 0.85 s of the 1.15 s of
``import ray``, in the driver and again in each worker.

This file is run by path: it imports nothing of the package.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import runpy
import socket
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

SELDOM_USED = ("jsonschema", "requests")
_REPORTS_USAGE = "ray._common.usage.usage_lib"
LISTENER = "NSACTORS_LISTENER"  # set by agent_stub


@contextlib.contextmanager
def imported_on_use(*names: str) -> Iterator[None]:
    """Put off imports of these modules within the block until an attribute of theirs is first used.

    Modules that have already been imported stay as they are, and later imports are not affected.
    """
    late = {name: _late_module(name) for name in names if name not in sys.modules}
    sys.modules.update(late)
    try:
        yield
    finally:
        for name, module in late.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def import_ray() -> Any:
    """Import Ray, and what it imports when it connects, without the libraries that are seldom used."""
    with imported_on_use(*SELDOM_USED):
        ray = importlib.import_module("ray")
        with contextlib.suppress(ImportError):  # a private name of Ray: without it, `requests` is imported later
            importlib.import_module(_REPORTS_USAGE)
    return ray


def _late_module(name: str) -> ModuleType:
    module = ModuleType(name)

    def find(attribute: str) -> Any:
        if sys.modules.get(name) is module:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    module.__dict__["__getattr__"] = find
    return module


class _Log:
    """A stream that drops text that it cannot write, for example on a full disk.

    Args:
        stream: a text stream.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the text."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write the lines."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write the buffered text."""
        with contextlib.suppress(OSError):
            self._stream.flush()


def spare_workers_a_full_disk() -> None:
    """Keep a full disk from raising errors where a worker of Ray writes to its stdout and stderr.

    Ray writes an actor's name to these streams just before it calls the constructor, and does not treat an error of
    this write as an error of the constructor. On a full disk the actor would be alive without an instance, and no call
    to it would end. An engine that had died would not restart, even after the disk has room again.
    """
    try:
        utils: Any = importlib.import_module("ray._private.utils")
        open_log = utils.open_log
    except (ImportError, AttributeError):  # a private name of Ray: without it, workers write in Ray's own way
        return
    utils.open_log = lambda *args, **options: _Log(open_log(*args, **options))


def take_over(descriptor: int) -> None:
    """Give a socket that already listens to the socket that is next bound to the same address.

    Two sockets cannot listen at one address, and closing the first would break connections that wait at it.
    """
    listener = socket.socket(fileno=descriptor)
    listener.set_inheritable(False)
    place = listener.getsockname()

    class Socket(socket.socket):
        """A socket that may be bound to an address where this process listens already."""

        def bind(self, address: Any) -> None:
            """Bind the socket, or take over the listener."""
            try:
                super().bind(address)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or address != place:
                    raise
                os.dup2(listener.fileno(), self.fileno(), inheritable=False)
                listener.close()
                socket.socket = Socket.__base__  # type: ignore[misc, assignment]

    socket.socket = Socket  # type: ignore[misc]


def _run(script: str) -> None:
    if (descriptor := os.environ.pop(LISTENER, None)) is not None:
        take_over(int(descriptor))
    del sys.argv[0]
    if not sys.flags.safe_path:  # with PYTHONSAFEPATH, the first folder is the user's
        sys.path[0] = os.path.dirname(script)  # as if the interpreter had run the script itself
    import_ray()
    spare_workers_a_full_disk()
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    _run(sys.argv[1])
