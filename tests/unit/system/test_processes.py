"""A process is distinguished from every other process that has had its id."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from nsactors.system.processes import MARK, ProcessIdentity, end_leftovers, marked_processes
from nsactors.testing import TIMEOUT_S

SELF = ProcessIdentity.of(os.getpid())


def test_a_process_that_lives_is_not_gone() -> None:
    assert not SELF.is_gone
    assert not ProcessIdentity.of(os.getppid()).is_gone


def test_one_that_has_ended_is_gone_also_before_its_parent_has_asked() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        identity = ProcessIdentity.of(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert identity.is_gone
    assert identity.is_gone


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "an earlier one"}], ids=["its id again", "before a boot"])
def test_another_process_with_its_id_is_not_it(change: dict[str, object]) -> None:
    assert replace(SELF, **change).is_gone  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"pid_namespace": "pid:[1]"}], ids=["host", "container"])
def test_of_one_that_cannot_be_looked_at_from_here_nothing_is_known(change: dict[str, object]) -> None:
    away = replace(SELF, pid=2**22 + 1, **change)  # type: ignore[arg-type]
    assert (away.is_here, away.is_gone) == (False, False)


# What a cluster has left running is found by its mark, and nothing else is touched.


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


FORKS = """
import os, socket
from nsactors.system.processes import keep_sockets_from_children, open_sockets
before = socket.socketpair()
known = open_sockets().values()
listening = socket.create_server(("127.0.0.1", 0))
pair = socket.socketpair()
keep_sockets_from_children(known)
later = socket.socketpair()
connected = socket.create_connection(listening.getsockname())
accepted, _ = listening.accept()
def is_open(one):
    try:
        return bool(os.fstat(one.fileno()))
    except OSError:
        return False
if (child := os.fork()) == 0:
    kept = [name for name in ("before", "pair", "later") if all(map(is_open, globals()[name]))]
    kept += [name for name in ("listening", "connected", "accepted") if is_open(globals()[name])]
    print(*kept, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_children_do_not_keep_sockets_nor_the_connections_that_these_accept() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert done.stdout.split() == ["before", "later", "connected"]


WRITES = """
import os, stat
from nsactors.system.processes import close_in_children
reading, writing = os.pipe()
pipe = open(writing, "wb")
close_in_children(pipe)
if (child := os.fork()) == 0:
    print(stat.S_ISFIFO(os.fstat(writing).st_mode), flush=True)
    os._exit(0)
os.waitpid(child, 0)
pipe.close()
print(os.read(reading, 1))
"""


def test_children_do_not_keep_pipes_whose_readers_wait_for_the_end_of_their_parent() -> None:
    done = subprocess.run([sys.executable, "-c", WRITES], capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert done.stdout.split() == ["False", "b''"]
