"""What user code raised, described so that it can travel."""

from __future__ import annotations

from nsactors.core.payload import pack
from nsactors.errors import Failure
from nsactors.namespace.gate import is_user_frame, user_traceback

__all__ = ["capture_failure"]

_READ_ONLY_HINT = (
    "Arrays arrive as read-only views of shared memory: push(..., copy=True) or view.set_flags(copy=True) gives ones "
    "that can be written to, and so does array.copy() here"
)


def capture_failure(error: BaseException, engine_id: int, call: str) -> Failure:
    """Describe what user code of ``call`` raised on an engine."""
    if isinstance(error, ValueError) and "read-only" in str(error):
        error.add_note(_READ_ONLY_HINT)
    return Failure.capture(
        error.with_traceback(user_traceback(error)),
        engine_id=engine_id,
        call=call,
        dumps=lambda value: pack(value, what="the exception", ref_types=()).data,
        is_user_frame=is_user_frame,
    )
