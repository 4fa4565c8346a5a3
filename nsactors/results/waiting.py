"""Waiting for engines so that Ctrl-C reaches them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from nsactors.errors import engine_ranges
from nsactors.results.call import NOWHERE, Call, CallOwner
from nsactors.results.transfers import wait_showing

__all__ = ["interrupt_and_wait", "wait_or_interrupt"]

QUICK_STOP_S = 0.5  # an engine that stops within this needs no words
GRACE_S = 5.0

Wait = Callable[[float | None], bool]
Ask = Callable[[str], str]


def wait_or_interrupt(
    wait: Wait, calls: Sequence[Call], owner: CallOwner, timeout_s: float | None, ask: Ask | None = None
) -> bool:
    """Wait; Ctrl-C interrupts what runs of ``calls`` and takes back what has not started.

    Whoever does not stop, or presses Ctrl-C again, is asked: wait on, leave the engines running, or kill and restart
    them.

    Args:
        wait: waits for at most so many seconds and tells whether what it waits for is there.
        calls: what is waited for.
        owner: interrupts, aborts and restarts.
        timeout_s: seconds; None or negative: as long as it takes.
        ask: puts a question to the user; the default is ``input`` where somebody can answer.

    Returns:
        Whether it is there; after Ctrl-C it is, with errors that say what was interrupted.

    Raises:
        KeyboardInterrupt: if engines cannot be interrupted, or were left running, as those of detached tasks are.
    """
    try:
        return wait_showing(wait, calls, None if timeout_s is None or timeout_s < 0 else timeout_s)
    except KeyboardInterrupt:
        return interrupt_and_wait(wait, calls, owner, ask)


def interrupt_and_wait(wait: Wait, calls: Sequence[Call], owner: CallOwner, ask: Ask | None = None) -> bool:
    """What follows Ctrl-C; see :func:`wait_or_interrupt`."""
    if owner.goes_on:
        raise _going_on(calls) from None
    # In this order: what is not withdrawn when abort returns has begun, and so can be interrupted.
    owner.abort(_running(calls), interrupt=False)
    if not owner.interrupt(_running(calls)):
        raise KeyboardInterrupt
    return _wait_for_stop(wait, calls, owner, ask or _terminal())


def _wait_for_stop(wait: Wait, calls: Sequence[Call], owner: CallOwner, ask: Ask | None) -> bool:
    try:
        if wait(QUICK_STOP_S):
            return True
        _say(f"interrupting {_engines(calls)} ... (Ctrl-C again to leave or kill)")
        if wait(GRACE_S):
            return True
    except KeyboardInterrupt:
        pass  # the second one: asked for the choices
    while True:
        match _choice(ask, calls):
            case "w":
                try:
                    if wait(None):
                        return True
                except KeyboardInterrupt:
                    continue
            case "k":
                owner.restart({call.engine_id for call in _running(calls)})
                if wait(GRACE_S):
                    return True
                raise _left_running(calls)
            case _:
                raise _left_running(calls)


def _left_running(calls: Sequence[Call]) -> KeyboardInterrupt:
    interrupted = KeyboardInterrupt()
    interrupted.add_note(
        f"left running: {_engines(calls)}. rc.interrupt() tries again; "
        "rc.shutdown(ids, restart=True) ends them and starts new ones"
    )
    return interrupted


def _going_on(calls: Sequence[Call]) -> KeyboardInterrupt:
    interrupted = KeyboardInterrupt()
    for call in _running(calls):
        interrupted.add_note(
            f"{call.label} goes on: rc.get_result({str(call.request_id)!r}) waits for it again, "
            "and abort() of that takes it back"
        )
    return interrupted


def _choice(ask: Ask | None, calls: Sequence[Call]) -> str:
    if ask is None:
        return "l"
    try:
        answer = ask(f"{_engines(calls)} did not stop. [w]ait, [l]eave running, [k]ill and restart? ")
    except (KeyboardInterrupt, EOFError):
        return "l"
    return answer.strip().lower()[:1] or "w"


def _terminal() -> Ask | None:
    """``input``, if somebody can answer: at a terminal, or in a notebook whose front end can ask."""
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel = getattr(shell, "kernel", None)
    if kernel is not None:
        return input if getattr(kernel, "_allow_stdin", False) else None
    return input if sys.stdin is not None and sys.stdin.isatty() else None


def _running(calls: Sequence[Call]) -> list[Call]:
    return [call for call in calls if not call.done]


def _engines(calls: Sequence[Call]) -> str:
    ids = {call.engine_id for call in _running(calls)} - {NOWHERE}
    return engine_ranges(sorted(ids)) if ids else "the engines"


def _say(text: str) -> None:
    print(f"nsactors: {text}", file=sys.stderr, flush=True)
