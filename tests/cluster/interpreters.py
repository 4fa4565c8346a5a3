"""Interpreters for tests of machines that lack nsactors."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

__all__ = ["interpreter_without_nsactors"]


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
