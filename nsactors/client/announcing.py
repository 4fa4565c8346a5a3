"""What a client has asked for and not been answered, told to the cluster: the client may end before it is."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Sequence

from nsactors.client.post import Post
from nsactors.core.cluster import Accept, HistoryEntry
from nsactors.core.history import QUEUED
from nsactors.core.messages import RequestId
from nsactors.errors import ConnectionLost, engine_ranges
from nsactors.results import Call
from nsactors.transport.base import ControllerProxy

__all__ = ["Announcer"]

AFTER_S = 0.25  # what is answered within this need not be announced
AT_A_TIME = 250  # a thousand a second: more would take the controller's time for calls that are soon over
LOOK_S = 0.02
LEAVING_S = 0.5


class Announcer:
    """Enters requests that wait at their engines into the cluster's history; engines know nothing of their queues.

    Args:
        post: where the requests are.
        controller: who is told.
        client: who sends them.
    """

    def __init__(self, post: Post, controller: ControllerProxy, client: str) -> None:
        self._post = post
        self._controller = controller
        self._client = client
        self._announced: set[RequestId] = set()
        self._lock = threading.Lock()
        self._stirred = threading.Event()
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="nsactors-announcer", daemon=True).start()

    def stir(self) -> None:
        """Something has been sent."""
        if not self._stirred.is_set():  # to set it again would take longer
            self._stirred.set()

    def flush(self, timeout_s: float) -> None:
        """Return when all that was sent before is safe from the end of this process; see ``Client.flush``.

        Raises:
            TimeoutError: if it is not in time.
            ConnectionLost: if the cluster is gone.
        """
        deadline = time.monotonic() + timeout_s
        while self._post.holds_back and time.monotonic() < deadline:
            self._closed.wait(LOOK_S)
        calls = self._post.sent_calls()
        if calls:
            self._announce(calls)
            upto = max(call.request_id.seq for call in calls)
            asked = {call.engine_id for call in calls}
            left_s = max(0.0, deadline - time.monotonic())
            answers = self._controller.ask(asked, Accept(self._client, upto), left_s)
            for answer in answers.values():
                answer.value.load()
            silent = {call.engine_id for call in calls if call.engine_id not in answers and not call.done}
            if silent:
                raise TimeoutError(f"{engine_ranges(silent)} did not say that what was sent has arrived")
        if self._post.holds_back:
            raise TimeoutError(f"not everything could be sent within {timeout_s:g} s: engines have too much to do")

    def close(self) -> None:
        """Make safe what is open, and announce no more from now on."""
        with contextlib.suppress(ConnectionLost, TimeoutError):
            self.flush(LEAVING_S)
        self._closed.set()
        self._stirred.set()

    def _run(self) -> None:
        while True:
            self._stirred.wait()
            if self._closed.wait(AFTER_S):
                return
            self._stirred.clear()
            calls = self._post.sent_calls()
            with contextlib.suppress(ConnectionLost):  # it is said with the next
                self._announce(calls, time.time() - AFTER_S, AT_A_TIME)
            if len(calls) > len(self._announced):
                self._stirred.set()

    def _announce(self, calls: Sequence[Call], sent_before: float = math.inf, at_most: int | None = None) -> None:
        """Announce those of all ``calls`` that are open which have not been yet."""
        with self._lock:
            self._announced &= {call.request_id for call in calls}
            news = [c for c in calls if c.submitted < sent_before and c.request_id not in self._announced][:at_most]
            if news:
                self._controller.announce([_entry(call) for call in news])
                self._announced.update(call.request_id for call in news)


def _entry(call: Call) -> HistoryEntry:
    return HistoryEntry(call.request_id, call.engine_id, call.label, call.label, call.submitted, None, QUEUED)
