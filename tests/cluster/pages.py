"""Types the sessions of pages, one page after the other, in one process in which Ray stays up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple, Self

__all__ = ["LIMIT_S", "Typed", "Typist"]

ROOT = Path(__file__).parents[2]
LIMIT_S = 300.0
GRACE_S = 15.0  # for the process to end itself, with the stacks of its threads on stderr

# A user would not wait for long for a slow answer, but machines have pauses. Each page has an empty __main__, as a new
# prompt does; the working folder is the one in which Ray and the engines were started.
_PROGRAM = """
import contextlib, doctest, faulthandler, functools, io, json, os, sys, warnings
from nsactors import Cluster
from nsactors.client import find_requests
from nsactors.results.display import live
from nsactors.session import memory, requests

live.is_watched = lambda: True  # pages show what is seen at a terminal
live.Merger = functools.partial(live.Merger, hold_s=60.0)
memory.REPLY_WAIT_S = requests.OUTPUT_GRACE_S = find_requests.NEWS_S = 60.0
warnings.showwarning = lambda message, category, *args, **options: print(f"{category.__name__}: {message}")
replies = os.fdopen(os.dup(1), "w")
limit_s, shares_ray = float(sys.argv[1]), sys.argv[2:] == ["ray"]
with Cluster(n=0) if shares_ray else contextlib.nullcontext():
    for path in sys.stdin:
        faulthandler.dump_traceback_later(limit_s, exit=True)  # says where the page waits
        with contextlib.redirect_stdout(io.StringIO()) as written:
            failed, _ = doctest.testfile(path.rstrip(), module_relative=False, optionflags=doctest.ELLIPSIS)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps([failed, written.getvalue()]), file=replies, flush=True)
"""


class Typed(NamedTuple):
    """The outcome of the examples of a page.

    Attributes:
        failed: the number of examples that did not print the text on the page.
        differences: these examples, and the text that they printed.
        errors: the text that was written to stderr while they ran.
    """

    failed: int
    differences: str
    errors: str


class Typist:
    """A process that types pages.

    Args:
        folder: where it works; an empty one.
        keeps_ray: whether Ray is up from its start to its end, so that each page starts engines only.
    """

    def __init__(self, folder: Path, *, keeps_ray: bool) -> None:
        self._folder = folder
        self._errors = folder.with_suffix(".stderr")
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(LIMIT_S), *(["ray"] if keeps_ray else [])],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
            )
        self._told = 0

    def type(self, page: Path) -> Typed:
        """Type the sessions of a page, whose process is ended after ``LIMIT_S``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        limit = threading.Timer(LIMIT_S + GRACE_S, self._process.kill)
        limit.start()
        try:
            self._process.stdin.write(f"{page}\n")
            self._process.stdin.flush()
            reply = self._process.stdout.readline()
        finally:
            limit.cancel()
        errors = self._errors.read_text(encoding="utf-8")
        assert reply, f"the process that types pages has ended:\n{errors}"
        told, self._told = self._told, len(errors)
        failed, differences = json.loads(reply)
        return Typed(failed, differences, errors[told:])

    @property
    def has_ended(self) -> bool:
        """True if the process has ended, because of a fault or its time limit."""
        return self._process.poll() is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._process.communicate(timeout=LIMIT_S)
        finally:
            self._process.kill()
