from __future__ import annotations

from bdb import BdbQuit

import pytest

from nsactors.errors import Failure
from nsactors.protocol.messages import (
    Aborted,
    Apply,
    EngineRequest,
    Execute,
    Expired,
    Failed,
    Ok,
    Operation,
    Outcome,
    Pull,
    Push,
    RequestId,
    Reset,
)
from nsactors.protocol.serialize import Payload
from nsactors.recovery.journal import (
    Journal,
    JournalEntry,
    RequestFinished,
    RequestStarted,
    SegmentHeader,
    Snapshot,
    SnapshotPolicy,
    State,
    begin,
    changes_state,
    end,
)


def begun(seq: int, code: str = "pass", state: State = State.BEGUN) -> RequestStarted:
    return RequestStarted(RequestId("ann", seq), Execute(code), None, state)


def failed(error: BaseException) -> Failed:
    return Failed(Failure.capture(error, engine_id=0, call="execute"))


def journal_of(*records: SegmentHeader | RequestStarted | RequestFinished | JournalEntry) -> Journal:
    journal = Journal.of([SegmentHeader(), *records])
    assert journal is not None
    return journal


@pytest.mark.parametrize(
    ("operation", "changes"),
    [(Execute("x"), True), (Apply("f"), True), (Push(), True), (Reset(), True), (Pull(("x",), True), False)],
)
def test_all_but_reading_may_change_a_namespace(operation: Operation, changes: bool) -> None:
    assert changes_state(operation) is changes


@pytest.mark.parametrize(
    ("outcome", "state", "error"),
    [
        (Ok(), State.COMPLETED, ""),
        (failed(ValueError("no")), State.FAILED, "ValueError"),
        (failed(KeyboardInterrupt()), State.INTERRUPTED, "KeyboardInterrupt"),
        (failed(BdbQuit()), State.INTERRUPTED, "BdbQuit"),
        (Expired(1.0), State.EXPIRED, ""),
    ],
)
def test_an_end_says_what_the_answer_says(outcome: Outcome, state: State, error: str) -> None:
    assert end(outcome)[:2] == (state, error)


def test_a_request_that_was_changed_in_the_debugger_is_replayed_unless_it_was_interrupted() -> None:
    assert end(Ok(), edited=True).state is end(failed(ValueError("no")), edited=True).state is State.EDITED
    assert State.EDITED.is_replayed
    assert end(failed(BdbQuit()), edited=True).state is State.INTERRUPTED


def test_what_never_ran_has_no_end() -> None:
    with pytest.raises(ValueError, match="never ran"):
        end(Aborted())


def test_use_of_mpi_outweighs_the_outcome() -> None:
    assert end(Ok(), used_mpi=True).state is State.USED_MPI


def test_what_spoke_to_others_is_told_apart_and_not_run_again() -> None:
    state = end(Ok(), used_service=True).state
    assert not state.is_replayed
    assert "would do so twice" in state.reason


@pytest.mark.parametrize("state", State)
def test_an_entry_is_replayed_or_there_is_a_reason(state: State) -> None:
    assert state.is_replayed == (state.reason == "")


def test_a_request_that_is_not_to_be_repeated_leaves_no_content() -> None:
    request = EngineRequest(RequestId("ann", 1), Push())
    assert begin(request, Payload(b"secret"), journalled=False) == RequestStarted(
        request.id, request.operation, None, State.NOT_JOURNALLED
    )


def test_references_to_an_object_store_are_not_written_down() -> None:
    request = EngineRequest(RequestId("ann", 1), Apply("f"))
    assert begin(request, Payload(b"", (), (object(),)), journalled=True)[2:4] == (None, State.HELD_REFERENCES)


def test_a_request_without_end_was_running() -> None:
    journal = journal_of(begun(1), RequestFinished(State.COMPLETED), begun(2, state=State.NOT_JOURNALLED))
    assert [entry.state for entry in journal.entries] == [State.COMPLETED, State.BEGUN]


def test_what_was_not_to_be_journalled_stays_so_when_it_has_ended() -> None:
    journal = journal_of(begun(1, state=State.NOT_JOURNALLED), RequestFinished(State.COMPLETED))
    assert journal.entries[0].state is State.NOT_JOURNALLED


def test_the_last_request_of_each_client_that_was_begun_is_known() -> None:
    base = SegmentHeader(Snapshot(taken={"ann": 3, "bob": 7}), 0)
    journal = Journal.of([base, begun(4), RequestFinished(State.FAILED), begun(5)])
    assert journal is not None
    assert journal.taken == {"ann": 5, "bob": 7}


def test_once_recovered_a_journal_holds_what_was_replayed_and_still_knows_what_was_begun() -> None:
    journal = journal_of(
        begun(4), RequestFinished(State.COMPLETED), begun(5), RequestFinished(State.INTERRUPTED), begun(6)
    ).recovered()
    assert [entry.request.seq for entry in journal.entries] == [4]
    assert journal.taken == {"ann": 6}


def test_a_journal_without_all_that_it_begins_with_is_none() -> None:
    kept = JournalEntry(RequestId("ann", 1), Execute("f"), None, State.COMPLETED)
    assert Journal.of([]) is None
    assert Journal.of([SegmentHeader(Snapshot(), 2), kept]) is None
    assert Journal.of([SegmentHeader(Snapshot(), 1), kept]) == Journal(Snapshot(), (kept,))


@pytest.mark.parametrize(
    ("operation", "label"),
    [
        (Execute("\nx = 1\ny = 2"), "execute: x = 1 ..."),
        (Execute(""), "execute: "),
        (Apply("apply(f)"), "apply(f)"),
        (Push(), "push"),
    ],
)
def test_an_entry_is_called_what_people_call_it(operation: Operation, label: str) -> None:
    assert JournalEntry(RequestId("ann", 1), operation, None, State.COMPLETED).label == label


def test_a_snapshot_is_due_when_the_journal_is_large_or_long() -> None:
    policy = SnapshotPolicy(journal_bytes=100, replay_s=10.0, share=0.1)
    assert not policy.is_due(99, 9.9)
    assert policy.is_due(100, 0.0)
    assert policy.is_due(0, 10.0)


def test_snapshots_that_take_long_are_taken_less_often() -> None:
    policy = SnapshotPolicy(replay_s=10.0, share=0.1)
    assert not policy.is_due(0, 19.0, last_took_s=2.0)
    assert policy.is_due(0, 20.0, last_took_s=2.0)
