"""What an engine tells of the requests that it has answered, runs, and has not begun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from nsactors.core.answers import LARGE_BYTES, KeptAnswer, Missing
from nsactors.core.messages import Ok, OutputBatch, Refused, Reply, RequestId, StreamText
from nsactors.core.payload import Payload, pack, unpack
from nsactors.core.wire import encode, seal
from nsactors.namespace.answering import Answers
from nsactors.namespace.output import Output

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

    def begin(self) -> list[StreamText]:
        return []

    def read(self) -> list[StreamText]:
        return []

    def close(self) -> None:
        pass


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def output() -> Output:
    return Output(0, Silence())


@pytest.fixture
def answers(store: Store, output: Output) -> Answers:
    return Answers(store, output)


@pytest.fixture
def run(answers: Answers, output: Output) -> Callable[..., None]:
    """Runs a request that prints ``head``, which is delivered, and ``tail``, and gives ``value``."""

    def run(request: RequestId = ANN, value: object = None, head: str = "", tail: str = "") -> None:
        answers.begin(request)
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
        answers.keep(reply, encode(reply, sealed), result, sealed)

    return run


def one(answers: Answers, request: RequestId = ANN, position: int = 0, *, passed: bool = True) -> object:
    return answers.collect(((request, position),), {request} if passed else set())[request]


def kept(answers: Answers, request: RequestId = ANN, position: int = 0) -> KeptAnswer:
    found = one(answers, request, position)
    assert isinstance(found, KeptAnswer)
    return found


def test_an_answer_comes_with_its_value_and_the_whole_output(answers: Answers, run: Callable[..., None]) -> None:
    run(value=42, head="early\n", tail="late\n")
    answer = kept(answers)
    tail = answer.reply().tail
    assert (tail.start, tail.chunks) == (0, (StreamText("stdout", "early\n"), StreamText("stdout", "late\n")))
    payload = answer.load()
    assert payload is not None
    assert unpack(payload) == 42


def test_output_that_is_known_already_does_not_come_again(answers: Answers, run: Callable[..., None]) -> None:
    run(head="early\n", tail="late\n")
    tail = kept(answers, position=1).reply().tail
    assert (tail.start, tail.chunks) == (1, (StreamText("stdout", "late\n"),))


def test_of_a_request_that_runs_the_output_so_far_is_told(answers: Answers, output: Output) -> None:
    answers.begin(ANN)
    output.begin(ANN)
    output.show(StreamText("stdout", "half "))
    assert one(answers) == OutputBatch(ANN, 0, 0, (StreamText("stdout", "half "),))
    output.show(StreamText("stdout", "a line"))
    assert one(answers, position=1) == OutputBatch(ANN, 0, 1, (StreamText("stdout", "a line"),))


def test_a_request_that_has_not_come_is_ahead_of_a_busy_engine_and_absent_from_an_idle_one(
    answers: Answers, run: Callable[..., None]
) -> None:
    later = RequestId("ann", 9)
    run()
    assert one(answers, later, passed=False) is Missing.ABSENT
    answers.begin(RequestId("ben", 0))
    assert one(answers, later, passed=False) is Missing.AHEAD
    assert one(answers, RequestId("ann", 2)) is Missing.UNKNOWN


def test_a_middling_value_is_kept_as_it_was(answers: Answers, store: Store) -> None:
    memory = bytearray(100_000)
    result = Payload(b"", (memoryview(memory),))
    sealed = seal(result)
    reply = Reply(ANN, 0, 0, Ok(), OutputBatch(ANN, 0, 0, ()), 1.0, 2.0)
    answers.keep(reply, encode(reply, sealed), result, sealed)
    memory[0] = 1
    stored = one(answers)
    assert isinstance(stored, Shelf)  # too large to go by way of the controller
    payload = unpack(stored.payload).load()
    assert bytes(payload.buffers[0]) == bytes(100_000)


@pytest.mark.parametrize("safe", [False, True])
def test_a_large_value_is_kept_only_for_a_client_that_may_go(
    answers: Answers, store: Store, run: Callable[..., None], *, safe: bool
) -> None:
    if safe:
        answers.accept("ann", 3)
    puts = store.puts
    run(value=LARGE)
    assert store.puts == puts + safe
    assert isinstance(kept(answers).value, Shelf if safe else Missing)


def test_a_client_that_comes_back_takes_its_large_values_itself(
    answers: Answers, store: Store, run: Callable[..., None]
) -> None:
    answers.note_presence("ann", here=False)
    run(value=LARGE)
    answers.note_presence("ann", here=True)
    run(RequestId("ann", 4), value=LARGE)
    assert store.puts == 1


def test_what_was_accepted_is_kept_even_if_its_client_comes_back(
    answers: Answers, store: Store, run: Callable[..., None]
) -> None:
    answers.accept("ann", 3)
    answers.note_presence("ann", here=False)
    answers.note_presence("ann", here=True)
    puts = store.puts
    run(value=LARGE)
    run(RequestId("ann", 4), value=LARGE)
    assert store.puts == puts + 1


def test_a_repeated_request_gets_its_first_answer(answers: Answers, run: Callable[..., None]) -> None:
    run(value=42, head="early\n", tail="late\n")
    again = answers.again(ANN)
    assert again is not None
    reply, payload = again
    assert payload is not None
    assert (unpack(payload), reply.tail.start, len(reply.tail.chunks)) == (42, 0, 2)
    assert answers.again(RequestId("ann", 4)) is None


def test_that_a_repetition_was_refused_is_not_kept_as_the_answer(answers: Answers) -> None:
    reply = Reply(ANN, 0, 0, Refused(), OutputBatch(ANN, 0, 0, ()), 1.0, 2.0)
    answers.keep(reply, encode(reply, seal(None)), None, seal(None))
    assert one(answers) is Missing.UNKNOWN


def test_what_does_not_fit_into_one_message_comes_with_the_next(answers: Answers, run: Callable[..., None]) -> None:
    requests = [RequestId("ann", seq) for seq in range(40)]
    for request in requests:
        run(request, value=b"x" * 50_000)
    first = answers.collect(tuple((request, 0) for request in requests), set(requests))
    assert len(first) < len(requests)
    rest = answers.collect(tuple((r, 0) for r in requests if r not in first), set(requests))
    assert first.keys() | rest.keys() == set(requests)
