"""Ranks that a launcher has started, and engines that take their places, without MPI."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nsactors.mpi import engine_side, placeholder
from nsactors.testing import TIMEOUT_S

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs addresses of sockets that are no files")


@pytest.fixture
def name() -> str:
    return secrets.token_hex(8)


@contextmanager
def engine(name: str, rank: int) -> Iterator[socket.socket]:
    """The address at which the engine of a rank waits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(placeholder.address(name, rank))
        listener.listen()
        yield listener


@contextmanager
def start(name: str, size: int, limit_s: float = TIMEOUT_S, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A placeholder; it ends with the block."""
    usual = {key: value for key, value in os.environ.items() if not key.startswith(placeholder.PREFIXES)}
    with subprocess.Popen(
        [sys.executable, "-I", "-S", placeholder.__file__, name, str(size), str(limit_s)],
        env={**usual, **environment},
        stderr=subprocess.PIPE,
        text=True,
        close_fds=False,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def place(listener: socket.socket) -> tuple[socket.socket, dict[str, str]]:
    return engine_side._placeholder(listener, time.monotonic() + TIMEOUT_S)


def test_an_engine_is_given_the_variables_and_the_descriptors_of_its_rank(name: str) -> None:
    launcher, given = socket.socketpair()
    os.set_inheritable(given.fileno(), True)
    with launcher, given, engine(name, 1) as listener:
        variables = {"PMI_RANK": "1", "PMI_FD": str(given.fileno()), "HYDI_CONTROL_FD": "999999"}
        with start(name, 2, **variables, OTHER="x") as process:
            connection, taken = place(listener)
            assert {key: taken[key] for key in ("PMI_RANK", "HYDI_CONTROL_FD")} == {
                "PMI_RANK": "1",
                "HYDI_CONTROL_FD": "999999",
            }
            assert "OTHER" not in taken
            with connection, socket.socket(fileno=int(taken["PMI_FD"])) as mine:
                assert mine.fileno() != given.fileno()
                mine.sendall(b"cmd=init\n")
                assert launcher.recv(100) == b"cmd=init\n"
                connection.send(placeholder.JOINED)
                listener.close()  # as with the process of the engine
            assert process.wait(TIMEOUT_S) == 0


def test_a_placeholder_stays_until_no_engine_of_its_machine_is_left(name: str) -> None:
    with engine(name, 0) as other, engine(name, 1) as listener, start(name, 3, PMIX_RANK="1") as process:
        connection, _ = place(listener)
        connection.send(placeholder.JOINED)
        listener.close()
        connection.close()  # its own engine has died
        waiting, _ = other.accept()
        assert process.poll() is None
        other.close()
        waiting.close()
        assert process.wait(TIMEOUT_S) == 0


def test_a_placeholder_whose_engine_is_on_another_machine_says_so(name: str) -> None:
    with start(name, 2, limit_s=0.1, SLURM_PROCID="1") as process:
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert errors == f"nsactors: there is no engine for rank 1 on {socket.gethostname()}\n"


def test_a_process_without_a_rank_says_so(name: str) -> None:
    with start(name, 2) as process:
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert "has given this process no rank" in errors


def test_an_engine_without_a_placeholder_waits_no_longer_than_it_may(name: str) -> None:
    with engine(name, 0) as listener, pytest.raises(TimeoutError, match="started no rank on this machine"):
        engine_side._placeholder(listener, time.monotonic() + 0.1)
