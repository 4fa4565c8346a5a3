"""The warnings of nsactors: degraded starts, costly calls, different versions.

::

    NsactorsWarning              also UserWarning
    ├── EngineStartWarning
    ├── LargeCaptureWarning
    ├── SpillWarning
    └── VersionWarning

Each class builds its message from its fields, and says what to do next.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from types import FrameType

from nsactors.errors.exceptions import EngineStartError
from nsactors.errors.formatting import bytes_in_words
from nsactors.errors.joining import version_table


class NsactorsWarning(UserWarning):
    """Base of every warning that nsactors gives."""


class EngineStartWarning(NsactorsWarning):
    """An engine did not start, or no machine has room for it; the other engines are usable.

    Args:
        problem: the error of its start.
    """

    def __init__(self, problem: EngineStartError) -> None:
        super().__init__(problem)

    def __str__(self) -> str:
        return str(self.args[0])


class LargeCaptureWarning(NsactorsWarning):
    """A call carries much data to the engines, perhaps by accident.

    Args:
        function: the function that is called.
        part: the part that is large, such as ``"the global `table`"``.
        nbytes: its size.
        instead: how to send it once.
    """

    def __init__(self, function: str, part: str, nbytes: int, instead: str) -> None:
        super().__init__(function, part, nbytes, instead)
        self.function = function
        self.part = part
        self.nbytes = nbytes
        self.instead = instead

    def __str__(self) -> str:
        size = bytes_in_words(self.nbytes)
        return f"`{self.function}` carries {self.part} ({size}) to the engines: {self.instead}"


class SpillWarning(NsactorsWarning):
    """A value does not fit into the free part of the object store, which will spill to disk.

    Args:
        nbytes: the size of the value.
        free_bytes: the free part.
        capacity_bytes: the size of the store.
    """

    def __init__(self, nbytes: int, free_bytes: int, capacity_bytes: int) -> None:
        super().__init__(nbytes, free_bytes, capacity_bytes)
        self.nbytes = nbytes
        self.free_bytes = free_bytes
        self.capacity_bytes = capacity_bytes

    def __str__(self) -> str:
        free, capacity = bytes_in_words(self.free_bytes), bytes_in_words(self.capacity_bytes)
        return (
            f"{bytes_in_words(self.nbytes)} go into the object store of this machine, where {free} of {capacity} are "
            "free: the store spills to disk, which is slow. rc.memory() lists the values in it; delete those that you "
            "do not need, or start with a larger store, Cluster(object_store_memory='8GB')"
        )


class VersionWarning(NsactorsWarning):
    """This process and the cluster run different versions, and may not understand each other's pickles.

    Args:
        differences: the version here and the version of the cluster, by name.
    """

    def __init__(self, differences: Mapping[str, tuple[str, str]]) -> None:
        super().__init__(dict(differences))
        self.differences = dict(differences)

    def __str__(self) -> str:
        return (
            f"this process and the cluster run different versions:\n{version_table(self.differences)}\n"
            "One may not understand what the other pickles: use the same environment in both"
        )


def warn_caller(warning: NsactorsWarning) -> None:
    """Give a warning at the line of user code that made the call, however many frames of this package lie between."""
    level = 2
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("nsactors."):
        frame = frame.f_back
        level += 1
    warnings.warn(warning, stacklevel=level)
