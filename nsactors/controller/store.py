"""What a controller writes down, so that another process can go on from there.

What is to be survived is the death of the controller's *process*: with its machine the whole cluster ends. So SQLite
never waits for the disk (``synchronous=OFF``): what it has handed to the operating system outlives the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import sqlite3
import traceback
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol

from nsactors.core.cluster import EngineInfo, HistoryEntry
from nsactors.core.history import ENGINE_LOST, HISTORY_ENTRIES
from nsactors.core.membership import Member, Membership
from nsactors.core.messages import RequestId

__all__ = ["Nowhere", "SqliteStore", "Store", "Stored"]

TEXT_CHARS = 1_000  # of a label or a source; with the number of entries it bounds the file

_MEMBERS = """
CREATE TABLE IF NOT EXISTS members (engine_id INTEGER PRIMARY KEY, member BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS clients (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS cluster (one INTEGER PRIMARY KEY CHECK (one = 1), next_id INTEGER NOT NULL);
INSERT OR IGNORE INTO cluster VALUES (1, 0);
"""
_ENTRY = "engine_id, client, seq, label, source, started, completed, outcome"
_VALUES = "?, ?, ?, ?, ?, ?, ?, ?"
_HISTORY = f"""
CREATE TABLE IF NOT EXISTS finished (number INTEGER PRIMARY KEY AUTOINCREMENT, {_ENTRY});
CREATE TABLE IF NOT EXISTS running ({_ENTRY}, PRIMARY KEY (engine_id, client, seq));
CREATE TABLE IF NOT EXISTS completed (engine_id INTEGER PRIMARY KEY, requests INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was written down; engines without their addresses.

    Attributes:
        members: of the cluster, by id.
        next_id: of its next new engine.
        clients: that were attached.
        history: finished requests in order, then the running ones.
        completed: by engine, how many requests it has completed.
    """

    members: Mapping[int, Member] = field(default_factory=dict)
    next_id: int = 0
    clients: Sequence[str] = ()
    history: Sequence[HistoryEntry] = ()
    completed: Mapping[int, int] = field(default_factory=dict)


class Store(Protocol):
    """Keeps what a controller knows beyond its process."""

    def load(self) -> Stored:
        """What an earlier process wrote down."""
        ...

    def save(self, membership: Membership) -> None:
        """Write down what has changed of the members; when this returns it outlives the process."""
        ...

    def note_client(self, client: str, *, here: bool) -> None:
        """A client has attached or left; when this returns that outlives the process."""
        ...

    async def record(self, entries: Iterable[HistoryEntry]) -> None:
        """Write down requests that have begun or ended; when this returns they outlive the process."""
        ...

    def remove(self) -> None:
        """The cluster ends."""
        ...


class Nowhere:
    """The store of a controller that ends with its cluster."""

    def load(self) -> Stored:
        """Nothing."""
        return Stored()

    def save(self, membership: Membership) -> None:
        """Not needed."""

    def note_client(self, client: str, *, here: bool) -> None:
        """Not needed."""

    async def record(self, entries: Iterable[HistoryEntry]) -> None:
        """Not needed."""

    def remove(self) -> None:
        """There is nothing."""


class SqliteStore:
    """Two databases in a folder that only its owner can read.

    Members and clients are written by the caller, in less than 0.1 ms; the history by a thread, as much at a time as
    has come. Two files, for SQLite lets one writer at a time into each.

    Args:
        folder: where they are; it is made if need be.
        limit: how many finished requests are remembered.
    """

    def __init__(self, folder: str, *, limit: int = HISTORY_ENTRIES) -> None:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._limit = limit
        self._paths = [os.path.join(folder, name) for name in ("members.sqlite", "history.sqlite")]
        self._members, self._history = (
            _open(path, tables) for path, tables in zip(self._paths, (_MEMBERS, _HISTORY), strict=True)
        )
        self._written: dict[int, Member] = {}
        self._unwritten: deque[HistoryEntry] = deque()
        self._writer = ThreadPoolExecutor(1, "controller-history")

    def load(self) -> Stored:
        """See ``Store``."""
        rows = self._members.execute("SELECT engine_id, member FROM members ORDER BY engine_id")
        self._written = {engine_id: pickle.loads(member) for engine_id, member in rows}
        (next_id,) = self._members.execute("SELECT next_id FROM cluster").fetchone()
        clients = [name for (name,) in self._members.execute("SELECT name FROM clients")]
        history = [
            HistoryEntry(RequestId(client, seq), engine_id, *rest)
            for table, order in (("finished", "number"), ("running", "rowid"))
            for engine_id, client, seq, *rest in self._history.execute(f"SELECT {_ENTRY} FROM {table} ORDER BY {order}")
        ]
        completed = dict(self._history.execute("SELECT engine_id, requests FROM completed").fetchall())
        return Stored(dict(self._written), next_id, clients, history, completed)

    def save(self, membership: Membership) -> None:
        """See ``Store``. What cannot be written now is tried again with the next change."""
        members = membership.members
        changed = [(i, member) for i, member in members.items() if self._written.get(i) is not member]
        gone = [engine_id for engine_id in self._written if engine_id not in members]
        if not changed and not gone:
            return
        try:
            with self._members:
                self._members.execute("BEGIN")
                self._members.executemany(
                    "INSERT OR REPLACE INTO members VALUES (?, ?)",
                    [(engine_id, pickle.dumps(_without_addresses(member))) for engine_id, member in changed],
                )
                self._members.executemany("DELETE FROM members WHERE engine_id = ?", [(i,) for i in gone])
                self._members.execute("UPDATE cluster SET next_id = ?", (membership.next_id,))
        except sqlite3.Error:
            # A full disk must not stop the cluster: only a controller that dies meanwhile will miss it.
            traceback.print_exc()
        else:
            self._written = dict(members)

    def note_client(self, client: str, *, here: bool) -> None:
        """See ``Store``."""
        statement = "INSERT OR IGNORE INTO clients VALUES (?)" if here else "DELETE FROM clients WHERE name = ?"
        try:
            self._members.execute(statement, (client,))
        except sqlite3.Error:
            traceback.print_exc()  # as above

    async def record(self, entries: Iterable[HistoryEntry]) -> None:
        """See ``Store``."""
        self._unwritten.extend(entries)
        await asyncio.get_running_loop().run_in_executor(self._writer, self._write_history)

    def close(self) -> None:
        """Let go of the files; they stay."""
        self._writer.shutdown()
        self._members.close()
        self._history.close()

    def remove(self) -> None:
        """See ``Store``."""
        self.close()
        for path in self._paths:
            for part in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path + part)
        with contextlib.suppress(OSError):  # somebody else has put something there
            os.rmdir(os.path.dirname(self._paths[0]))

    def _write_history(self) -> None:
        entries = [self._unwritten.popleft() for _ in range(len(self._unwritten))]
        if not entries:
            return  # they were written with somebody else's
        ended = [entry for entry in entries if entry.completed is not None]
        try:
            with self._history:
                self._history.execute("BEGIN")
                self._history.executemany(f"INSERT OR REPLACE INTO running VALUES ({_VALUES})", map(_row, entries))
                self._history.executemany(f"INSERT INTO finished ({_ENTRY}) VALUES ({_VALUES})", map(_row, ended))
                self._history.executemany(
                    "DELETE FROM running WHERE engine_id = ? AND client = ? AND seq = ?",
                    [(entry.engine_id, *entry.request) for entry in ended],
                )
                self._history.executemany(
                    "INSERT INTO completed VALUES (?, 1) ON CONFLICT DO UPDATE SET requests = requests + 1",
                    [(entry.engine_id,) for entry in ended if entry.outcome != ENGINE_LOST],
                )
                self._history.execute(
                    "DELETE FROM finished WHERE number <= (SELECT max(number) FROM finished) - ?", (self._limit,)
                )
        except sqlite3.Error:
            traceback.print_exc()  # as for members; what is not written is forgotten with this process


def _open(path: str, tables: str) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    # Used by one thread at a time, but not by the one that opens it.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")
    connection.executescript(tables)
    return connection


def _row(entry: HistoryEntry) -> tuple[object, ...]:
    (client, seq), engine_id, label, source, *rest = entry
    return engine_id, client, seq, label[:TEXT_CHARS], source[:TEXT_CHARS], *rest


def _without_addresses(member: Member) -> Member:
    return replace(member, info=_without_address(member.info), former=_without_address(member.former))


def _without_address(engine: EngineInfo | None) -> EngineInfo | None:
    return None if engine is None else replace(engine, address=None)
