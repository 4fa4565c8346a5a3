"""Futures by the ten thousand."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from typing import Any

__all__ = ["LeanFuture"]

_MAKING = threading.RLock()  # a garbage collection may come back to it


class LeanFuture(Future[Any]):
    """A future that gets its condition variable when somebody waits for it, asks for a call, or cancels it.

    That is two thirds of a future's memory, and most futures of many are looked at when they have ended.
    """

    def __init__(self) -> None:
        # In place of the parent's own, which makes the condition.
        self._made_condition: threading.Condition | None = None
        self._state = PENDING
        self._result: Any = None
        self._exception: BaseException | None = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]  # where the parent has an attribute
        made = self._made_condition
        if made is None:
            with _MAKING:
                made = self._made_condition = self._made_condition or threading.Condition()
        return made

    def done(self) -> bool:
        """As ``Future.done``."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED)

    def cancelled(self) -> bool:
        """As ``Future.cancelled``."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def result(self, timeout: float | None = None) -> Any:
        """As ``Future.result``."""
        self._wait_until_done(timeout)
        if self._state == FINISHED and self._exception is None:  # without the lock that the parent would have made
            return self._result
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As ``Future.exception``."""
        self._wait_until_done(timeout)
        return super().exception(0)

    def _wait_until_done(self, timeout: float | None) -> None:
        # The parent takes the first time that it is woken, which may be by notify(), for the end of its time.
        if not self.done():
            with self._condition:
                self._condition.wait_for(self.done, timeout)

    def set_result(self, result: Any) -> None:
        """As ``Future.set_result``."""
        if not self._end_unnoticed(result, None):
            super().set_result(result)

    def set_exception(self, exception: BaseException | None) -> None:
        """As ``Future.set_exception``."""
        if not self._end_unnoticed(None, exception):
            super().set_exception(exception)

    def notify(self) -> None:
        """Let those who wait look whether they have waited long enough."""
        condition = self._made_condition  # whoever makes one later looks after that
        if condition is not None:
            with condition:
                condition.notify_all()

    def _end_unnoticed(self, result: Any, exception: BaseException | None) -> bool:
        """End without a word, if nobody has asked for one."""
        with _MAKING:
            if self._made_condition is not None or self._state != PENDING:
                return False
            self._result, self._exception = result, exception
            self._state = FINISHED
            return True
