"""Calls whose caller waits for them: the shortest way to their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from nsactors.results.async_result import AsyncResult
from nsactors.results.call import Call, CallOwner
from nsactors.results.waiting import interrupt_and_wait

__all__ = ["result_of", "value_of"]


class CallTaker(CallOwner, Protocol):
    """A maker of calls whose callers may take the answers themselves."""

    def take(self, calls: Sequence[Call]) -> bool:
        """Wait a moment for the answers of calls that were submitted to be awaited; whether they are all here.

        If they are not, they come by themselves from now on.
        """
        ...


def value_of(owner: CallTaker, calls: Sequence[Call], *, label: str, single: bool) -> Any:
    """What ``AsyncResult.get`` gives for calls that were submitted to be awaited.

    Most of them are answered within milliseconds. The caller's own thread takes those answers: nobody has to be woken,
    and no result is made for others to wait for.
    """
    interrupted = False
    try:
        if owner.take(calls) and all(call.error is None for call in calls):
            return calls[0].value if single else [call.value for call in calls]
    except KeyboardInterrupt:
        interrupted = True
    return _settled(owner, calls, label, single, interrupted).get()


def result_of(owner: CallTaker, calls: Sequence[Call], *, label: str, single: bool) -> AsyncResult:
    """The result of calls that were submitted to be awaited, once it is there; raises what ``AsyncResult.get`` does."""
    interrupted = False
    try:
        owner.take(calls)
    except KeyboardInterrupt:
        interrupted = True
    result = _settled(owner, calls, label, single, interrupted)
    result.get()
    return result


def _settled(owner: CallOwner, calls: Sequence[Call], label: str, single: bool, interrupted: bool) -> AsyncResult:
    result = AsyncResult(owner, calls, label=label, single=single)
    if interrupted:
        interrupt_and_wait(result.wait, calls, owner)
    return result
