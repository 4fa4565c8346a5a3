"""What a caller of a service has to say and need not wait for, sent with few messages."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from nsactors.errors import ServiceClosed

__all__ = ["FULL", "Item", "Outbox", "settle_all"]

T = TypeVar("T")

Item = int | tuple[int, int, Any]
"""The number of a call whose answer has been received; or a call that wants none: number, predecessor, request."""

FULL = 64
MOST_POSTED = 8  # messages, each with as many items
MOMENT_S = 0.0005


class Outbox:
    """Items that go along with the next call of the same party, or by themselves.

    A message costs a third of a call. So what is added is sent by a thread, a moment later: mostly the caller has made
    its next call before that, which takes everything along. (Without that moment the thread gets in the caller's way: a
    call with a told one and an acknowledgement takes 1.9 ms in place of 1.3.)

    What was told before a request to an engine, or before an engine's reply, has been handled when that is sent (see
    :func:`settle_all`); what went along with a call, when that is answered.

    Args:
        post: sends items; gives what stands for their having been handled.
        settle: waits for that.

    Attributes:
        sent: how many items and calls the other end should have heard of.
    """

    def __init__(self, post: Callable[[list[Item]], Any], settle: Callable[[Any], None]) -> None:
        self._post = post
        self._settle = settle
        self._lock = threading.RLock()  # the garbage collector may call close() in the midst of post()
        self._settling = threading.Lock()
        self._items: list[Item] = []
        self._posted: deque[Any] = deque()
        self._added = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self.sent = 0

    def add(self, item: Item) -> None:
        """Send this soon; waits only if much is under way. Raises what went wrong with others, if nobody was told."""
        self._complain()
        with self._lock:
            self._items.append(item)
            if isinstance(item, tuple):
                _unsettled.add(self)
            self._thread = self._thread or self._start()
        if len(self._items) < FULL:
            if not self._added.is_set():
                self._added.set()
            return
        self.settle(MOST_POSTED)

    def along(self, send: Callable[[list[Item]], T]) -> T:
        """Send everything with a call; raises as :meth:`add`."""
        self._complain()
        with self._lock:
            sent = self._send(send)
            self.sent += 1  # last: what was interrupted before it was sent is not waited for
            return sent

    def post(self) -> None:
        """Send everything now."""
        with self._lock:
            if self._items:
                self._posted.append(self._send(self._post))

    def settle(self, most_left: int = 0) -> None:
        """Send everything now, and wait until all of it but so many messages has been handled."""
        self.post()
        with self._settling:  # whoever comes second waits for what the first one waits for
            while len(self._posted) > most_left:
                try:
                    self._settle(self._posted[0])
                finally:
                    self._posted.popleft()
        with self._lock:
            if not (self._items or self._posted):
                _unsettled.discard(self)

    def try_to_settle(self, most_left: int = 0) -> None:
        """As :meth:`settle`, for nobody in particular: what goes wrong is for who calls or tells next."""
        try:
            self.settle(most_left)
        except (ServiceClosed, TimeoutError):
            _unsettled.discard(self)  # the next call says so by itself
        except Exception as error:
            _unsettled.discard(self)
            self._failure = error

    def _complain(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _send(self, send: Callable[[list[Item]], T]) -> T:
        # Not taken out before it is sent: an interrupt in between may send it twice, which is noticed at the other
        # end, and does not lose it.
        count = len(self._items)
        sent = send(self._items[:count])
        del self._items[:count]
        self.sent += count
        return sent

    def close(self, *, wait: bool = False) -> None:
        """Send the rest and end the thread; ``wait`` until it is there, where the process ends after this."""
        self.post()
        self._closed.set()
        self._added.set()
        if wait:
            self.settle()

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._serve, name="service-outbox", daemon=True)
        thread.start()
        return thread

    def _serve(self) -> None:
        while self._added.wait() and not self._closed.wait(MOMENT_S):
            self._added.clear()
            self.try_to_settle(MOST_POSTED)


_unsettled: set[Outbox] = set()  # of this process


def settle_all() -> None:
    """Wait until what this process has told has been handled: whoever hears of it from us now will find it there."""
    for outbox in list(_unsettled):
        outbox.try_to_settle()
