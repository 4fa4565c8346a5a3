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
from nsactors.core.remote_value import ObjectGone
from nsactors.errors import ConnectionLost, engine_ranges
from nsactors.results import Call
from nsactors.transport.base import ControllerProxy

__all__ = ["Announcer"]

AFTER_S = 0.25  # what is answered within this need not be announced
AT_A_TIME = 250  # a thousand a second: more would take the controller's time for calls that are soon over
ANNOUNCE_S = 30.0
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
        while self._holds_back() and time.monotonic() < deadline:
            self._closed.wait(LOOK_S)
        calls = self._sent_calls()
        if calls:
            self._announce(calls, timeout_s=timeout_s)
            accepted = self._ask_to_accept(calls, max(0.0, deadline - time.monotonic()))
            silent = {call.engine_id for call in calls if call.engine_id not in accepted and not call.done}
            if silent:
                raise TimeoutError(f"{engine_ranges(silent)} did not say that what was sent has arrived")
        if self._holds_back():
            raise TimeoutError(f"not everything could be sent within {timeout_s:g} s: engines have too much to do")

    def _ask_to_accept(self, calls: Sequence[Call], timeout_s: float) -> set[int]:
        """The engines at which these calls have arrived."""
        upto = max(call.request_id.seq for call in calls)
        answers = self._controller.ask({call.engine_id for call in calls}, Accept(self._client, upto), timeout_s)
        accepted = set()
        for engine_id, answer in answers.items():
            if answer.error is None:
                with contextlib.suppress(ObjectGone):  # the engine has died since
                    answer.value.load()
                    accepted.add(engine_id)
        return accepted

    def close(self) -> None:
        """Make safe what is open, and announce no more from now on."""
        with contextlib.suppress(ConnectionLost, TimeoutError):
            self.flush(LEAVING_S)
        self._closed.set()
        self._stirred.set()

    def _sent_calls(self) -> list[Call]:
        return [letter.call for letter in self._post.open_letters() if letter.pending is not None]

    def _holds_back(self) -> bool:
        """Whether calls wait here: for the send window of their engine, or for an engine that is being brought back."""
        return any(letter.pending is None for letter in self._post.open_letters())

    def _run(self) -> None:
        while True:
            self._stirred.wait()
            if self._closed.wait(AFTER_S):
                return
            self._stirred.clear()
            self._post.listen_to_strays(time.time() - AFTER_S)
            calls = self._sent_calls()
            with contextlib.suppress(ConnectionLost):  # it is said with the next
                self._announce(calls, sent_before=time.time() - AFTER_S, at_most=AT_A_TIME)
            if len(calls) > len(self._announced):
                self._stirred.set()

    def _announce(
        self,
        calls: Sequence[Call],
        *,
        sent_before: float = math.inf,
        at_most: int | None = None,
        timeout_s: float = ANNOUNCE_S,
    ) -> None:
        """Announce those of all ``calls`` that are open which have not been yet."""
        with self._lock:
            self._announced &= {call.request_id for call in calls}
            news = [c for c in calls if c.submitted < sent_before and c.request_id not in self._announced][:at_most]
            if news:
                self._controller.announce([_entry(call) for call in news], timeout_s)
                self._announced.update(call.request_id for call in news)


def _entry(call: Call) -> HistoryEntry:
    return HistoryEntry(call.request_id, call.engine_id, call.label, call.label, call.submitted, None, QUEUED)
