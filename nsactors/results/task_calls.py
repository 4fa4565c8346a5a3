"""Tasks as the calls they are to their submitter: a call that has no engine yet, and a map whose parts arrive."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nsactors.errors import CompositeError
from nsactors.results.call import Call

__all__ = ["MapCall", "MapPiece", "TaskCall"]


@dataclass(slots=True, eq=False)
class TaskCall(Call):
    """A task.

    Attributes:
        dropped: takes the task's number when nobody holds it any more: no other can be made to depend on it then.
    """

    dropped: deque[int] = field(default_factory=deque)

    def __del__(self) -> None:
        self.dropped.append(self.request_id.seq)


@dataclass(slots=True, eq=False)
class MapPiece(Call):
    """What an engine has made of consecutive items of a map: a list of values, or an error."""

    start: int = 0
    stop: int = 0

    @property
    def values(self) -> list[Any]:
        """One an item: its value, or the error in its place."""
        return self.value if self.error is None else [self.error] * (self.stop - self.start)


@dataclass(slots=True, eq=False)
class MapCall(TaskCall):
    """A map: a task of ``size`` items, which ends when all have. If it ``joins``, its values are parts of one."""

    size: int = 0
    left: int = 0
    joins: bool = False
    pieces: list[MapPiece] = field(default_factory=list)  # as they come
    _piece_listeners: list[Callable[[MapPiece], None]] = field(default_factory=list)

    def add(self, piece: MapPiece) -> None:
        """Some of its items have ended; the call is yet to be settled when none is left."""
        self.left -= piece.stop - piece.start
        if piece.error is not None and self.error is None:
            self.error = piece.error
        self.pieces.append(piece)
        for listener in self._piece_listeners:
            listener(piece)

    def when_piece_arrives(self, listener: Callable[[MapPiece], None]) -> None:
        """Call ``listener`` with each piece that arrives from now on, from another thread."""
        self._piece_listeners.append(listener)

    @property
    def values(self) -> list[Any]:
        """One an item, when it has ended: its value, or the error in its place."""
        return [value for piece in sorted(self.pieces, key=_start) for value in piece.values]

    @property
    def failure(self) -> CompositeError | None:
        """All that has failed."""
        errors = [piece.error for piece in self.pieces if piece.error is not None]
        if not errors:
            return None
        failed = sum(piece.stop - piece.start for piece in self.pieces if piece.error is not None)
        return CompositeError(f"{self.label} failed for {failed} of {self.size} item{'s' * (self.size != 1)}", errors)


def _start(piece: MapPiece) -> int:
    return piece.start
