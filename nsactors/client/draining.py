"""Waiting for calls that have been sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from nsactors.results import Call

__all__ = ["wait_for_calls"]


def wait_for_calls(calls: Sequence[Call], timeout_s: float) -> bool:
    """Wait until all of ``calls`` are settled, for at most ``timeout_s`` seconds; whether they are."""
    arrived = threading.Semaphore(0)
    for call in calls:
        call.when_settled(lambda call: arrived.release())
    deadline = time.monotonic() + timeout_s
    return all(arrived.acquire(timeout=max(0.0, deadline - time.monotonic())) for _ in calls)
