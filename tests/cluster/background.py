"""The ``nsactors`` command as people run it: in processes of its own, with a folder of its own for what it writes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nsactors.transport.registry import ClusterRecord, Registry

__all__ = ["IMPORT_RAY", "LIMIT_S", "CommandLine"]

LIMIT_S = 200

IMPORT_RAY = """
from nsactors.transport.ray.scripts.run_script import SELDOM_USED, imported_on_use
with imported_on_use(*SELDOM_USED):
    import ray
"""
"""A program's own import of Ray; where JupyterLab is installed, a bare one takes 4 s of a processor more."""

_PROGRAM = "from nsactors.cli import main; main(prog_name='nsactors')"


class CommandLine:
    """Runs the command, and programs beside it.

    Args:
        state: where clusters are registered.
        prefix: what processes are run with.
    """

    def __init__(self, state: Path, prefix: Sequence[str] = ()) -> None:
        self.registry = Registry(state / "nsactors" / "clusters")
        self.environment = {**os.environ, "XDG_STATE_HOME": str(state), "COLUMNS": "100"}
        for name in [name for name in self.environment if name.startswith("RAY_")]:
            del self.environment[name]  # the variables belong to an earlier cluster of this process
        self._prefix = prefix

    def __call__(self, *arguments: str, status: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the command, which must end with this status."""
        done = self._run([*self._prefix, sys.executable, "-c", _PROGRAM, *arguments], **options)
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def json(self, *arguments: str) -> Any:
        """Return the JSON output of the command."""
        return json.loads(self(*arguments, "--json").stdout)

    def python(self, program: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program."""
        return self._run([*self._prefix, sys.executable, "-c", program, *arguments], **options)

    def spawn(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Begin to run the command."""
        command = [*self._prefix, sys.executable, "-c", _PROGRAM, *arguments]
        return subprocess.Popen(
            command,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )

    def shell(self, script: str, **options: Any) -> str:
        """Run lines of a shell, to which the command is known; return what they print, on stdout and stderr."""
        command = shlex.join([*self._prefix, sys.executable, "-c", _PROGRAM])
        lines = f'exec 2>&1\nnsactors() {{ {command} "$@"; }}\n{script}\n'
        return self._run(["bash", "-c", lines], **options).stdout

    def record(self, name: str) -> ClusterRecord:
        """Return the record of a cluster that runs."""
        record = self.registry.find(name)
        assert record.connection is not None
        return record

    def change(self, name: str, **fields: Any) -> ClusterRecord:
        """Write down something else of a cluster's connection, under another name."""
        record = self.record(name)
        assert record.connection is not None
        changed = replace(record, name="changed", connection=replace(record.connection, **fields))
        self.registry.update(changed)
        return changed

    def _run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        usual = {"env": self.environment, "capture_output": True, "text": True, "timeout": LIMIT_S}
        return subprocess.run(command, check=False, **{**usual, **options})
