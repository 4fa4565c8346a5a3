"""Sockets between clients and engines of one host, on an actor that runs one call after the other as Ray's do."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from nsactors.errors import StoreFull, keyboard_interrupt
from nsactors.protocol.engine_info import EngineInfo
from nsactors.protocol.wire import stamp
from nsactors.testing import TIMEOUT_S, wait_until
from nsactors.transport.base import ClusterEnd, Envelope
from nsactors.transport.packets import ROOM_BYTES
from nsactors.transport.ray import direct_lines, direct_server
from nsactors.transport.ray.direct_lines import DirectLine, DirectLines, DirectReply
from nsactors.transport.ray.direct_server import NUMBER, DirectServer, socket_path

BODY = b": an encoded request"


class Actor:
    """An engine: runs a call at a time, each request once, and takes requests from its socket in ``serve``."""

    def __init__(self, folder: Path) -> None:
        self.ran: list[int] = []
        self.calls: list[str] = []
        self.large: set[int] = set()
        self.kept: dict[bytes, bytes] = {}
        self.reply_bytes = 0
        self.before: Callable[[int], object] = lambda seq: None
        self.is_dead = False
        self._replies: dict[int, bytes] = {}
        self._queue: SimpleQueue[Any] = SimpleQueue()
        output = str(folder / "engine-0.0")
        self.server = DirectServer(output, self._run_direct, self.kept)
        self.serve = SimpleNamespace(
            remote=lambda epoch, name: self._call("serve", lambda: self.server.serve(epoch, name))
        )
        self.handle = SimpleNamespace(remote=lambda header: self._call("handle", lambda: self._handle(header)))
        self.info = EngineInfo(0, 0, os.getpid(), socket.gethostname(), self, output)
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def end(self) -> None:
        self.before = lambda seq: None
        self._queue.put(None)
        self._thread.join()
        self.server.close()

    def _call(self, name: str, work: Callable[[], Any]) -> Any:
        future: Future[Any] = Future()
        self.calls.append(name)
        self._queue.put((future, work))
        return SimpleNamespace(future=lambda: future)

    def _work(self) -> None:
        while (entry := self._queue.get()) is not None:
            future, work = entry
            try:
                if self.is_dead:
                    raise RuntimeError("the actor has died")
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

    def _run_direct(self, header: bytes) -> bytes | None:
        reply = self._run(header)
        if NUMBER.unpack_from(header)[0] in self.large:
            self.kept[header] = reply
            return None
        return reply

    def _handle(self, header: bytes) -> bytes:
        self.kept.pop(header, None)
        return self._run(header)

    def _run(self, header: bytes) -> bytes:
        (seq,) = NUMBER.unpack_from(header)
        if seq not in self._replies:
            self.before(seq)
            self.ran.append(seq)
            self._replies[seq] = (b"reply %d" % seq).ljust(self.reply_bytes)
        return self._replies[seq]


@pytest.fixture
def actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Actor]:
    monkeypatch.setattr(direct_lines, "RECENT_S", TIMEOUT_S)
    actor = Actor(tmp_path)
    yield actor
    actor.end()


@pytest.fixture
def lines() -> Iterator[DirectLines]:
    lines = DirectLines(ClusterEnd())
    yield lines
    lines.close()


@pytest.fixture
def line(actor: Actor, lines: DirectLines) -> DirectLine:
    lines.heard(actor.info)
    line = lines.line_for(actor.info, BODY)
    assert line is not None
    return line


def send(line: DirectLine, *numbers: int) -> list[DirectReply]:
    prepared = (BODY, None)
    return [line.send([Envelope(line.engine, seq, 0)], prepared)[0] for seq in numbers]


def answers(replies: list[DirectReply]) -> list[Any]:
    """The replies, as they are delivered to listeners."""
    seen: dict[int, Any] = {}
    for position, reply in enumerate(replies):
        reply.when_kept(lambda answer, position=position: seen.setdefault(position, answer))  # type: ignore[misc]
        reply.line.listen()
    wait_until(lambda: len(seen) == len(replies))
    return [seen[position] for position in range(len(replies))]


def replies_to(*numbers: int) -> list[bytes]:
    return [b"reply %d" % seq for seq in numbers]


def test_there_is_a_line_when_requests_follow_each_other_quickly(actor: Actor, lines: DirectLines) -> None:
    assert lines.line_for(actor.info, BODY) is None
    lines.heard(actor.info)
    line = lines.line_for(actor.info, BODY)
    assert line is not None
    assert lines.line_for(actor.info, BODY) is line


def test_there_is_one_in_each_round_through_many_engines(
    actor: Actor, lines: DirectLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(direct_lines, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(direct_lines, "RECENT_S", 0.05)
    others = [replace(actor.info, engine_id=number) for number in range(1, 10)]
    lines.heard(actor.info)
    for other in others:
        now += 0.02
        lines.heard(other)
    assert lines.line_for(actor.info, BODY)
    now += 0.06
    assert lines.line_for(others[0], BODY) is None  # the client has paused, too
    lines.heard(actor.info)
    now += direct_server.ROUND_S
    lines.heard(others[-1])
    assert lines.line_for(others[0], BODY) is None


def test_there_is_none_for_what_is_large_or_elsewhere(actor: Actor, lines: DirectLines, tmp_path: Path) -> None:
    lines.heard(actor.info)
    assert lines.line_for(actor.info, bytes(10**6)) is None
    for other in ({"host": "elsewhere"}, {"output_path": None}, {"output_path": str(tmp_path / "engine-1.0")}):
        assert lines.line_for(EngineInfo(**{**vars_of(actor.info), "engine_id": 1, **other}), BODY) is None


def vars_of(info: EngineInfo) -> dict[str, Any]:
    return {name: getattr(info, name) for name in ("engine_id", "incarnation", "pid", "host", "address", "output_path")}


def test_there_is_none_if_the_user_has_turned_it_off(actor: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSACTORS_SOCKETS", "0")
    lines = DirectLines(ClusterEnd())
    lines.heard(actor.info)
    assert lines.line_for(actor.info, BODY) is None
    assert not lines.has_sockets([actor.info])


def test_data_that_ray_would_store_takes_a_line_whenever_it_comes(actor: Actor, lines: DirectLines) -> None:
    assert lines.has_sockets([actor.info])
    line = lines.line_for(actor.info, BODY * 10_000)
    assert line is not None
    assert lines.line_for(actor.info, BODY * 10_000) is line
    assert lines.line_for(actor.info, BODY) is None


def test_engines_elsewhere_or_without_a_socket_get_no_data_by_sockets(
    actor: Actor, lines: DirectLines, line: DirectLine, tmp_path: Path
) -> None:
    elsewhere = replace(actor.info, engine_id=1, host="elsewhere")
    assert not lines.has_sockets([actor.info, elsewhere])
    without = replace(actor.info, engine_id=2, output_path=str(tmp_path / "engine-2.0"))
    assert lines.line_for(without, bytes(100_000)) is None
    assert not lines.has_sockets([without])
    actor.large = {0}
    assert answers(send(line, 0)) == replies_to(0)
    assert not lines.has_sockets([actor.info])  # its results take the way through Ray for a while


def test_long_requests_and_replies_arrive_whole_and_without_delay(
    actor: Actor, lines: DirectLines, line: DirectLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_server, "LINGER_S", 10 * TIMEOUT_S)  # what is left would be sent when the engine leaves
    actor.reply_bytes = 3 * ROOM_BYTES
    headers: list[int] = []
    run = actor._run
    actor._run = lambda header: headers.append(len(header)) or run(header)  # type: ignore[method-assign, func-returns-value]
    body = BODY * 20_000
    for seq in range(3):
        replies = line.send([Envelope(line.engine, seq, 0)], (body, None))
        assert [answer.strip() for answer in answers(replies)] == replies_to(seq)
    assert headers == [len(stamp(0, 0, body))] * 3
    assert "handle" not in actor.calls
    lines.before_ray(actor.info)


def test_a_long_request_is_sent_through_ray_only_if_the_object_store_has_room(
    actor: Actor, line: DirectLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(what: str, nbytes: int) -> None:
        raise StoreFull(what)

    monkeypatch.setattr(direct_lines, "require_room", refuse)
    line.break_off()
    (short,) = send(line, 0)
    (long,) = line.send([Envelope(line.engine, 1, 0)], (bytes(100_000), None))
    assert answers([short]) == replies_to(0)
    assert isinstance(long.answer, StoreFull)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("_LineReader", RuntimeError("can't start new thread")),
        ("DirectLine", OSError(errno.EMFILE, "too many open files")),
    ],
)
def test_there_is_none_where_there_is_no_room_for_it_and_one_when_there_is(
    actor: Actor, lines: DirectLines, what: str, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    lines.heard(actor.info)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct_lines, what, fail)
        assert lines.line_for(actor.info, BODY) is None
    assert lines.line_for(actor.info, BODY) is not None


def test_requests_run_in_order_and_few_calls_are_made(actor: Actor, line: DirectLine) -> None:
    assert answers(send(line, *range(500))) == replies_to(*range(500))
    assert actor.ran == list(range(500))
    assert "handle" not in actor.calls
    assert len(actor.calls) < 100


def test_a_caller_reads_the_replies_itself(actor: Actor, lines: DirectLines, line: DirectLine) -> None:
    replies = send(line, 0, 1)
    assert lines.take(replies, TIMEOUT_S) == replies_to(0, 1)
    assert lines.take(send(line, 2), TIMEOUT_S) == replies_to(2)


def test_a_caller_gives_up_and_the_reply_is_delivered(actor: Actor, lines: DirectLines, line: DirectLine) -> None:
    go_on = threading.Event()
    actor.before = lambda seq: go_on.wait(TIMEOUT_S)
    replies = send(line, 0)
    assert lines.take(replies, 0.01) is None
    go_on.set()
    assert answers(replies) == replies_to(0)


def test_a_reply_that_is_too_large_is_asked_for_through_ray(actor: Actor, line: DirectLine) -> None:
    actor.large = {1}
    assert answers(send(line, 0, 1, 2)) == replies_to(0, 1, 2)
    assert actor.calls.count("handle") == 1
    assert actor.ran == [0, 1, 2]


def test_after_large_replies_requests_take_the_way_through_ray_for_a_while(
    actor: Actor, lines: DirectLines, line: DirectLine
) -> None:
    def requests_until_the_line_is_taken() -> int:
        return next(number for number in range(1000) if lines.line_for(actor.info, BODY) is line)

    actor.large = {1, 2}
    detours = []
    for seq in (1, 2):
        assert answers(send(line, seq)) == replies_to(seq)
        detours.append(requests_until_the_line_is_taken())
    assert detours[0] > 0
    assert detours[1] > detours[0]
    assert requests_until_the_line_is_taken() == 0


def serve_one_request_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEASE_S", "LONE_LEASE_S", "LEASE_PAUSES"):
        monkeypatch.setattr(direct_server, name, 0)


def test_other_calls_have_their_turn_while_requests_keep_coming(
    actor: Actor, line: DirectLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_one_request_at_a_time(monkeypatch)
    order: list[object] = []

    def call(seq: int) -> None:
        order.append(seq)
        actor._call("other", lambda: order.append(f"after {seq}"))

    actor.before = call
    assert answers(send(line, *range(10))) == replies_to(*range(10))
    assert all(order.index(f"after {seq}") < order.index(seq + 2) for seq in range(8))


def test_the_engine_serves_for_longer_if_no_other_client_has_called_through_ray_lately(
    actor: Actor, line: DirectLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_server, "LEASE_S", 0.0)
    monkeypatch.setattr(direct_server, "LONE_LEASE_S", TIMEOUT_S)
    monkeypatch.setattr(direct_server, "LINGER_S", TIMEOUT_S)
    assert answers(send(line, *range(20))) == replies_to(*range(20))
    assert actor.calls == ["serve"]
    line.ask_to_leave()
    actor.server.called_through_ray(b"on another host")
    assert answers(send(line, *range(20, 40))) == replies_to(*range(20, 40))
    assert actor.calls.count("serve") > 10


def test_what_comes_by_sockets_after_a_fence_runs_behind_the_calls_in_the_queue(
    actor: Actor, lines: DirectLines, line: DirectLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_server, "LINGER_S", TIMEOUT_S)
    order: list[object] = []
    lines_of_other = DirectLines(ClusterEnd())
    lines_of_other.heard(actor.info)
    other = lines_of_other.line_for(actor.info, BODY)
    assert other is not None
    later: list[DirectReply] = []

    def fence(seq: int) -> None:
        order.append(seq)
        if seq == 0:
            actor._call("serve", lambda: actor.server.serve(0, b""))  # by a third client, ahead of the next call
            actor._call("handle", lambda: order.append("in the queue"))
            actor.server.fence()
            later.extend(send(line, 1) + send(other, 2))

    actor.before = fence
    assert answers(send(line, 0)) == replies_to(0)
    assert answers(later) == replies_to(1, 2)
    assert order[:2] == [0, "in the queue"]
    assert lines.take(send(line, 3), TIMEOUT_S) == replies_to(3)
    lines_of_other.close()


def test_a_client_that_is_slow_to_read_is_told_that_the_engine_leaves(
    actor: Actor, line: DirectLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor.reply_bytes = ROOM_BYTES  # the connection takes two of these, and then nothing more
    monkeypatch.setattr(direct_server, "LONE_LEASE_S", direct_server.LEASE_S)
    pause, receive = threading.Event(), DirectLine.receive
    actor.before = lambda seq: seq == 2 and pause.wait(2 * direct_server.LEASE_S)  # so the engine leaves after three
    monkeypatch.setattr(DirectLine, "receive", lambda line: pause.wait(0.2) or receive(line))
    assert len(answers(send(line, *range(6)))) == 6


@pytest.mark.parametrize("obstacle", ["dead", "idle", "no descriptors"])
def test_a_client_without_a_connection_calls_through_ray(
    actor: Actor, lines: DirectLines, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    actor.server.fence()
    if obstacle == "no descriptors":
        monkeypatch.setattr(direct_server, "accepted", fail_without_descriptors)
    others = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(3)]
    for other in others:
        other.connect(socket_path(actor.info.output_path or ""))
        if obstacle == "dead":
            other.close()
    lines.heard(actor.info)
    line = lines.line_for(actor.info, BODY)
    assert line is not None
    assert answers(send(line, 0)) == replies_to(0)
    for other in others:
        other.close()


def fail_without_descriptors(listener: socket.socket) -> None:
    raise OSError(errno.EMFILE, "too many open files")


def test_an_engine_that_serves_without_telling_so_is_called_through_ray(actor: Actor, line: DirectLine) -> None:
    actor.serve = SimpleNamespace(remote=lambda epoch, name: actor._call("serve", lambda: False))
    assert answers(send(line, 0, 1)) == replies_to(0, 1)
    assert line.is_broken


def test_a_client_has_one_call_in_the_queue_however_many_others_there_are(
    actor: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_one_request_at_a_time(monkeypatch)
    clients = [DirectLines(ClusterEnd()) for _ in range(4)]
    replies = []
    for number, client in enumerate(clients):
        client.heard(actor.info)
        line = client.line_for(actor.info, BODY)
        assert line is not None
        replies += send(line, *range(100 * number, 100 * number + 50))
    assert len(answers(replies)) == 200
    assert actor.calls.count("serve") <= 204  # as many as requests, since each serves one
    for client in clients:
        client.close()


def test_all_requests_are_sent_again_though_the_reply_to_one_of_them_is_just_being_delivered(
    actor: Actor, line: DirectLine
) -> None:
    arrived, go_on = threading.Event(), threading.Event()
    actor.before = lambda seq: seq == 1 and go_on.wait(TIMEOUT_S)
    first, second = send(line, 0, 1)

    def deliver(answer: Any) -> None:
        arrived.set()
        go_on.wait(TIMEOUT_S)

    first.when_kept(deliver)
    assert arrived.wait(TIMEOUT_S)
    handle = actor.handle.remote

    def send_through_ray(header: bytes) -> Any:
        go_on.set()
        wait_until(lambda: 0 not in line._unanswered)  # another thread has delivered the reply
        return handle(header)

    actor.handle = SimpleNamespace(remote=send_through_ray)
    line.break_off()
    assert answers([second]) == replies_to(1)


def test_no_listener_is_called_while_the_line_is_locked(actor: Actor, line: DirectLine) -> None:
    def reply_at_once(header: bytes) -> Any:
        future: Future[bytes] = Future()
        future.set_result(actor._run(header))
        return SimpleNamespace(future=lambda: future)

    actor.handle = SimpleNamespace(remote=reply_at_once)
    actor.large = {0}
    of_session, locks, heard = threading.Lock(), threading.Event(), threading.Event()

    def listener(answer: Any) -> None:
        locks.wait(TIMEOUT_S)
        with of_session:
            heard.set()

    (reply,) = send(line, 0)
    reply.when_kept(listener)
    line.listen()
    with of_session:
        locks.set()
        wait_until(lambda: reply.answer is not None)
        assert line.lock.acquire(timeout=TIMEOUT_S)
        line.lock.release()
    assert heard.wait(TIMEOUT_S)


def test_ctrl_c_while_requests_are_made_safe_costs_none_of_them(
    actor: Actor, lines: DirectLines, line: DirectLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    actor.before = lambda seq: go_on.wait(TIMEOUT_S)
    replies = send(line, *range(4))
    send_through_ray = DirectLine._send_through_ray

    def strike(line: DirectLine, seq: int) -> None:
        send_through_ray(line, seq)
        monkeypatch.setattr(DirectLine, "_send_through_ray", send_through_ray)
        raise keyboard_interrupt()

    monkeypatch.setattr(DirectLine, "_send_through_ray", strike)
    with pytest.raises(KeyboardInterrupt):
        lines.make_safe()
    replies += send(line, 4)
    go_on.set()
    assert answers(replies) == replies_to(*range(5))
    assert actor.ran == list(range(5))


def test_when_the_engine_fails_to_serve_another_client_does_not_bring_requests_out_of_order(
    actor: Actor, line: DirectLine
) -> None:
    clients = DirectLines(ClusterEnd())
    clients.heard(actor.info)
    other = clients.line_for(actor.info, BODY)
    assert other is not None
    more: list[DirectReply] = []

    def fail_once(seq: int) -> None:
        if seq == 1:
            actor.before = lambda seq: None
            more.extend(send(other, 100))
            raise keyboard_interrupt()

    actor.before = fail_once
    assert answers(send(line, *range(4))) == replies_to(*range(4))
    assert answers(more) == replies_to(100)
    assert [seq for seq in actor.ran if seq < 100] == list(range(4))
    clients.close()


def test_a_copy_of_a_line_in_a_forked_child_does_not_hide_its_end(
    actor: Actor, lines: DirectLines, line: DirectLine
) -> None:
    assert lines.take(send(line, 0), TIMEOUT_S) == replies_to(0)
    copy = os.dup(line.socket.fileno())
    line.break_off()
    again = lines.line_for(actor.info, BODY)
    assert again is not None
    assert answers(send(again, 1)) == replies_to(1)
    wait_until(lambda: len(actor.server._connections) == 1)
    os.close(copy)


def test_an_engine_leaves_for_a_call_of_the_same_client(
    actor: Actor, lines: DirectLines, line: DirectLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_server, "LINGER_S", TIMEOUT_S)
    assert lines.take(send(line, 0), TIMEOUT_S) == replies_to(0)
    lines.before_ray(actor.info)
    assert actor._call("other", lambda: 4).future().result(TIMEOUT_S / 2) == 4


@pytest.fixture
def long_pauses(actor: Actor, lines: DirectLines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine wait long for a client that is known to pause, and for no other."""
    monkeypatch.setattr(direct_server, "LINGER_S", 0.0)
    monkeypatch.setattr(direct_server, "LINGER_PAUSES", 10**9)
    monkeypatch.setattr(direct_server, "LEASE_PAUSES", 10**9)
    monkeypatch.setattr(direct_server, "LONGEST_S", TIMEOUT_S)
    actor.server.called_through_ray(lines.client.encode())


