"""Runs one of Ray's own scripts: ``python ray_script.py SCRIPT ARGUMENT...``; what Ray seldom uses is imported later.

``import ray`` takes ``jsonschema`` and ``requests`` along, for runtime environments and TPUs. Where JupyterLab is
installed, ``jsonschema`` compiles a grammar for internationalised URLs as it is imported: 0.85 of the 1.15 s of
``import ray``, in the driver and again in each worker.

This file is run by path: it imports nothing of the package.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import runpy
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

__all__ = ["imported_on_use"]

SELDOM_USED = ("jsonschema", "requests")


@contextlib.contextmanager
def imported_on_use(*names: str) -> Iterator[None]:
    """Whoever imports one of these modules meanwhile gets one that is imported when it is first used.

    Afterwards ``import`` is as before for everybody else. What has been imported already stays.
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


def _run(script: str) -> None:
    del sys.argv[0]
    sys.path[0] = os.path.dirname(script)  # as if the interpreter had been given the script itself
    with imported_on_use(*SELDOM_USED):
        importlib.import_module("ray")
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    _run(sys.argv[1])
