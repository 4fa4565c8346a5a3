"""A chunk of a lazy map, as one call to one engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nsactors.client.outcomes import read_outcome
from nsactors.core.messages import Failed
from nsactors.core.payload import pack
from nsactors.errors import Failure
from nsactors.namespace.gate import is_user_frame
from nsactors.results import Call
from nsactors.views.mapping import MapPart

__all__ = ["CallChunk", "MapChunk"]


@dataclass(frozen=True, slots=True)
class _Broken:
    """What a chunk came to before one of its items failed."""

    results: list[Any]
    failure: Failure


class MapChunk:
    """``part`` mapped over the items of a chunk; what has been computed before one fails is not lost."""

    def __init__(self, part: MapPart, engine_id: int, label: str) -> None:
        self._part = part
        self._engine_id = engine_id
        self._label = label

    def __call__(self, *columns: Sequence[Any]) -> list[Any] | _Broken:
        """Map over the chunk's part of each iterable."""
        results: list[Any] = []
        try:
            for result in self._part.results(*columns):
                results.append(result)
        except Exception as error:
            below = error.__traceback__ and error.__traceback__.tb_next  # without this frame, which is not the user's
            failure = Failure.capture(
                error.with_traceback(below),
                engine_id=self._engine_id,
                call=self._label,
                dumps=lambda value: pack(value, what="the exception").data,
                is_user_frame=is_user_frame,
            )
            return _Broken(results, failure)
        return results


@dataclass(frozen=True, slots=True)
class CallChunk:
    """Items that have been sent."""

    call: Call
    length: int

    def results(self, return_exceptions: bool) -> Iterator[Any]:
        """One an item, as far as there are any; then raises what came in between."""
        value, error = self.call.value, self.call.error
        if error is not None and return_exceptions:
            value, error = [error] * self.length, None
        elif isinstance(value, _Broken):
            _, error = read_outcome(self.call, Failed(value.failure), None)
            value = value.results
        yield from value or ()
        if error is not None:
            raise error

    @property
    def seconds(self) -> float | None:
        """How long it took, once it is known."""
        call = self.call
        return None if call.started is None or call.completed is None else call.completed - call.started