@pytest.fixture
def other_lines() -> Iterator[DirectLines]:
    lines = DirectLines(ClusterEnd())
    yield lines
    lines.close()


@pytest.mark.usefixtures("long_pauses")
def test_an_engine_waits_for_a_client_that_pauses_unless_another_one_calls_through_ray(
    actor: Actor, lines: DirectLines, line: DirectLine, other_lines: DirectLines
) -> None:
    for seq in range(5):
        assert lines.take(send(line, seq), TIMEOUT_S) == replies_to(seq)
    assert actor.calls == ["serve"]
    other_lines.before_ray(actor.info)
    assert actor._call("other", lambda: 4).future().result(TIMEOUT_S / 2) == 4


@pytest.mark.usefixtures("long_pauses")
def test_an_engine_does_not_wait_if_another_client_has_called_through_ray_lately(
    actor: Actor, lines: DirectLines, line: DirectLine
) -> None:
    actor.server.called_through_ray(b"on another host")
    assert lines.take(send(line, 0), TIMEOUT_S) == replies_to(0)
    assert actor._call("other", lambda: 4).future().result(TIMEOUT_S / 2) == 4


@pytest.mark.usefixtures("long_pauses")
def test_a_call_through_ray_has_its_turn_while_requests_are_waiting(
    actor: Actor, line: DirectLine, other_lines: DirectLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_server, "LEASE_S", 0.0)
    order: list[object] = []

    def call(seq: int) -> None:
        order.append(seq)
        if seq == 0:
            other_lines.before_ray(actor.info)
            actor._call("other", lambda: order.append("other"))

    actor.before = call
    assert answers(send(line, *range(5))) == replies_to(*range(5))
    assert order == [0, "other", 1, 2, 3, 4]


