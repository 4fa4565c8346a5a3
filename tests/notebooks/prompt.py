"""An IPython session that a test types into, through a pseudo-terminal."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pexpect

from nsactors.testing import TIMEOUT_S, wait_until

__all__ = ["Prompt"]

START_S = 3 * TIMEOUT_S
"""A bound for a hang: a busy machine starts a prompt, and a cluster at it, within this time."""

# Run by the session before its first cell. Equal lines of engines are shown once however far apart they come, and an
# engine that is slow to answer is waited for: people would not, but machines have pauses. Lines of progress, which only
# a slow machine shows, would stand in front of other lines.
_PATIENCE = """
import functools
from nsactors.client import client
from nsactors.magics import completion, extension, scripts
from nsactors.results.display import live as awaited, progress
completion.ANSWER_S = extension.ANSWER_S = scripts.ANSWER_S = 10.0
awaited.Merger = functools.partial(awaited.Merger, hold_s=30.0)
client.SHOWN_AFTER_S = progress.AFTER_S = 1e6
def without_progress(*args, live=extension.LiveOutput, **options):
    return live(*args, **{**options, "progress_after_s": -1.0})
extension.LiveOutput = without_progress
del functools, client, completion, extension, scripts, awaited, progress, without_progress
"""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>]|\r")


class Prompt:
    """An IPython session; ``run`` types a line and gives back what appeared before the next prompt."""

    def __init__(self, folder: Path) -> None:
        startup = folder / "ipython" / "profile_default" / "startup"
        startup.mkdir(parents=True)
        (startup / "patience.py").write_text(_PATIENCE)
        own = {
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "IPYTHONDIR": str(folder / "ipython"),
            "TERM": "xterm",
            "NO_COLOR": "1",
        }
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "IPython", "--simple-prompt", "--no-banner", "--no-confirm-exit", "--colors=nocolor"],
            cwd=folder,
            env={**os.environ, **own},
            encoding="utf-8",
            timeout=START_S,
            dimensions=(40, 80),
            echo=False,
        )
        self.until_prompt()

    def run(self, line: str) -> str:
        """Type a line."""
        self.child.sendline(line)
        return self.until_prompt()

    def until_prompt(self) -> str:
        self.child.expect(r"In \[\d+\]: ")
        return _ESCAPES.sub("", self.child.before or "").strip()

    def wait_for(self, text: str) -> None:
        """Return when ``text`` is on the screen."""
        self.child.expect_exact(text)

    def look_for(self, text: str) -> None:
        """Return when ``text`` has come, and leave it to whoever reads next."""
        wait_until(lambda: text in self.child.buffer or self.look_on(0.1), START_S)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.child.sendintr()

    def run_cell(self, *lines: str) -> str:
        """Type a cell of several lines."""
        self.type_cell(*lines)
        return self.until_prompt()

    def type_cell(self, *lines: str) -> None:
        """Type a cell of several lines and do not wait for it."""
        for line in (*lines, ""):
            self.child.sendline(line)
            self.child.expect_exact("...: ")
        self.child.sendline("")

    def look_on(self, seconds: float) -> None:
        """Let time pass as somebody does who watches: what the session writes is read."""
        self.child.expect_exact([pexpect.TIMEOUT], timeout=seconds)

    def leave(self) -> None:
        """Say ``exit`` and wait until it is gone."""
        self.child.sendline("exit")
        self.child.expect(pexpect.EOF)

    def close(self) -> None:
        """End it, whatever it does."""
        self.child.close(force=True)
