"""What clients and the scheduler of detached tasks say to each other."""

from __future__ import annotations

from typing import Any, NamedTuple

from nsactors.core.kept_tasks import KeptTask, Piece
from nsactors.core.payload import pack, unpack
from nsactors.core.scheduling import Task
from nsactors.core.tasks import Nested, nest, unnest

__all__ = ["Description", "Order", "Progress", "pack_columns", "unpack_columns"]


class Order(NamedTuple):
    """A task to be run.

    Attributes:
        task: as the scheduler takes it.
        label: what people call it.
        copies: whether arrays in its results are copies that can be written to.
        joins: whether its results are parts of one sequence.
        submitted: when, in seconds since the epoch.
        limit_s: seconds after which an item is interrupted.
        call: of a call: function and arguments.
        function: of a map.
        columns: of a map: its items.
    """

    task: Task
    label: str
    copies: bool
    joins: bool
    submitted: float
    limit_s: float | None
    call: Nested | None
    function: tuple[int, Nested] | None
    columns: Nested | None

    @property
    def is_map(self) -> bool:
        """Whether it is a map."""
        return self.function is not None

    @property
    def input_bytes(self) -> int:
        """The size of its arguments, or items."""
        nested = self.call if self.columns is None else self.columns
        return 0 if nested is None else unnest(nested).nbytes


class Description(NamedTuple):
    """What a client that has not submitted a task is told of it; fields are those of ``KeptTask``."""

    label: str
    size: int | None
    copies: bool
    joins: bool
    submitted: float

    @classmethod
    def of(cls, task: KeptTask) -> Description:
        """The description of a task."""
        return cls(task.label, task.size, task.copies, task.joins, task.submitted)


class Progress(NamedTuple):
    """What has come of a task since a client asked last.

    Attributes:
        pieces: further ones, in the order in which they came.
        tried_on: the engines that it failed on, or that were lost under it.
        lost: why there will be none; None if there will.
    """

    pieces: tuple[Piece, ...]
    tried_on: tuple[int, ...] = ()
    lost: str | None = None


def pack_columns(columns: tuple[Any, ...], ref_types: tuple[type, ...]) -> Nested:
    """The items of a map, as they travel."""
    return nest(pack(columns, what="items", ref_types=ref_types))


def unpack_columns(columns: Nested) -> tuple[Any, ...]:
    """Undo :func:`pack_columns`."""
    unpacked: tuple[Any, ...] = unpack(unnest(columns))
    return unpacked
