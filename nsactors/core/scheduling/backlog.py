"""The engine's side: what it has been sent of a batch and has not begun."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from nsactors.core.scheduling.messages import Span

__all__ = ["Backlog"]


class Backlog:
    """The spans of one batch that an engine has not begun, in order.

    The thread that runs them begins; another may take back meanwhile. Whoever shares it guards it by a lock: an item
    is either begun or given back, never both.

    Example:
        >>> backlog = Backlog([Span("map", 0, 100), Span("call")])
        >>> backlog.begin(), backlog.begin(30)
        (Span(task_id='map', start=0, stop=1), Span(task_id='map', start=1, stop=31))
        >>> backlog.take_back([Span("map", 0, 100)])
        (Span(task_id='map', start=31, stop=100),)
        >>> backlog.begin(), backlog.begin()
        (Span(task_id='call', start=0, stop=1), None)
    """

    def __init__(self, spans: Iterable[Span]) -> None:
        self._spans = deque(spans)

    def begin(self, count: int = 1) -> Span | None:
        """The next items to run, of one task and at most ``count``; None when there are none left."""
        if not self._spans:
            return None
        task_id, start, stop = self._spans[0]
        if start + count < stop:
            self._spans[0] = Span(task_id, start + count, stop)
            return Span(task_id, start, start + count)
        return self._spans.popleft()

    def take_back(self, spans: Iterable[Span]) -> tuple[Span, ...]:
        """Give up what has not begun of these spans, each as it was sent. Returns what is given up."""
        unwanted = {(span.task_id, span.stop) for span in spans}
        given = tuple(span for span in self._spans if (span.task_id, span.stop) in unwanted)
        self._spans = deque(span for span in self._spans if (span.task_id, span.stop) not in unwanted)
        return given
