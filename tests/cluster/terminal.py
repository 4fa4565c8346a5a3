"""A terminal for tests: what a command draws on it, and keys pressed at it."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from nsactors.testing import wait_until

__all__ = ["Terminal", "terminal"]

LIMIT_S = 200.0
"""A bound for a hang: on a busy machine a prompt with a cluster takes a minute."""


class Terminal:
    """A window of a tmux server that serves nobody else.

    Args:
        socket: of that server.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def tmux(self, *arguments: str) -> str:
        """Run a command of tmux; return its output."""
        command = ["tmux", "-S", str(self._socket), "-f", "/dev/null", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_S).stdout

    @property
    def screen(self) -> str:
        """Return the text that the terminal shows now."""
        return self.tmux("capture-pane", "-p", "-t", "0")

    @property
    def ended(self) -> bool:
        """Return whether the command has ended."""
        return self.tmux("display-message", "-p", "-t", "0", "#{pane_dead}").strip() == "1"

    def wait_until_ended(self) -> None:
        """Return when the command has ended."""
        try:
            wait_until(lambda: self.ended, LIMIT_S)
        except AssertionError:
            raise AssertionError(f"it goes on, with this screen:\n{self.screen}") from None

    def type(self, text: str) -> None:
        """Type a line."""
        self.tmux("send-keys", "-t", "0", "-l", text)
        self.press("Enter")

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names for them."""
        self.tmux("send-keys", "-t", "0", *keys)

    def wait_for(self, *texts: str) -> str:
        """The screen once it shows all of these: that one, for the next may be half drawn."""
        seen = [""]

        def shows_all() -> bool:
            seen[0] = self.screen
            return all(text in seen[0] for text in texts)

        try:
            wait_until(shows_all, LIMIT_S)
        except AssertionError:
            raise AssertionError(f"{texts} is not on this screen:\n{self.screen}") from None
        return seen[0]


@contextmanager
def terminal(
    folder: Path, command: Sequence[str], columns: int, lines: int = 24, environment: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    """Run a command in a terminal of this size; its last screen stays when it ends."""
    shown = Terminal(folder / "tmux")
    size = "-x", str(columns), "-y", str(lines)
    variables = [f"{name}={value}" for name, value in {**os.environ, **(environment or {})}.items()]
    settings = ["set-option", "-g", "remain-on-exit", "on", ";", "set-option", "-g", "status", "off"]
    shown.tmux(*settings, ";", "new-session", "-d", *size, "env", "-i", *variables, "sh", "-c", shlex.join(command))
    try:
        yield shown
    finally:
        shown.tmux("kill-server")
