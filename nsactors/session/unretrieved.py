"""Errors of calls whose results were never asked for, and other notices for the user: errors never pass silently."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nsactors.errors import ClientClosed, EngineLost, TaskAborted, group_failures, plural
from nsactors.protocol.messages import RequestId

if TYPE_CHECKING:
    from nsactors.results import Call

LIMIT = 1_000
COUNTED = 100_000  # failures beyond the limit are counted up to this number; their errors are not kept


class UnretrievedErrors:
    """Collects errors of calls until their results are asked for; reports the others once, at a prompt or at exit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unseen: dict[RequestId, Exception] = {}
        self._displayed: set[RequestId] = set()  # calls whose errors a display will show
        self._left_out: set[RequestId] = set()  # failed calls beyond the limit
        self._notices: list[str] = []
        self._deaths: dict[int, str] = {}
        self._deaths_seen: set[int] = set()
        self._joined: dict[int, float] = {}

    def engine_died(self, engine_id: int, notice: str) -> None:
        """Add the notice that an engine has died, unless the user already knows this from the error of a call."""
        with self._lock:
            if engine_id not in self._deaths_seen:
                self._deaths[engine_id] = notice

    def engine_joined(self, engine_id: int) -> None:
        """Keep the time at which an engine has joined or restarted, so that its next death is reported."""
        with self._lock:
            self._deaths_seen.discard(engine_id)
            self._joined[engine_id] = time.time()

    def tell(self, notice: str) -> None:
        """Add a notice."""
        with self._lock:
            self._notices = [*self._notices[-LIMIT:], notice]

    def heard(self, notices: Iterable[str]) -> None:
        """Remove notices that the user gets in another way."""
        known = set(notices)
        with self._lock:
            self._notices = [notice for notice in self._notices if notice not in known]

    def failed(self, call: Call) -> None:
        """Add the error of a call that has failed, unless its end was intended."""
        assert call.error is not None, "a failed call has an error"
        if isinstance(call.error, TaskAborted | ClientClosed):
            return
        with self._lock:
            if len(self._unseen) < LIMIT:
                self._unseen[call.request_id] = call.error
            elif len(self._left_out) < COUNTED:
                self._left_out.add(call.request_id)

    def leave_to_display(self, calls: Iterable[Call]) -> None:
        """Hold back the errors of these calls until :meth:`seen`, because a display shows them when the calls end."""
        with self._lock:
            self._displayed.update(call.request_id for call in calls)

    def seen(self, calls: Iterable[Call]) -> None:
        """Remove the errors of these calls, because their results have been asked for."""
        if not (self._unseen or self._left_out or self._displayed):
            return
        with self._lock:
            for call in calls:
                if call.done:
                    self._displayed.discard(call.request_id)
                if call.request_id not in self._unseen and call.request_id not in self._left_out:
                    continue
                self._unseen.pop(call.request_id, None)
                self._left_out.discard(call.request_id)
                if isinstance(call.error, EngineLost):
                    self._deaths.pop(call.engine_id, None)
                    # If the engine has joined again since then, its next death is another death.
                    if (call.received or 0.0) >= self._joined.get(call.engine_id, 0.0):
                        self._deaths_seen.add(call.engine_id)

    def report(self, *, at_exit: bool = False) -> str:
        """Return the notices and errors since the last report, and forget them. Equal errors are listed once.

        Args:
            at_exit: whether to report the errors that were left to a display, because it will show no more.
        """
        with self._lock:
            held = {} if at_exit else {i: error for i, error in self._unseen.items() if i in self._displayed}
            errors = [error for i, error in self._unseen.items() if i not in held]
            dead = {error.engine_id for error in held.values() if isinstance(error, EngineLost)}
            deaths, self._deaths = self._deaths, {i: notice for i, notice in self._deaths.items() if i in dead}
            notices = [*(notice for i, notice in deaths.items() if i not in dead), *self._notices]
            self._unseen, self._notices = held, []
            held_back = set() if at_exit else self._left_out & self._displayed
            left_out, self._left_out = len(self._left_out - held_back), held_back
        lines = [f"nsactors: {notice}" for notice in notices]
        many = len(errors) + left_out
        if not many:
            return "\n".join(lines)
        more = " or more" if left_out >= COUNTED else ""
        calls, results = plural("call", many), plural("result", many)
        lines.append(f"nsactors: {many}{more} {calls} failed, and nobody has asked for the {results}:")
        lines += [f"  {group.summary}" for group in group_failures(errors)]
        if left_out:
            lines.append(f"  {left_out}{more} of the errors were not kept")
        return "\n".join(lines)
