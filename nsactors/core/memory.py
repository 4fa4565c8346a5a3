"""What engines and object stores hold, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["EngineMemory", "NameMemory", "NamespaceMemory", "ProcessMemory", "ProcessorTime", "Size", "StoreMemory"]


class Size(NamedTuple):
    """Bytes that a value takes.

    Attributes:
        own: in memory that belongs to its process.
        shared: in arrays that are views of memory which the processes of a node share, or of a file.
    """

    own: int = 0
    shared: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.own + self.shared


class NameMemory(NamedTuple):
    """What one name of a namespace holds."""

    name: str
    type_name: str
    size: Size


class NamespaceMemory(NamedTuple):
    """What a namespace holds.

    Attributes:
        names: the largest, in order of size; a value under two names is counted in each.
        others: how many names there are besides.
        size: of all names, each value counted once.
    """

    names: tuple[NameMemory, ...]
    others: int
    size: Size


class ProcessMemory(NamedTuple):
    """Memory of a process in bytes: what it has alone (USS), and all that it sees, shared or not (RSS)."""

    unique: int
    resident: int


class ProcessorTime(NamedTuple):
    """Seconds of processor time that a process had used when its monotonic clock said ``at_s``."""

    used_s: float
    at_s: float


class StoreMemory(NamedTuple):
    """The object store of a node.

    Attributes:
        node: the name of the node's host.
        node_id: unique in its cluster.
        capacity: its size in bytes.
        used: bytes that cannot be dropped; more than ``capacity`` if objects that are in use had to go to disk.
        spilled: bytes of objects that were moved to disk.
    """

    node: str
    node_id: str
    capacity: int
    used: int
    spilled: int

    @property
    def free(self) -> int:
        """How much can be put without anything going to disk."""
        return max(0, self.capacity - self.used)

    @property
    def on_disk(self) -> int:
        """What was spilled, and what is used from disk because it did not fit in."""
        return self.spilled + max(0, self.used - self.capacity)


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """What an engine holds.

    Attributes:
        namespace: its names.
        process: its process; None if it shares one with its client.
        store: the object store of its node; None where there is none.
        processor: what its process has used; None as for ``process``.
    """

    namespace: NamespaceMemory
    process: ProcessMemory | None = None
    store: StoreMemory | None = None
    processor: ProcessorTime | None = None
