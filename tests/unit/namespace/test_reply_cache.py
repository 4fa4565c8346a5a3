"""What an engine tells of the requests that it has answered, runs, and has not begun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from nsactors.namespace.output import OutputRecorder
from nsactors.namespace.reply_cache import ReplyCache
from nsactors.protocol.messages import Ok, OutputBatch, Refused, Reply, RequestId, StreamText
from nsactors.protocol.serialize import Payload, pack, unpack
from nsactors.protocol.stored_replies import LARGE_BYTES, Missing, StoredReply
from nsactors.protocol.wire import encode_reply, seal

ANN = RequestId("ann", 3)
LARGE = b"x" * (LARGE_BYTES + 1)


@dataclass(frozen=True)
class Shelf:
    """A stored object."""

    payload: Payload

    def load(self) -> Payload:
        return self.payload


class Store:
    """An object store that counts what is put into it."""

    ref_types: tuple[type, ...] = (Shelf,)

    def __init__(self) -> None:
        self.puts = 0

    def put(self, payload: Payload) -> Shelf:
        self.puts += 1
        return Shelf(payload)

    def memory(self) -> None:
        return None


class Silence:
    """A capture of nothing."""

    def begin(self, request: RequestId) -> list[StreamText]:
        return []

    def read(self) -> list[StreamText]:
        return []

    def close(self) -> None:
        pass


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def output() -> OutputRecorder:
    return OutputRecorder(0, Silence())


@pytest.fixture
def replies(store: Store, output: OutputRecorder) -> ReplyCache:
    return ReplyCache(store, output)


@pytest.fixture
def run(replies: ReplyCache, output: OutputRecorder) -> Callable[..., None]:
    """Runs a request that prints ``head``, which is delivered, and ``tail``, and gives ``value``."""

    def run(request: RequestId = ANN, value: object = None, head: str = "", tail: str = "") -> None:
        replies.current = request
        output.begin(request)
        if head:
            output.show(StreamText("stdout", head))
            batch = output.take()
            assert batch is not None
            output.acknowledge(batch)
        if tail:
            output.show(StreamText("stdout", tail))
        result = None if value is None else pack(value)
        sealed = seal(result)
        reply = Reply(request, 0, 0, Ok(), output.finish(), 1.0, 2.0)
        replies.store(reply, encode_reply(reply, sealed), result, sealed)

    return run


def one(replies: ReplyCache, request: RequestId = ANN, position: int = 0, *, passed: bool = True) -> object:
    return replies.collect(((request, position),), {request} if passed else set())[request]


def kept(replies: ReplyCache, request: RequestId = ANN, position: int = 0) -> StoredReply:
    found = one(replies, request, position)
    assert isinstance(found, StoredReply)
    return found


def test_an_answer_comes_with_its_value_and_the_whole_output(replies: ReplyCache, run: Callable[..., None]) -> None:
    run(value=42, head="early\n", tail="late\n")
    answer = kept(replies)
    tail = answer.reply().tail
    assert (tail.start, tail.chunks) == (0, (StreamText("stdout", "early\n"), StreamText("stdout", "late\n")))
    payload = answer.load()
    assert payload is not None
    assert unpack(payload) == 42


def test_output_that_is_known_already_does_not_come_again(replies: ReplyCache, run: Callable[..., None]) -> None:
    run(head="early\n", tail="late\n")
    tail = kept(replies, position=1).reply().tail
    assert (tail.start, tail.chunks) == (1, (StreamText("stdout", "late\n"),))


def test_of_a_request_that_runs_the_output_so_far_is_told(replies: ReplyCache, output: OutputRecorder) -> None:
    replies.current = ANN
    output.begin(ANN)
    output.show(StreamText("stdout", "half "))
    assert one(replies) == OutputBatch(ANN, 0, 0, (StreamText("stdout", "half "),))
    output.show(StreamText("stdout", "a line"))
    assert one(replies, position=1) == OutputBatch(ANN, 0, 1, (StreamText("stdout", "a line"),))


def test_a_request_that_has_not_come_is_ahead_of_a_busy_engine_and_absent_from_an_idle_one(
    replies: ReplyCache, run: Callable[..., None]
) -> None:
    later = RequestId("ann", 9)
    run()
    assert one(replies, later, passed=False) is Missing.ABSENT
    replies.current = RequestId("ben", 0)
    assert one(replies, later, passed=False) is Missing.AHEAD
    assert one(replies, RequestId("ann", 2)) is Missing.UNKNOWN


def test_a_middling_value_is_kept_as_it_was(replies: ReplyCache, store: Store) -> None:
    memory = bytearray(100_000)
    result = Payload(b"", (memoryview(memory),))
    sealed = seal(result)
    reply = Reply(ANN, 0, 0, Ok(), OutputBatch(ANN, 0, 0, ()), 1.0, 2.0)
    replies.store(reply, encode_reply(reply, sealed), result, sealed)
    memory[0] = 1
    stored = one(replies)
    assert isinstance(stored, Shelf)  # too large to go by way of the controller
    payload = unpack(stored.payload).load()
    assert bytes(payload.buffers[0]) == bytes(100_000)


@pytest.mark.parametrize("safe", [False, True])
def test_a_large_value_is_kept_only_for_a_client_that_may_go(
    replies: ReplyCache, store: Store, run: Callable[..., None], *, safe: bool
) -> None:
    if safe:
        replies.store_upto("ann", 3)
    puts = store.puts
    run(value=LARGE)
    assert store.puts == puts + safe
    assert isinstance(kept(replies).value, Shelf if safe else Missing)


def test_a_client_that_comes_back_takes_its_large_values_itself(
    replies: ReplyCache, store: Store, run: Callable[..., None]
) -> None:
    replies.note_presence("ann", connected=False)
    run(value=LARGE)
    replies.note_presence("ann", connected=True)
    run(RequestId("ann", 4), value=LARGE)
    assert store.puts == 1


def test_what_was_accepted_is_kept_even_if_its_client_comes_back(
    replies: ReplyCache, store: Store, run: Callable[..., None]
) -> None:
    replies.store_upto("ann", 3)
    replies.note_presence("ann", connected=False)
    replies.note_presence("ann", connected=True)
    puts = store.puts
    run(value=LARGE)
    run(RequestId("ann", 4), value=LARGE)
    assert store.puts == puts + 1


def test_a_repeated_request_gets_its_first_answer(replies: ReplyCache, run: Callable[..., None]) -> None:
    run(value=42, head="early\n", tail="late\n")
    again = replies.again(ANN)
    assert again is not None
    reply, payload = again
    assert payload is not None
    assert (unpack(payload), reply.tail.start, len(reply.tail.chunks)) == (42, 0, 2)
    assert replies.again(RequestId("ann", 4)) is None


def test_that_a_repetition_was_refused_is_not_kept_as_the_answer(replies: ReplyCache) -> None:
    reply = Reply(ANN, 0, 0, Refused(), OutputBatch(ANN, 0, 0, ()), 1.0, 2.0)
    replies.store(reply, encode_reply(reply, seal(None)), None, seal(None))
    assert one(replies) is Missing.UNKNOWN


def test_what_does_not_fit_into_one_message_comes_with_the_next(replies: ReplyCache, run: Callable[..., None]) -> None:
    requests = [RequestId("ann", seq) for seq in range(40)]
    for request in requests:
        run(request, value=b"x" * 50_000)
    first = replies.collect(tuple((request, 0) for request in requests), set(requests))
    assert len(first) < len(requests)
    rest = replies.collect(tuple((r, 0) for r in requests if r not in first), set(requests))
    assert first.keys() | rest.keys() == set(requests)
