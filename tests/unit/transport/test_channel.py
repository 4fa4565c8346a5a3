"""Messages over UNIX sockets: whole, in order, with arrays beside them, and between processes of one user."""

from __future__ import annotations

import os
import pickle
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from nsactors.errors import AccessRefused, ClusterUnreachable
from nsactors.testing import TIMEOUT_S, wait_until
from nsactors.transport.channel import (
    AT_ONCE,
    Channel,
    ChannelClosed,
    Part,
    accept,
    accepted,
    connect,
    connected,
    decode,
    encode,
    listen,
)


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    channels = tuple(map(Channel, socket.socketpair()))
    yield channels  # type: ignore[misc]
    for channel in channels:
        channel.close()


def test_messages_arrive_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    for number in range(3):
        one.send([f"{number}".encode(), b"", bytes(10_000_000 * (number == 1))])
    assert [(bytes(head), len(tail)) for head, _, tail in (other.receive() for _ in range(3))] == [
        (b"0", 0),
        (b"1", 10_000_000),
        (b"2", 0),
    ]


def test_a_message_may_have_more_parts_than_the_system_takes_at_once(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    one.send([bytes([number % 256]) for number in range(3 * AT_ONCE)])
    assert [part[0] for part in other.receive()] == [number % 256 for number in range(3 * AT_ONCE)]


def test_the_memory_of_arrays_travels_beside_the_pickle(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    array = np.arange(1_000_000.0).reshape(1000, 1000, order="F")
    parts = encode(("here", array), {})
    assert len(bytes(parts[0])) < 1000
    with ThreadPoolExecutor(1) as pool:
        receiving = pool.submit(other.receive)
        one.send(parts, waits=True)
        array[:] = 0  # it has been written
        word, found = decode(receiving.result(TIMEOUT_S), lambda *made: None)
    assert (word, found[1, 2], found.flags.writeable) == ("here", 2001.0, False)


def test_a_message_has_no_more_parts_than_its_receiver_takes(
    ends: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = ends
    monkeypatch.setattr("nsactors.transport.channel.MOST_PARTS", 3)
    sent = [np.full(4, number) for number in range(5)] + [np.ones((2, 3), order="F")]
    parts = encode(sent, {})
    assert len(parts) == 3
    one.send(parts)
    found = decode(other.receive(), lambda *made: None)
    assert [array.tolist() for array in found] == [array.tolist() for array in sent]


def test_objects_that_cannot_travel_become_others_at_the_receiver() -> None:
    message = encode({"it": os}, {type(os): lambda module: ("module", module.__name__)})
    found = decode([memoryview(bytes(message[0]))], lambda *made: f"{made}")
    assert found == {"it": "('module', 'os')"}


def test_the_end_of_the_other_process_is_the_end_of_the_channel(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    one.send([b"last"])
    one.close()
    assert bytes(other.receive()[0]) == b"last"
    with pytest.raises(ChannelClosed):
        other.receive()
    other.send([bytes(10_000_000)], waits=True)  # nobody reads: this returns all the same


def ended(thread: threading.Thread) -> bool:
    thread.join(TIMEOUT_S)
    return not thread.is_alive()


def sending(channel: Channel, part: Part) -> threading.Thread:
    thread = threading.Thread(target=lambda: channel.send([part], waits=True), daemon=True)
    thread.start()
    return thread


def test_nobody_waits_for_a_channel_that_is_closed(ends: tuple[Channel, Channel]) -> None:
    one, _ = ends
    one.close()
    assert ended(sending(one, b"late"))


def test_nobody_waits_for_a_message_that_is_queued_behind_the_close(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    one.send([bytes(10_000_000)])  # holds the writer until the other end reads
    one._outgoing.put(None)
    queued = sending(one, b"late")
    wait_until(lambda: one._outgoing.qsize() == 2)
    other.receive()
    assert ended(queued)


def test_a_message_that_cannot_be_written_ends_the_channel_for_both_ends(ends: tuple[Channel, Channel]) -> None:
    one, _ = ends
    torn = memoryview(bytes(10))[::2]  # an error that is none of the socket's
    assert ended(sending(one, torn))
    for end in ends:
        with pytest.raises(ChannelClosed):
            end.receive()
    assert ended(sending(one, b"late"))


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n",
        struct.pack("<4sI", b"nsa1", 2**31),
        struct.pack("<4sI", b"nsa1", 0),
        struct.pack("<4sIQ", b"nsa1", 1, 2**60),  # more than there is memory
        struct.pack("<4sIQ", b"nsa1", 1, 2**63),
        b"nsa",
    ],
)
def test_other_bytes_end_the_channel(sent: bytes) -> None:
    here, there = socket.socketpair()
    there.sendall(sent)
    there.close()
    channel = Channel(here)
    with pytest.raises(ChannelClosed):
        channel.receive()
    channel.close()


def test_a_socket_is_for_its_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.fspath(tmp_path / "s")
    listener = listen(path)
    assert os.stat(path).st_mode & 0o777 == 0o600
    user = os.geteuid()
    client = connect(path, "sim")
    server = accept(listener)
    assert server is not None
    monkeypatch.setattr("os.geteuid", lambda: user + 1)  # who is at the other end, seen by somebody else
    with pytest.raises(AccessRefused, match="its process belongs to "):
        connect(path, "sim")
    assert accept(listener) is None
    client.close()
    server.close()
    listener.close()


def test_a_path_at_which_no_program_listens_is_told(tmp_path: Path) -> None:
    with pytest.raises(ClusterUnreachable, match="no program listens at"):
        connect(os.fspath(tmp_path / "s"), "sim")
    assert pickle.loads(pickle.dumps(ClusterUnreachable("sim", "x"))).reason == "x"


def test_a_connection_is_no_standard_stream_of_a_program_that_has_closed_one(tmp_path: Path) -> None:
    with listen(str(tmp_path / "it"), socket.SOCK_SEQPACKET) as listener:
        saved = os.dup(1)
        os.close(1)
        try:
            with connected(str(tmp_path / "it"), "it", socket.SOCK_SEQPACKET) as one:
                other = accepted(listener)
                assert other is not None
                with other:
                    found = {one.fileno(), other.fileno()}
                    one.send(b"hello")
                    assert other.recv(10) == b"hello"
        finally:
            os.dup2(saved, 1)
            os.close(saved)
    assert not found & {0, 1, 2}


def test_a_path_may_be_longer_than_the_system_takes(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 100)
    folder.mkdir()
    with listen(str(folder / "it")) as listener, connected(str(folder / "it"), "it") as one:
        other = accepted(listener)
        assert other is not None
        with other:
            one.send(b"hello")
            assert other.recv(10) == b"hello"
    with pytest.raises(ClusterUnreachable, match="no program listens"):
        connected(str(tmp_path / ("b" * 100) / "it"), "it")
