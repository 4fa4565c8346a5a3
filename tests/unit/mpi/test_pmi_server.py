"""The PMI server: who is let in, and when it stops listening."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nsactors.mpi.pmi import Command, Exchange, Spawn
from nsactors.mpi.pmi_server import REFUSALS, PmiServer, start_children
from nsactors.testing import TIMEOUT_S, wait_until


@pytest.fixture
def server() -> Iterator[PmiServer]:
    server = PmiServer(Exchange([11, 22], "world", "(vector,(0,1,2))"), "127.0.0.1")
    yield server
    server.close()


def connect(server: PmiServer) -> socket.socket:
    host, port = server.address.split(":")
    return socket.create_connection((host, int(port)), TIMEOUT_S)


def ask(peer: socket.socket, line: bytes) -> bytes:
    """Send a line; return the answer, which is empty if the connection ends."""
    with contextlib.suppress(ConnectionError):
        peer.sendall(line + b"\n")
        return peer.recv(4096)
    return b""


def listens(server: PmiServer) -> bool:
    try:
        connect(server).close()
    except ConnectionError:
        return False
    return True


def test_two_processes_meet(server: PmiServer) -> None:
    with connect(server) as first, connect(server) as second:
        assert b"rank=1" in ask(second, b"cmd=initack pmiid=22")
        assert b"rank=0" in ask(first, b"cmd=initack pmiid=11")
        assert b"rc=0" in ask(first, b"cmd=put kvsname=world key=a value=1")
        first.sendall(b"cmd=barrier_in\n")
        assert ask(second, b"cmd=barrier_in") == first.recv(4096) == b"cmd=barrier_out rc=0\n"
        assert b"value=1" in ask(second, b"cmd=get kvsname=world key=a")


def test_it_stops_listening_when_all_have_joined(server: PmiServer) -> None:
    with connect(server) as first, connect(server) as second:
        ask(first, b"cmd=initack pmiid=11")
        assert listens(server)
        ask(second, b"cmd=initack pmiid=22")
        wait_until(lambda: not listens(server))
        assert b"size=2" in ask(first, b"cmd=get_universe_size")


def test_a_stranger_is_shown_the_door_and_guesses_are_few(server: PmiServer) -> None:
    for _ in range(REFUSALS):
        with connect(server) as stranger:
            assert ask(stranger, b"cmd=initack pmiid=12345") == b""
    wait_until(lambda: not listens(server))


def test_an_endless_line_ends_the_connection(server: PmiServer) -> None:
    with connect(server) as stranger:
        assert ask(stranger, b"x" * 1_000_000) == b""


def test_closing_ends_every_connection_so_that_nobody_waits(server: PmiServer) -> None:
    with connect(server) as peer:
        ask(peer, b"cmd=initack pmiid=11")
        server.close()
        assert peer.recv(4096) == b""


def test_processes_are_started_for_a_rank_where_that_is_allowed(server: PmiServer) -> None:
    order = b"mcmd=spawn\nnprocs=2\nexecname=solver\ntotspawns=1\nspawnssofar=1\nendcmd"
    orders: list[Spawn] = []
    ended = threading.Event()

    def spawn(order: Spawn) -> Callable[[], None]:
        orders.append(order)
        return ended.set

    allowing = PmiServer(Exchange([11], "world", ""), "127.0.0.1", spawn)
    with connect(allowing) as peer:
        ask(peer, b"cmd=initack pmiid=11")
        assert ask(peer, order) == b"cmd=spawn_result rc=0 errcodes=0,0\n"
        allowing.close()
    assert [order.commands[0].arguments for order in orders] == [("solver",)]
    assert ended.is_set()
    with connect(server) as peer:
        ask(peer, b"cmd=initack pmiid=11")
        assert ask(peer, order).startswith(b"cmd=spawn_result rc=-1")


def test_children_meet_at_a_server_of_their_own_with_what_their_parent_gave_them(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    end = start_children(Spawn(0, (Command(("sh", "-c", f"env > {seen}; exec sleep 60"), 1, None),), {"PARENT": "a"}))
    try:
        wait_until(lambda: seen.exists() and "PMI_ID" in seen.read_text() and "PMI_PORT" in seen.read_text())
        environment = dict(line.split("=", 1) for line in seen.read_text().splitlines() if "=" in line)
        host, port = environment["PMI_PORT"].split(":")
        with socket.create_connection((host, int(port)), TIMEOUT_S) as child:
            assert b"rank=0" in ask(child, f"cmd=initack pmiid={environment['PMI_ID']}".encode())
            assert ask(child, b"cmd=get kvsname=w key=PARENT").endswith(b"value=a\n")
    finally:
        end()


def test_a_program_that_does_not_exist_cannot_be_started() -> None:
    with pytest.raises(OSError, match="no-such-program"):
        start_children(Spawn(0, (Command(("no-such-program",), 1, None),), {}))


def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.77"):
        PmiServer(Exchange([1], "world", ""), "192.0.2.77")