def test_a_knock_at_an_engine_that_has_ended_or_does_not_look_is_no_error(
    actor: Actor, lines: DirectLines, tmp_path: Path
) -> None:
    for _ in range(100):
        lines.before_ray(actor.info)
    lines.before_ray(replace(actor.info, output_path=str(tmp_path / "engine-7.0")))


def test_when_the_engine_fails_to_serve_each_request_runs_once(actor: Actor, line: DirectLine) -> None:
    def fail_once(seq: int) -> None:
        if seq == 3:
            actor.before = lambda seq: None
            raise keyboard_interrupt()  # as a signal handler of a user's program may do

    actor.before = fail_once
    assert answers(send(line, *range(6))) == replies_to(*range(6))
    assert actor.ran == list(range(6))
    assert line.is_broken


def test_after_a_break_there_is_another_line(actor: Actor, lines: DirectLines, line: DirectLine) -> None:
    line.break_off()
    again = lines.line_for(actor.info, BODY)
    assert again is not None
    assert again is not line
    assert answers(send(line, 0) + send(again, 1)) == replies_to(0, 1)


def test_ctrl_c_while_replies_are_read_costs_none_of_them(
    actor: Actor, lines: DirectLines, line: DirectLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = send(line, *range(5))
    wait_until(lambda: len(actor.ran) == 5)
    keep = DirectReply.keep

    def strike(reply: DirectReply, answer: Any) -> None:
        if threading.current_thread() is not threading.main_thread():  # where no signal reaches Python code
            return keep(reply, answer)
        monkeypatch.setattr(DirectReply, "keep", keep)
        raise keyboard_interrupt()

    more = send(line, 5)
    monkeypatch.setattr(DirectReply, "keep", strike)
    with contextlib.suppress(KeyboardInterrupt):
        lines.take(more, TIMEOUT_S)
    assert answers(replies + more) == replies_to(*range(6))
    assert actor.ran == list(range(6))


def test_the_death_of_an_engine_is_told_by_ray(actor: Actor, line: DirectLine) -> None:
    begun, held = threading.Event(), threading.Event()
    actor.before = lambda seq: begun.set() or held.wait(TIMEOUT_S)
    replies = send(line, 0, 1)
    assert begun.wait(TIMEOUT_S)
    actor.is_dead = True
    line.socket._socket.shutdown(socket.SHUT_RDWR)  # as when its process has ended
    held.set()
    assert [str(answer) for answer in answers(replies)] == ["the actor has died"] * 2


def test_a_death_that_does_not_close_the_socket_is_told_as_well(actor: Actor, line: DirectLine) -> None:
    actor.is_dead = True
    assert [str(answer) for answer in answers(send(line, 0, 1))] == ["the actor has died"] * 2


def test_what_a_client_has_sent_runs_though_it_has_died(actor: Actor, line: DirectLine) -> None:
    go_on = threading.Event()
    actor.before = lambda seq: go_on.wait(TIMEOUT_S)
    actor.large = {1010}
    (reply,) = send(line, 0)
    if (child := os.fork()) == 0:
        own = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own.connect(socket_path(actor.info.output_path or ""))
        for seq in range(1000, 1050):
            own.send(direct_server.REQUEST + NUMBER.pack(seq) + BODY)
        os._exit(0)
    os.waitpid(child, 0)
    go_on.set()
    assert answers([reply]) == replies_to(0)
    wait_until(lambda: len(actor.ran) == 51)
    wait_until(lambda: not actor.kept)  # nobody will ask for its large reply


def test_what_a_client_sends_through_ray_after_a_break_does_not_run_before(
    actor: Actor, lines: DirectLines, line: DirectLine
) -> None:
    go_on = threading.Event()
    actor.before = lambda seq: go_on.wait(TIMEOUT_S)
    actor.large = set(range(1, 40))
    replies = send(line, *range(40))
    wait_until(lambda: actor.calls)
    lines.make_safe()
    go_on.set()
    assert answers(replies) == replies_to(*range(40))
    assert actor.ran == list(range(40))
    assert not actor.kept


def test_requests_are_safe_from_the_end_of_the_process_when_ray_has_them(
    actor: Actor, lines: DirectLines, line: DirectLine
) -> None:
    go_on = threading.Event()
    actor.before = lambda seq: go_on.wait(TIMEOUT_S)
    replies = send(line, 0, 1)
    lines.make_safe()
    assert actor.calls.count("handle") == 2
    go_on.set()
    assert answers(replies) == replies_to(0, 1)
    assert actor.ran == [0, 1]


def test_a_client_that_reads_nothing_holds_up_nobody(
    actor: Actor, line: DirectLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_server, "FLUSH_S", 0.0)
    deaf = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    deaf.connect(socket_path(actor.info.output_path or ""))
    for seq in range(1000, 1100):
        deaf.send(direct_server.REQUEST + NUMBER.pack(seq) + BODY)
    actor._replies.update((seq, bytes(10_000)) for seq in range(1000, 1100))
    assert answers(send(line, *range(5))) == replies_to(*range(5))
    deaf.close()


def test_a_forked_child_closes_the_connections_of_its_copy_alone(
    actor: Actor, lines: DirectLines, line: DirectLine
) -> None:
    pids: list[int] = []

    def fork(seq: int) -> None:
        if seq == 0 and not (pid := os.fork()):
            os._exit(len(actor.server._connections))
        elif seq == 0:
            pids.append(pid)

    actor.before = fork
    assert answers(send(line, 0, 1)) == replies_to(0, 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0


def test_nothing_is_sent_through_ray_when_the_cluster_has_ended(
    actor: Actor, lines: DirectLines, line: DirectLine
) -> None:
    lines._stopped.set()
    send(line, 0)
    line.break_off()
    assert actor.calls == []
