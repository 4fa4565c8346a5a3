"""Packets over UNIX sockets: whole, in order, and never waited for."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from nsactors.transport.channel import ChannelClosed
from nsactors.transport.packets import PACKET_BYTES, ROOM_BYTES, MessageSocket, PacketSocket, make_room

BUFFER = memoryview(bytearray(PACKET_BYTES))


@pytest.fixture
def ends() -> Iterator[tuple[PacketSocket, PacketSocket]]:
    one, other = (PacketSocket(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    yield one, other
    one.close()
    other.close()


def received(end: PacketSocket) -> list[bytes]:
    """The packets that have arrived."""
    packets = []
    while (packet := end.receive(BUFFER)) is not None:
        packets.append(bytes(packet))
    return packets


def test_packets_arrive_whole_and_in_order(ends: tuple[PacketSocket, PacketSocket]) -> None:
    one, other = ends
    packets = [b"a", bytes(PACKET_BYTES), b"c"]
    for packet in packets:
        one.send(packet)
    assert received(other) == packets


def test_packets_that_the_system_does_not_take_are_left(ends: tuple[PacketSocket, PacketSocket]) -> None:
    one, other = ends
    packets = [b"%d" % number for number in range(10_000)]
    for packet in packets:
        one.send(packet)
    assert one.has_unsent
    found = []
    while one.has_unsent:
        found += received(other)
        one.flush()
    assert found + received(other) == packets


def test_what_was_sent_before_the_end_arrives_although_the_other_end_has_not_read_everything(
    ends: tuple[PacketSocket, PacketSocket],
) -> None:
    one, other = ends
    other.send(b"not read")
    one.send(b"last")
    one.close()
    assert bytes(other.receive(BUFFER) or b"") == b"last"
    with pytest.raises(ChannelClosed):
        other.receive(BUFFER)


def test_an_end_that_has_gone_is_told(ends: tuple[PacketSocket, PacketSocket]) -> None:
    one, other = ends
    assert not one.is_closed
    other.close()
    assert other.is_closed
    with pytest.raises(ChannelClosed):
        one.send(b"a")
    assert not one.has_unsent


@pytest.mark.parametrize("nbytes", [PACKET_BYTES, PACKET_BYTES + 1, 2 * PACKET_BYTES, ROOM_BYTES, 10 * ROOM_BYTES])
def test_messages_of_any_length_arrive_whole_and_in_order(nbytes: int) -> None:
    one, other = (MessageSocket(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    messages = [b"a", b"b" * nbytes, b"c", b"d" * nbytes]
    for message in messages:
        one.send(message)
    found = received(other)
    while one.has_unsent:
        one.flush()
        found += received(other)
    assert found == messages
    one.close()
    other.close()


def test_the_system_takes_a_message_of_the_usual_room_at_once() -> None:
    one, other = (MessageSocket(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    one.send(bytes(ROOM_BYTES))
    assert not one.has_unsent
    one.close()
    other.close()


def test_a_connection_has_room_for_packets() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        assert make_room(one)
