"""What a cluster has left running is found by its mark, and nothing else is touched."""

from __future__ import annotations

import os
import subprocess
import sys

from nsactors.transport.leftovers import MARK, end_leftovers, marked_processes
from tests.gates import TIMEOUT_S

STARTS_OTHERS = """
import subprocess
print("begun", flush=True)
while True:
    subprocess.Popen(["sleep", "60"])
"""


def test_processes_that_bear_a_mark_are_ended_and_others_are_not() -> None:
    environment = dict(os.environ)
    with (
        subprocess.Popen(["sleep", "60"], env={**environment, MARK: "a"}) as marked,
        subprocess.Popen(["sleep", "60"], env={**environment, MARK: "ab"}) as other,
    ):
        assert marked_processes("a") == [marked.pid]
        assert end_leftovers("a") == [marked.pid]
        assert marked.wait(30) == -9
        assert other.poll() is None
        other.kill()


def test_what_a_process_starts_while_it_is_being_ended_is_ended_too() -> None:
    program = [sys.executable, "-c", STARTS_OTHERS]
    with subprocess.Popen(program, env={**os.environ, MARK: "many"}, stdout=subprocess.PIPE) as starting:
        assert starting.stdout is not None
        starting.stdout.readline()
        ended = end_leftovers("many")
        assert starting.wait(TIMEOUT_S) == -9
    assert starting.pid in ended
    assert marked_processes("many") == []


def test_without_a_mark_nothing_is_ended() -> None:
    with subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: ""}) as process:
        assert end_leftovers("") == []
        assert process.poll() is None
        process.kill()
