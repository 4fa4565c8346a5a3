"""Interpreters for tests of machines that lack nsactors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

__all__ = ["OPEN", "closed_to_others", "command_to_open", "interpreter_without_nsactors"]

ROOT = Path(__file__).parents[2]

# Python, or this checkout, may be in a folder that is closed to other users. They then see one in its place that is
# open, and holds nothing but them.
OPEN = """
import json, os, subprocess, sys
what = json.loads(sys.argv[1])
def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)
for number, path in enumerate(what["needed"]):
    os.makedirs(f"{what['stage']}/{number}", exist_ok=True)
    mount("--bind", path, f"{what['stage']}/{number}")
for folder in what["closed"]:
    mount("-t", "tmpfs", "-o", "mode=0755", "none", folder)
for number, path in enumerate(what["needed"]):
    os.makedirs(path, exist_ok=True)
    mount("--bind", f"{what['stage']}/{number}", path)
"""


def command_to_open(stage: Path) -> list[str]:
    """Return a command that opens this interpreter and checkout to all users of a mount namespace.

    Args:
        stage: a folder for its mounts, which need not exist.
    """
    return [sys.executable, "-c", OPEN, json.dumps(closed_to_others(stage))]


def closed_to_others(stage: Path) -> dict[str, object]:
    """Return the argument of ``OPEN``, which determines its actions."""
    needed = {os.path.realpath(path) for path in (sys.base_prefix, sys.prefix, ROOT)}
    closed = {path: folder for path in needed if (folder := _closed_folder_above(Path(path))) is not None}
    return {
        "closed": sorted({str(folder) for folder in closed.values()}),
        "needed": sorted(closed),
        "stage": str(stage),
    }


def _closed_folder_above(path: Path) -> Path | None:
    """The uppermost folder on the way to ``path`` that others cannot pass through."""
    return next((folder for folder in [*reversed(path.parents), path] if not folder.stat().st_mode & 0o001), None)


def interpreter_without_nsactors(folder: Path) -> str:
    """Return the path of an interpreter that has all packages of this one, but not nsactors.

    Args:
        folder: where its environment is made.

    Raises:
        AssertionError: if nsactors is among the packages, and not a checkout that they refer to.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python3*/site-packages")
    # Python adds these folders to its path, and does not read the files in them that refer to checkouts.
    others = [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    (packages / "others.pth").write_text("\n".join(others))
    # mpi4py looks for MPI beside the interpreter, where a wheel has put it with what it needs.
    for libraries in {Path(path).parents[1] for path in others}:
        if any(libraries.glob("libmpi.so*")):
            for library in set(libraries.iterdir()) - set(libraries.glob("python3*")):
                (folder / "lib" / library.name).symlink_to(library)
    code = "import importlib.util as u, numpy; raise SystemExit(u.find_spec('nsactors') is not None)"
    done = subprocess.run([python, "-c", code], cwd=folder, env={}, check=False)
    assert done.returncode == 0, f"{python} has nsactors, or not the other packages"
    return str(python)
