from __future__ import annotations

import asyncio
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsactors.membership.history import ENGINE_LOST, History
from nsactors.membership.members import (
    EngineDied,
    EngineRegistered,
    EnginesDismissed,
    EnginesRestarted,
    EnginesWanted,
    Membership,
)
from nsactors.membership.store import NoStore, SqliteStore, StoredCluster
from nsactors.protocol.control import HistoryEntry, Program
from nsactors.protocol.engine_info import EngineInfo, EngineOptions, Recovery
from nsactors.protocol.messages import RequestId


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "controller")


@pytest.fixture
def store(folder: str) -> Iterator[SqliteStore]:
    with closing(SqliteStore(folder)) as store:
        yield store


def stored_in(folder: str) -> StoredCluster:
    """Return the state that another process finds in the store."""
    with closing(SqliteStore(folder)) as store:
        return store.load()


def restored(folder: str) -> Membership:
    stored = stored_in(folder)
    return Membership(dict(stored.members), stored.next_id)


def remembered(folder: str) -> History:
    stored = stored_in(folder)
    return History(stored.history, stored.completed)


def entry(seq: int, *, engine_id: int = 0, completed: float | None = None, outcome: str = "ok") -> HistoryEntry:
    outcome = outcome if completed is not None else "running"
    return HistoryEntry(RequestId("ann", seq), engine_id, "execute", "x = 1", float(seq), completed, outcome)


def members(count: int = 2) -> Membership:
    membership = Membership()
    membership.handle(EnginesWanted(count, EngineOptions(Recovery.REPLAY, environment={"A": "1"}), "an order"))
    for engine_id in range(count):
        membership.handle(EngineRegistered(EngineInfo(engine_id, 0, pid=1, host="here", address=None)))
    return membership


def test_a_new_folder_holds_nothing(folder: str) -> None:
    stored = stored_in(folder)
    assert stored == StoredCluster({}, 0, [], [], {})


def test_clients_that_are_attached_are_known(folder: str, store: SqliteStore) -> None:
    for client, here in (("ann", True), ("ben", True), ("ann", True), ("ben", False)):
        store.note_client(client, connected=here)
    assert stored_in(folder).clients == ["ann"]


def test_addresses_are_left_out(folder: str, store: SqliteStore) -> None:
    membership = Membership()
    membership.handle(EnginesWanted(1, EngineOptions()))
    membership.handle(EngineRegistered(EngineInfo(0, 0, pid=1, host="here", address=open)))
    store.save(membership)
    (engine,) = restored(folder).engines
    assert (engine.pid, engine.address) == (1, None)


def test_an_engine_that_is_gone_is_gone_from_the_file(folder: str, store: SqliteStore) -> None:
    membership = members()
    store.save(membership)
    membership.handle(EnginesDismissed((0,)))
    membership.handle(EngineDied(0, 0, "killed"))
    store.save(membership)
    assert [e.engine_id for e in restored(folder).engines] == [1]


def test_what_could_not_be_written_is_written_with_the_next_change(
    folder: str, store: SqliteStore, capfd: pytest.CaptureFixture[str]
) -> None:
    membership = members(1)
    store._members.execute("PRAGMA query_only = ON")  # as if the disk were full
    store.save(membership)
    assert "sqlite3.OperationalError" in capfd.readouterr().err
    store._members.execute("PRAGMA query_only = OFF")
    membership.handle(EnginesWanted(1, EngineOptions()))
    store.save(membership)
    assert restored(folder) == membership


