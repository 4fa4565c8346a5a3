"""What a reply means to the client that asked."""

from __future__ import annotations

from typing import Any

from nsactors.core.messages import Aborted, Expired, Failed, Ok, Outcome, Refused
from nsactors.core.payload import Payload, unpack
from nsactors.errors import DuplicateRequest, TaskAborted, TimeLimitExceeded
from nsactors.results import Call

__all__ = ["read_outcome"]


def read_outcome(call: Call, outcome: Outcome, payload: Payload | None) -> tuple[Any, Exception | None]:
    """The value of a call, or the exception that its result raises."""
    match outcome:
        case Ok():
            return (None, None) if payload is None else _unpacked(call, payload)
        case Failed(failure):
            # Classes of __main__ are known by what unpack() makes of them, so that `except Mine` catches them here.
            return None, failure.with_sources().to_exception(lambda data: unpack(Payload(data)))
        case Aborted():
            return None, TaskAborted(call.engine_id, call.label)
        case Expired(limit_s):
            return None, TimeLimitExceeded(call.engine_id, call.label, limit_s)
        case Refused():
            return None, DuplicateRequest(call.engine_id, str(call.request_id))


def _unpacked(call: Call, payload: Payload) -> tuple[Any, Exception | None]:
    try:
        return unpack(payload, copy=call.copies), None
    except Exception as error:  # whatever a class of the user's does when it is rebuilt
        error.add_note(f"The result of {call.label} on engine {call.engine_id} cannot be unpickled here.")
        return None, error
