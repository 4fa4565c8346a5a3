"""The warnings of nsactors: what works in part, or costs more memory or time than it need.

::

    NsactorsWarning              also UserWarning
    ├── EngineStartWarning
    ├── LargeCaptureWarning
    ├── SpillWarning
    └── VersionWarning

Each builds its message from its fields, and says what to do.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from types import FrameType

from nsactors.errors.joining import version_table
from nsactors.errors.sizes import bytes_in_words
from nsactors.errors.tree import EngineStartError

__all__ = [
    "EngineStartWarning",
    "LargeCaptureWarning",
    "NsactorsWarning",
    "SpillWarning",
    "VersionWarning",
    "warn_caller",
]


class NsactorsWarning(UserWarning):
    """Base of every warning that nsactors gives."""


class EngineStartWarning(NsactorsWarning):
    """An engine that could not be started, or has no place to be; the others are usable.

    Args:
        problem: why.
    """

    def __init__(self, problem: EngineStartError) -> None:
        super().__init__(problem)

    def __str__(self) -> str:
        return str(self.args[0])


class LargeCaptureWarning(NsactorsWarning):
    """A call that carries a lot of data to the engines, perhaps by accident.

    Args:
        function: what is called.
        part: what it carries, such as ``"the global `table`"``.
        nbytes: the size of that.
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
    """A value that does not fit into what is free of the object store, so that something goes to disk.

    Args:
        nbytes: the size of the value.
        free_bytes: what was free.
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
            "free: something goes to disk, which is slow. rc.memory() shows what is held; delete what is not needed, "
            "or start with a larger store, Cluster(object_store_memory='8GB')"
        )


class VersionWarning(NsactorsWarning):
    """This process and the cluster run different versions: what one pickles, the other may not understand.

    Args:
        differences: by name, the version here and the version there.
    """

    def __init__(self, differences: Mapping[str, tuple[str, str]]) -> None:
        super().__init__(dict(differences))
        self.differences = dict(differences)

    def __str__(self) -> str:
        return (
            f"this process and the cluster run different versions:\n{version_table(self.differences)}\n"
            "What one of them pickles, the other may not understand: better use the same environment"
        )


def warn_caller(warning: NsactorsWarning) -> None:
    """Give a warning at the line of the user's that led here, however deep in this package that was."""
    level = 2
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("nsactors."):
        frame = frame.f_back
        level += 1
    warnings.warn(warning, stacklevel=level)