def test_a_full_disk_that_holds_stderr_too_fails_nothing(
    folder: str, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    membership = members(1)
    store._members.execute("PRAGMA query_only = ON")
    store._history.execute("PRAGMA query_only = ON")
    with open("/dev/full", "wb", buffering=0) as disk:
        full = io.TextIOWrapper(disk, write_through=True)
        monkeypatch.setattr("sys.stderr", full)
        store.save(membership)
        asyncio.run(store.record([entry(0)]))
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space"):
            print("a line", file=full)


def test_history_that_could_not_be_written_is_written_with_the_next(
    folder: str, store: SqliteStore, capfd: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(store.record([entry(0), entry(1)]))
    store._history.execute("PRAGMA query_only = ON")  # as if the disk were full
    asyncio.run(store.record([entry(0, completed=2.0)]))
    assert "sqlite3.OperationalError" in capfd.readouterr().err
    store._history.execute("PRAGMA query_only = OFF")
    asyncio.run(store.record([entry(1, completed=3.0)]))
    assert [e.completed for e in stored_in(folder).history] == [2.0, 3.0]


EVENTS = st.lists(st.tuples(st.sampled_from(["want", "register", "die", "dismiss", "restart"]), st.integers(0, 3)))


@settings(max_examples=30)
@given(st.sampled_from(Recovery), EVENTS)
def test_what_is_read_is_what_was_written(recovery: Recovery, events: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store, membership = stack.enter_context(closing(SqliteStore(folder))), Membership()
        for what, number in events:
            incarnation = membership.members[number].incarnation if number in membership.members else 0
            match what:
                case "want":
                    membership.handle(EnginesWanted(number, EngineOptions(recovery), f"order {number}"))
                case "register":
                    engine = EngineInfo(number, incarnation, pid=1, host="here", address=None, recovery=recovery)
                    membership.handle(EngineRegistered(engine))
                case "die":
                    membership.handle(EngineDied(number, incarnation, "it happens"))
                case "dismiss":
                    membership.handle(EnginesDismissed((number,)))
                case "restart":
                    membership.handle(EnginesRestarted((number,), order=f"restart {number}"))
            store.save(membership)
        assert restored(folder) == membership


def test_history_goes_on_where_it_was(folder: str, store: SqliteStore) -> None:
    history = [entry(0), entry(0, completed=1.0), entry(1, completed=2.0), entry(2), entry(0, engine_id=1)]
    asyncio.run(store.record(history))
    again = remembered(folder)
    assert [(e.request.seq, e.outcome) for e in again.entries(engine_id=0)] == [(0, "ok"), (1, "ok"), (2, "running")]
    assert (again.completed(0), again.completed(1), len(again.running(1))) == (2, 0, 1)


def test_what_is_reported_again_after_a_restart_is_no_news(folder: str, store: SqliteStore) -> None:
    asyncio.run(store.record([entry(0, completed=1.0)]))
    assert not remembered(folder).record(entry(0, completed=1.0))


def test_a_request_that_was_lost_with_its_engine_may_be_completed_by_the_next_one(
    folder: str, store: SqliteStore
) -> None:
    asyncio.run(store.record([entry(0), entry(0, completed=1.0, outcome=ENGINE_LOST)]))
    again = remembered(folder)
    assert (again.running(0), again.completed(0)) == ([], 0)
    assert again.record(entry(0, completed=2.0))


def test_only_the_last_requests_are_kept(folder: str) -> None:
    with closing(SqliteStore(folder, limit=3)) as store:
        for seq in range(10):
            asyncio.run(store.record([entry(seq, completed=float(seq))]))
    again = remembered(folder)
    assert ([e.request.seq for e in again.entries()], again.completed(0)) == ([7, 8, 9], 10)


def test_requests_that_many_record_at_once_are_all_there(folder: str, store: SqliteStore) -> None:
    async def record() -> None:
        await asyncio.gather(*(store.record([entry(seq, completed=1.0)]) for seq in range(50)))

    asyncio.run(record())
    assert remembered(folder).completed(0) == 50


def test_nobody_else_can_read_it_and_nothing_of_it_stays(folder: str, store: SqliteStore) -> None:
    store.save(members())
    asyncio.run(store.record([entry(0, completed=1.0)]))
    modes = {stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode) for name in os.listdir(folder)}
    assert (stat.S_IMODE(os.stat(folder).st_mode), modes) == (0o700, {0o600})
    store.remove()
    assert not os.path.exists(folder)


@pytest.mark.parametrize("kept", ["in a file", "nowhere"])
def test_programs_of_an_engine_are_kept_in_order_up_to_a_limit(folder: str, kept: str) -> None:
    store = SqliteStore(folder, program_chars=12) if kept == "in a file" else NoStore(limit=12)

    async def record() -> dict[int, list[Program]]:
        for seq, (engine_id, text) in enumerate([(0, "old = 1"), (0, "a = 1"), (1, "b"), (0, "1 / 0")]):
            ended = entry(seq, completed=1.0, outcome="ok" if text != "1 / 0" else "ZeroDivisionError")
            await store.record([ended._replace(engine_id=engine_id, program=text)])
        await store.record([entry(9), entry(10, completed=1.0)])
        return {engine_id: await store.programs(engine_id) for engine_id in (0, 1)}

    expected = {0: [Program("a = 1"), Program("1 / 0", "ZeroDivisionError")], 1: [Program("b")]}
    assert asyncio.run(record()) == expected
    if isinstance(store, SqliteStore):
        store.close()
        again = SqliteStore(folder)
        assert asyncio.run(again.programs(0)) == expected[0]
        assert all(not past.program for past in again.load().history)
        again.close()
