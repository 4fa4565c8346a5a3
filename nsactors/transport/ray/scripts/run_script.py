"""Run one of Ray's own scripts, ``python run_script.py SCRIPT ARGUMENT...``, and import seldom-used libraries late.

``import ray`` imports ``jsonschema`` and ``requests``, for runtime environments and TPUs. Where JupyterLab is
installed, ``jsonschema`` compiles a grammar for internationalised URLs at its import. That takes 0.85 of the 1.15 s of
``import ray``, in the driver and again in each worker.

This file is run by path: it imports nothing of the package.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import runpy
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

SELDOM_USED = ("jsonschema", "requests")


@contextlib.contextmanager
def imported_on_use(*names: str) -> Iterator[None]:
    """Put off imports of these modules within the block until an attribute of theirs is first used.

    Modules that have been imported before stay as they are, and later imports are not affected.
    """
    late = {name: _late_module(name) for name in names if name not in sys.modules}
    sys.modules.update(late)
    try:
        yield
    finally:
        for name, module in late.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _late_module(name: str) -> ModuleType:
    module = ModuleType(name)

    def find(attribute: str) -> Any:
        if sys.modules.get(name) is module:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    module.__dict__["__getattr__"] = find
    return module


class _Log:
    """A stream that drops text it cannot write, as on a full disk.

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

    Ray writes an actor's name there just before it calls the constructor, and does not treat an error of that write as
    one of the constructor. On a full disk the actor would be alive without an instance, and no call to it would end. An
    engine that had died would not restart, even after the disk has room again.
    """
    try:
        utils: Any = importlib.import_module("ray._private.utils")
        open_log = utils.open_log
    except (ImportError, AttributeError):  # a private name of Ray: without it workers write in Ray's way
        return
    utils.open_log = lambda *args, **options: _Log(open_log(*args, **options))


def _run(script: str) -> None:
    del sys.argv[0]
    if not sys.flags.safe_path:  # with PYTHONSAFEPATH, the first folder is the user's
        sys.path[0] = os.path.dirname(script)  # as if the interpreter had run the script itself
    with imported_on_use(*SELDOM_USED):
        importlib.import_module("ray")
    spare_workers_a_full_disk()
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    _run(sys.argv[1])
