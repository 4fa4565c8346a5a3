"""What is known about several calls taken together."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nsactors.results.call import METADATA_KEYS, Call, Metadata

if TYPE_CHECKING:
    from nsactors.results.timeline import Timeline

__all__ = ["CallGroup"]


class CallGroup:
    """Progress, times and metadata of calls.

    Args:
        calls: one per engine.
        label: what people call them together, e.g. ``apply(f)``.
        single: whether there is one value rather than a list with one.
    """

    def __init__(self, calls: list[Call], label: str, single: bool) -> None:
        self._calls = calls
        self._label = label
        self._single = single

    @property
    def calls(self) -> list[Call]:
        """The calls, in the order of the targets."""
        return list(self._calls)

    @contextmanager
    def stream_output(self) -> Iterator[None]:
        """Show what the engines print and display, as it comes, within a ``with`` block.

        Example:
            >>> with result.stream_output():
            ...     result.wait()
        """
        from nsactors.results.live import LiveOutput, open_screen

        live = LiveOutput(self._calls, open_screen(blocking=True))
        thread = live.follow()
        try:
            yield
        finally:
            if not self.settled:
                live.stop()
            thread.join()

    @property
    def settled(self) -> bool:
        """Whether every engine has answered."""
        return all(call.done for call in self._calls)

    @property
    def msg_ids(self) -> list[str]:
        """The ids of the requests."""
        return [str(call.request_id) for call in self._calls]

    @property
    def metadata(self) -> Any:
        """What is known about the call to each engine; a list unless it is a single one."""
        known = [Metadata.of(call) for call in self.calls]
        return known[0] if self._single else known

    @property
    def progress(self) -> int:
        """How many engines have answered."""
        return sum(call.done for call in self._calls)

    @property
    def elapsed(self) -> float:
        """Seconds since submission, until now or the last answer."""
        if not self._calls:
            return 0.0
        end = time.time() if not self.settled else max((c.received or 0.0) for c in self._calls)
        return end - min(call.submitted for call in self._calls)

    @property
    def serial_time(self) -> float:
        """Seconds that the engines computed, added up; so far, if it is not done."""
        return sum(c.completed - c.started for c in self.calls if c.completed is not None and c.started is not None)

    @property
    def wall_time(self) -> float:
        """Seconds from submission to the last answer.

        Raises:
            TimeoutError: if it is not done.
        """
        if not self.settled:
            raise TimeoutError(f"{self._label} is not done")
        return self.elapsed

    def timeline(self, engines: Iterable[int] = ()) -> Timeline:
        """A picture of which engine did what when, with utilisation and speed-up; of what has ended so far.

        Args:
            engines: ids of engines that get a line although they did nothing, and count as unused: ``rc.ids``.
        """
        from nsactors.results.timeline import Timeline

        return Timeline.of(self, engines=engines)

    def __len__(self) -> int:
        return len(self._calls)

    def known(self, key: str) -> Any:
        """One entry of the metadata: of each call, or of the single one.

        Raises:
            KeyError: if there is no such entry.
        """
        values = [Metadata.of(call)[key] for call in self.calls]
        return values[0] if self._single else values

    def __getattr__(self, name: str) -> Any:
        if name in METADATA_KEYS:
            return self.known(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __rich__(self) -> Any:
        """A table of how far each engine is."""
        from nsactors.results.forms import result_table

        return result_table(repr(self), self.calls)

    def _repr_html_(self) -> str:
        from nsactors.results.forms import result_html

        return result_html(repr(self), self.calls)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *METADATA_KEYS})
