"""Waiting for engines so that Ctrl-C reaches them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nsactors.results.call import Call, CallOwner

__all__ = ["wait_or_interrupt"]

INTERRUPT_GRACE_S = 5.0


def wait_or_interrupt(
    wait: Callable[[float | None], bool], calls: Sequence[Call], owner: CallOwner, timeout_s: float | None
) -> bool:
    """Wait; Ctrl-C interrupts what runs of ``calls`` and takes back what has not started.

    Args:
        wait: waits for at most so many seconds and tells whether what it waits for is there.
        calls: what is waited for.
        owner: interrupts and aborts them.
        timeout_s: seconds; None or negative: as long as it takes.

    Returns:
        Whether it is there; after Ctrl-C it is, with errors that say what was interrupted.

    Raises:
        KeyboardInterrupt: if the engines cannot be interrupted, or do not stop.
    """
    limit = None if timeout_s is None or timeout_s < 0 else timeout_s
    try:
        return wait(limit)
    except KeyboardInterrupt:
        waiting = [call for call in calls if not call.done]
        if not owner.interrupt(waiting):
            raise
        owner.abort(waiting, interrupt=False)
        if not wait(INTERRUPT_GRACE_S):
            raise
        return True
