"""Calls of services by a socket: whole packets, replies now and later, and the end of either side."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nsactors.protocol.serialize import Payload
from nsactors.services.mailboxes import MailboxMember, Put, Take
from nsactors.testing import TIMEOUT_S, wait_until
from nsactors.transport import service_socket
from nsactors.transport.channel import ChannelClosed
from nsactors.transport.service_socket import (
    DONE,
    FAILED,
    PACKET_BYTES,
    Caller,
    CallerListener,
    HostConnection,
    NotPlain,
    connect,
    encode,
    new_socket_path,
)


class Desk:
    """A host that echoes, fails, or keeps its replies back."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.held: list[tuple[Caller, int]] = []
        self.told: list[tuple[str, Any]] = []
        self.ended: list[str] = []
        self.callers: list[Caller] = []
        self.loop = asyncio.new_event_loop()
        self.listener: CallerListener | None = None
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.run(self._listen)

    def run(self, function: Callable[[], Any]) -> Any:
        """Call a function on the event loop."""

        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(TIMEOUT_S)

    def connect(self, name: str = "me") -> HostConnection:
        connection = connect(self.path, name)
        assert connection is not None
        return connection

    def close(self) -> None:
        assert self.listener is not None
        self.run(self.listener.close)
        for caller in self.callers:
            self.run(caller.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(TIMEOUT_S)
        self.loop.close()

    def _listen(self) -> None:
        self.listener = CallerListener(self.path, lambda caller, hello: Answering(self, caller, *hello))


class Answering:
    def __init__(self, desk: Desk, caller: Caller, name: str) -> None:
        if name == "stranger":
            raise LookupError("no such caller")
        self.desk, self.caller, self.name = desk, caller, name
        desk.callers.append(caller)

    def receive(self, reply: int, method: str, terms: tuple[Any, ...]) -> None:
        match method:
            case "echo":
                self.caller.reply(reply, DONE, terms)
            case "hold":
                self.desk.held.append((self.caller, reply))
            case "told":
                self.desk.told.append((self.name, terms))
            case _:
                raise LookupError(method)

    def end(self) -> None:
        self.desk.ended.append(self.name)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(new_socket_path(os.fspath(tmp_path)))
    yield desk
    desk.close()


def test_a_message_is_replied_to(desk: Desk) -> None:
    request = Put(MailboxMember("all", 1), 2, 3, Payload(b"data"))
    assert desk.connect().ask("echo", request, None).result(TIMEOUT_S) == (DONE, (request, None))


def test_a_reply_may_come_after_later_ones(desk: Desk) -> None:
    connection = desk.connect()
    first = connection.ask("hold")
    assert connection.ask("echo", 2).result(TIMEOUT_S) == (DONE, (2,))
    assert not first.done()
    [(caller, number)] = desk.held
    desk.run(lambda: caller.reply(number, DONE, 1))
    assert first.result(TIMEOUT_S) == (DONE, 1)


def test_threads_share_a_connection(desk: Desk) -> None:
    connection = desk.connect()
    found: dict[int, Any] = {}

    def ask(number: int) -> None:
        for _ in range(50):
            found[number] = connection.ask("echo", number).result(TIMEOUT_S)[1]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert found == {number: (number,) for number in range(4)}


def test_an_error_of_the_host_is_the_reply(desk: Desk) -> None:
    outcome, error = desk.connect().ask("break").result(TIMEOUT_S)
    assert (outcome, type(error), str(error)) == (FAILED, LookupError, "break")


def test_messages_are_handled_in_the_order_in_which_they_were_sent(desk: Desk) -> None:
    connection = desk.connect()
    for number in range(1_000):
        connection.tell("told", number)
    connection.ask("echo").result(TIMEOUT_S)
    assert desk.told == [("me", (number,)) for number in range(1_000)]


def test_what_has_been_sent_arrives_before_the_end(desk: Desk) -> None:
    connection = desk.connect()
    for number in range(100):
        connection.tell("told", number)
    connection.close()
    wait_until(lambda: desk.ended == ["me"])
    assert desk.told == [("me", (number,)) for number in range(100)]


def test_a_caller_that_does_not_read_loses_no_reply(desk: Desk) -> None:
    text, count = "x" * (PACKET_BYTES // 2), 200
    connection = desk.connect()
    reading = threading.Event()
    replies = [connection.ask("hold") for _ in range(count)]
    connection.ask("echo").result(TIMEOUT_S)
    replies[0].add_done_callback(lambda reply: reading.wait(TIMEOUT_S))  # on the thread that reads
    desk.run(lambda: [caller.reply(number, DONE, text) for caller, number in desk.held])
    assert desk.run(lambda: desk.held[0][0]._socket.has_unsent), "the socket has taken them all"
    reading.set()
    assert [reply.result(TIMEOUT_S) for reply in replies] == [(DONE, text)] * count


def test_the_end_of_the_host_is_the_end_of_all_calls(desk: Desk) -> None:
    connection = desk.connect()
    waiting = connection.ask("hold")
    connection.ask("echo").result(TIMEOUT_S)
    [(caller, _)] = desk.held
    desk.run(caller.close)
    with pytest.raises(ChannelClosed):
        waiting.result(TIMEOUT_S)
    with pytest.raises(ChannelClosed):
        connection.ask("echo").result(TIMEOUT_S)
    connection.tell("told")  # nobody hears it


def test_a_killed_caller_has_ended_with_all_that_it_had_sent(desk: Desk) -> None:
    if (child := os.fork()) == 0:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(desk.path)
        for message in ((1, "hello", "child"), (2, "echo", "unread"), (0, "told", 1), (0, "told", 2)):
            connection.send(encode(message))
        os._exit(0)
    os.waitpid(child, 0)
    wait_until(lambda: desk.ended == ["child"])
    assert desk.told == [("child", (1,)), ("child", (2,))]


def test_a_forked_child_does_not_keep_the_connection_of_its_parent(desk: Desk) -> None:
    connection = desk.connect()
    until, go = os.pipe()
    if (child := os.fork()) == 0:
        os.close(go)
        os.read(until, 1)
        os._exit(0)
    os.close(until)
    connection.close()
    wait_until(lambda: desk.ended == ["me"])
    os.close(go)
    os.waitpid(child, 0)


def test_a_caller_that_is_refused_has_no_connection(desk: Desk) -> None:
    assert connect(desk.path, "stranger") is None


def test_a_host_that_cannot_be_reached_has_no_connection(desk: Desk, tmp_path: Path) -> None:
    assert connect("", "me") is None
    assert connect(os.fspath(tmp_path / "elsewhere"), "me") is None


def test_another_users_host_has_no_connection(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nsactors.transport.channel.peer_of", lambda connection: os.geteuid() + 1)
    assert connect(desk.path, "me") is None


def test_a_system_without_packets_has_no_connection(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_socket, "SEQPACKET", None)
    assert connect(desk.path, "me") is None
    with pytest.raises(OSError, match="no sockets for packets"):
        desk.run(lambda: CallerListener(f"{desk.path}2", lambda caller, hello: Answering(desk, caller, *hello)))


def test_a_message_of_another_form_ends_the_connection(desk: Desk) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.connect(desk.path)
        other.send(b"GET / HTTP/1.1")
        other.settimeout(TIMEOUT_S)
        assert other.recv(10) == b""


class Users:
    """A class that the host may not have."""


@pytest.mark.parametrize("value", [Users(), Users, lambda: 1, bytes(2 * PACKET_BYTES), threading.Lock(), os.path.join])
def test_what_is_long_or_not_plain_goes_by_ray(value: object) -> None:
    with pytest.raises(NotPlain):
        encode(("call", value))


def test_the_longest_packet_arrives(desk: Desk) -> None:
    data = bytes(PACKET_BYTES - 100)
    assert desk.connect().ask("echo", data).result(TIMEOUT_S) == (DONE, (data,))


@pytest.mark.parametrize("value", [ValueError("x"), Take(MailboxMember("g", 0), None, None), {1: [2.5, None, b"x"]}])
def test_plain_values_and_own_classes_go_by_the_socket(value: object) -> None:
    assert encode(value)


def test_folders_of_hosts_that_have_ended_are_removed(tmp_path: Path, desk: Desk) -> None:
    path = new_socket_path(os.fspath(tmp_path))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen()
    listener.close()
    another = new_socket_path(os.fspath(tmp_path))
    assert sorted(tmp_path.iterdir()) == sorted([Path(another).parent, Path(desk.path).parent])
    assert os.stat(Path(another).parent).st_mode & 0o777 == 0o700
    assert len(os.path.relpath(another, tmp_path)) <= len("plasma_store")
