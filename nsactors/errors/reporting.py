"""Reports, on stderr, about failures that cannot be raised in a caller."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator


def print_traceback() -> None:
    """Print the traceback of the exception being handled, if stderr can be written to.

    This is for threads that must go on. Engines and controllers write to files: on a full disk the failure of printing
    would replace the failure that was caught, and end the thread or the request.
    """
    with contextlib.suppress(Exception):
        traceback.print_exc()


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Print an exception of the block, and go on: for the steps of a thread that must not end."""
    try:
        yield
    except Exception:
        print_traceback()
