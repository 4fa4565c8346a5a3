"""What a client adds to an IPython prompt.

Errors of engines drawn as such, and those that nobody has asked for told.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from nsactors.client.ledger import Ledger
from nsactors.errors import NsactorsError
from nsactors.errors.drawing import render_lines

__all__ = ["draw_errors", "join_prompt"]


def join_prompt(ledger: Ledger) -> Callable[[], None]:
    """Draw errors of engines, and report unseen failures after every cell, if this process has an IPython prompt.

    Returns:
        A function that ends both.
    """
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return lambda: None

    def report(*args: Any) -> None:
        if text := ledger.report():
            print(text, file=sys.stderr)

    shell.events.register("post_run_cell", report)
    draw_errors(shell)  # stays: the user may look at an error again after the client is closed
    return lambda: shell.events.unregister("post_run_cell", report)


def draw_errors(shell: Any) -> Callable[[], None]:
    """Let ``shell`` show every error of engines as it draws itself; the function returned ends that.

    IPython asks exceptions for their own drawing, but neither syntax errors nor exception groups.
    """
    if shell.custom_exceptions:
        return lambda: None  # the user shows errors in a way of their own
    shell.set_custom_exc((NsactorsError,), _show)

    def end() -> None:
        if shell.custom_exceptions == (NsactorsError,):
            shell.set_custom_exc((), None)

    return end


def _show(
    shell: Any, kind: type[Exception], error: Exception, traceback: TracebackType, tb_offset: int | None = None
) -> list[str]:
    if _from_magic(traceback):
        error = error.with_traceback(None)  # where it was called from is the cell above the error
    lines = render_lines(error)
    # Both kinds of shell end here: at a terminal it prints, in a notebook it sends a message.
    shell._showtraceback(kind, error, lines)
    return lines


def _from_magic(traceback: TracebackType | None) -> bool:
    while traceback is not None:
        if str(traceback.tb_frame.f_globals.get("__name__", "")).startswith("nsactors.magics"):
            return True
        traceback = traceback.tb_next
    return False
