"""The versions of this process that those it talks to should have too."""

from __future__ import annotations

import functools
import platform
from importlib import metadata

from nsactors import __version__

__all__ = ["versions_here"]

_PACKAGES = ("ray", "cloudpickle", "ipython", "numpy", "pandas", "pyarrow")


@functools.cache
def versions_here() -> dict[str, str]:
    """By name, the versions of Python, nsactors, and what is installed of packages whose objects travel."""
    found = {"python": platform.python_version(), "nsactors": __version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
