from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.protocol.messages import Display, OutputBatch, OutputChunk, RequestId, StreamText
from nsactors.protocol.output import OutputAssembler, OutputLog

REQUEST = RequestId("ann", 1)


def out(text: str) -> StreamText:
    return StreamText("stdout", text)


def err(text: str) -> StreamText:
    return StreamText("stderr", text)


def whole(chunks: list[OutputChunk]) -> list[OutputChunk]:
    """Chunks with neighbouring text of one stream joined, as it was cut differently on its way."""
    joined: list[OutputChunk] = []
    for chunk in chunks:
        if (
            isinstance(chunk, StreamText)
            and joined
            and isinstance(last := joined[-1], StreamText)
            and last.name == chunk.name
        ):
            joined[-1] = StreamText(chunk.name, last.text + chunk.text)
        else:
            joined.append(chunk)
    return joined


@pytest.fixture
def log() -> OutputLog:
    return OutputLog(REQUEST, engine_id=3)


def test_text_of_one_stream_is_joined_until_it_is_taken(log: OutputLog) -> None:
    for chunk in (out("a"), out("b"), err("c"), out("d")):
        log.append(chunk)
    assert log.take().chunks == (out("ab"), err("c"), out("d"))


def test_text_that_was_taken_is_not_added_to(log: OutputLog) -> None:
    log.append(out("a"))
    batch = log.take()
    log.append(out("b"))
    assert (batch.chunks, log.take()) == ((out("a"),), OutputBatch(REQUEST, 3, 1, (out("b"),)))


def test_empty_text_is_nothing(log: OutputLog) -> None:
    log.append(out(""))
    assert not log.has_untaken


def test_what_was_taken_is_not_taken_again(log: OutputLog) -> None:
    log.append(out("a"))
    log.take()
    assert (log.has_untaken, log.take().chunks) == (False, ())


def test_the_tail_holds_what_was_not_acknowledged(log: OutputLog) -> None:
    log.append(out("a"))
    log.acknowledge(log.take())
    log.append(err("b"))
    log.take()
    log.append(out("c"))
    assert log.tail() == OutputBatch(REQUEST, 3, 1, (err("b"), out("c")))


def test_an_acknowledgement_that_comes_twice_counts_once(log: OutputLog) -> None:
    log.append(out("a"))
    batch = log.take()
    log.append(err("b"))
    log.acknowledge(batch)
    log.acknowledge(batch)
    assert log.tail().chunks == (err("b"),)


def test_what_is_taken_again_is_what_it_was_and_what_came_since(log: OutputLog) -> None:
    log.append(out("a"))
    log.take()
    log.take_again()
    log.append(out("b"))
    assert log.take() == OutputBatch(REQUEST, 3, 0, (out("a"), out("b")))


def test_what_comes_after_the_tail_is_shipped_behind_it(log: OutputLog) -> None:
    log.append(out("a"))
    tail = log.tail()
    log.append(out("late"))
    assert (tail.chunks, log.take()) == ((out("a"),), OutputBatch(REQUEST, 3, 1, (out("late"),)))


def test_an_assembler_is_complete_only_with_its_tail() -> None:
    assembler = OutputAssembler()
    assembler.add(OutputBatch(REQUEST, 3, 0, (out("a"),)))
    assert not assembler.complete
    assembler.finish(OutputBatch(REQUEST, 3, 1, ()))
    assert assembler.complete


def test_an_assembler_waits_for_a_batch_that_the_tail_has_overtaken() -> None:
    assembler = OutputAssembler()
    assert (assembler.finish(OutputBatch(REQUEST, 3, 1, (out("b"),))), assembler.complete) == ([], False)
    assert assembler.add(OutputBatch(REQUEST, 3, 0, (out("a"),))) == [out("a"), out("b")]
    assert assembler.complete


actions = st.lists(
    st.one_of(
        st.builds(StreamText, st.sampled_from(["stdout", "stderr"]), st.text("ab", max_size=3)),
        st.text("xy", max_size=2).map(lambda text: Display({"text/plain": text}, {})),
        st.sampled_from(["take", "acknowledge", "take again"]),
    ),
    max_size=30,
)


@given(actions, st.data())
def test_any_interleaving_of_batches_and_tail_gives_the_output_exactly(
    actions: list[OutputChunk | str], data: st.DataObject
) -> None:
    log = OutputLog(REQUEST, engine_id=3)
    written: list[OutputChunk] = []
    shipped: list[OutputBatch] = []
    lost: list[OutputBatch] = []
    acknowledged = 0
    for action in actions:
        if action == "take":
            shipped.append(log.take())
        elif action == "acknowledge":
            if acknowledged < len(shipped):
                log.acknowledge(shipped[acknowledged])
                acknowledged += 1
        elif action == "take again":
            lost += shipped[acknowledged:]
            del shipped[acknowledged:]
            log.take_again()
        else:
            log.append(action)
            written.append(action)
    tail = log.tail()

    # What was acknowledged has come; what was not may be lost, may come, and may come twice.
    arriving = [
        *shipped[:acknowledged],
        *data.draw(st.lists(st.sampled_from(shipped + lost), max_size=5) if shipped + lost else st.just([])),
    ]
    arriving = data.draw(st.permutations([*arriving, tail]))
    assembler = OutputAssembler()
    fresh: list[OutputChunk] = []
    for batch in arriving:
        fresh += assembler.finish(batch) if batch is tail else assembler.add(batch)
    assert assembler.complete
    assert assembler.chunks == fresh
    assert whole(assembler.chunks) == whole([c for c in written if not (isinstance(c, StreamText) and not c.text)])


def test_text_that_somebody_has_been_shown_is_not_added_to() -> None:
    log = OutputLog(REQUEST, 0)
    log.append(out("a"))
    assert log.since(0).chunks == (out("a"),)
    log.append(out("b"))
    assert log.since(1).chunks == (out("b"),)
    assert log.take().chunks == (out("a"), out("b"))


def test_what_was_delivered_before_the_reply_and_its_tail_are_the_whole_output() -> None:
    log = OutputLog(REQUEST, 0)
    log.append(out("early"))
    log.acknowledge(log.take())
    log.append(out("late"))
    tail = log.tail()
    log.append(out("too late"))
    log.acknowledge(log.take())
    assert (*log.delivered, *tail.chunks) == (out("early"), out("late"))
    assert log.since(0).chunks == (out("early"),)


def test_a_flood_is_cut_between_lines() -> None:
    log = OutputLog(REQUEST, 0, "a file", limit_bytes=1_000)
    for number in range(100_000):
        log.append(StreamText("stdout", f"line {number}\n"))
    lines = "".join(c.text for c in log.tail().chunks if isinstance(c, StreamText) and c.name == "stdout").splitlines()
    first = next(i for i, line in enumerate(lines) if line != f"line {i}")
    assert lines[first:] == [f"line {n}" for n in range(100_000 - len(lines) + first, 100_000)]


def test_a_line_end_written_by_itself_leaves_the_end_of_a_flood() -> None:
    log = OutputLog(REQUEST, 0, "a file", limit_bytes=1_000)
    log.append(StreamText("stdout", "\n".join(f"line {number}" for number in range(100_000))))
    log.append(StreamText("stdout", "\n"))
    shown = "".join(
        chunk.text for chunk in log.tail().chunks if isinstance(chunk, StreamText) and chunk.name == "stdout"
    )
    assert shown.endswith("line 99998\nline 99999\n")
    assert len(shown) > 50_000
