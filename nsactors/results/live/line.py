"""One line of progress where somebody looks on: at a terminal, or under a notebook's cell."""

from __future__ import annotations

import sys
from typing import Any, Protocol

from nsactors.results.live.notebook import CellScreen
from nsactors.results.live.screen import Progress
from nsactors.results.live.terminal import progress_bar

__all__ = ["ProgressLine", "open_line"]


class ProgressLine(Protocol):
    """Where progress is drawn."""

    def draw(self, progress: Progress) -> None:
        """Show how far it is now."""
        ...

    def leave(self) -> None:
        """What is drawn stays; nothing more comes."""
        ...

    def remove(self) -> None:
        """Take it away."""
        ...


def open_line() -> ProgressLine | None:
    """Where a line can be shown: under the cell that runs, or at the terminal; None where nobody looks on."""
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if hasattr(shell, "kernel"):
        return _CellLine(CellScreen(shell.display_pub))
    return _TerminalLine() if sys.stderr is not None and sys.stderr.isatty() else None


class _CellLine:
    def __init__(self, screen: CellScreen) -> None:
        self._screen = screen
        self._drawn: Progress | None = None

    def draw(self, progress: Progress) -> None:
        self._drawn = progress
        self._screen.status({}, progress)

    def leave(self) -> None:
        self._screen.flush({}, self._drawn)

    def remove(self) -> None:
        self._screen.close()


class _TerminalLine:
    def __init__(self) -> None:
        self._live: Any = None

    def draw(self, progress: Progress) -> None:
        from rich.console import Console
        from rich.live import Live

        if self._live is None:
            # Streams stay as they are: this draws beside a thread that may be about to replace them.
            self._live = Live(
                console=Console(file=sys.stderr, force_jupyter=False),
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(progress_bar(progress), refresh=True)

    def leave(self) -> None:
        if self._live is not None:
            self._live.transient = False
            self._live.stop()

    def remove(self) -> None:
        if self._live is not None:
            self._live.stop()
