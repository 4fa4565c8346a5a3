from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from nsactors.testing import TIMEOUT_S, no_process_left_behind

# Starts a process that waits until its standard input is closed, prints its id, and ends: an orphan is left.
LEAVE_ORPHAN = """
import subprocess, sys
none = subprocess.DEVNULL
orphan = subprocess.Popen([sys.executable, "-c", "input()"], stdin=sys.stdin, stdout=none, stderr=none)
print(orphan.pid)
"""


def leave_orphan(reading: int) -> int:
    """Return the id of an orphan that lives until ``reading`` has nothing to read any more."""
    command = [sys.executable, "-c", LEAVE_ORPHAN]
    done = subprocess.run(command, stdin=reading, stdout=subprocess.PIPE, check=True, timeout=TIMEOUT_S)
    return int(done.stdout)


def test_a_block_that_leaves_none_passes() -> None:
    with no_process_left_behind():
        subprocess.run([sys.executable, "-c", ""], check=True, timeout=TIMEOUT_S)


def test_an_orphan_is_found_and_named() -> None:
    reading, writing = os.pipe()
    check = no_process_left_behind(0.01)
    check.__enter__()
    with no_process_left_behind():  # an inner block hides none from an outer one
        pass
    orphan = leave_orphan(reading)
    try:
        with pytest.raises(AssertionError, match=rf"processes left behind: \[\({orphan}, .*input\(\)"):
            check.__exit__(None, None, None)
    finally:
        os.kill(orphan, signal.SIGKILL)
        os.close(reading)
        os.close(writing)


def test_processes_that_were_there_before_do_not_count() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as before:
        with no_process_left_behind(0.01):
            pass
        before.kill()


def test_blocks_may_lie_in_each_other() -> None:
    environment = dict(os.environ)
    with no_process_left_behind(), no_process_left_behind():
        pass
    assert dict(os.environ) == environment
