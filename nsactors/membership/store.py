"""The state of a controller on disk, from which another process can continue.

The store must survive the death of the controller's *process*; if its machine is lost, the whole cluster is lost. So
SQLite never waits for the disk (``synchronous=OFF``), as data handed to the operating system outlives the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import sqlite3
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field, replace
from typing import Protocol

from nsactors._frozen import frozen
from nsactors.errors.reporting import print_traceback
from nsactors.membership.history import ENGINE_LOST, HISTORY_ENTRIES
from nsactors.membership.members import Member, Membership
from nsactors.protocol.control import HistoryEntry, Program
from nsactors.protocol.engine_info import EngineInfo
from nsactors.protocol.messages import RequestId

PROGRAM_CHARS = 50_000_000  # the limit for all programs together; the oldest are dropped
TEXT_CHARS = 1_000  # the limit for a label or a source; with the number of entries, this bounds the file

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
CREATE TABLE IF NOT EXISTS programs
    (number INTEGER PRIMARY KEY AUTOINCREMENT, engine_id, text, outcome, earlier INTEGER);
CREATE INDEX IF NOT EXISTS programs_earlier ON programs (earlier);
"""
_ALL_CHARS = "(SELECT earlier + length(text) FROM programs ORDER BY number DESC LIMIT 1)"
# ``earlier`` is the number of characters before a program, so that the last N characters are found without summing up.
_PROGRAM = f"INSERT INTO programs (engine_id, text, outcome, earlier) VALUES (?, ?, ?, coalesce({_ALL_CHARS}, 0))"
_FORGET_PROGRAMS = f"DELETE FROM programs WHERE earlier < {_ALL_CHARS} - ?"


@frozen
class StoredCluster:
    """The stored state of a cluster; engines have no addresses.

    Attributes:
        members: the engines by id.
        next_id: the id of the next new engine.
        clients: the clients that were attached.
        history: the finished requests in order, then the running ones.
        completed: the number of requests that each engine has completed.
    """

    members: Mapping[int, Member] = field(default_factory=dict)
    next_id: int = 0
    clients: Sequence[str] = ()
    history: Sequence[HistoryEntry] = ()
    completed: Mapping[int, int] = field(default_factory=dict)


class Store(Protocol):
    """Stores the state of a controller beyond the life of its process."""

    def load(self) -> StoredCluster:
        """Return the state that an earlier process stored."""
        ...

    def save(self, membership: Membership) -> None:
        """Save the members in ``unsaved``, and empty that set; on return the changes outlive the process."""
        ...

    def note_client(self, client: str, *, connected: bool) -> None:
        """Save that a client has attached or left; on return the change outlives the process."""
        ...

    async def record(self, entries: Iterable[HistoryEntry]) -> None:
        """Save requests that have begun or finished; on return they outlive the process."""
        ...

    async def programs(self, engine_id: int) -> list[Program]:
        """Return the programs that an engine has run, in order, as far as they are stored."""
        ...

    def remove(self) -> None:
        """Delete the stored state, when the cluster ends."""
        ...


class NoStore:
    """The store of a controller that ends with its cluster; it holds only programs, in memory.

    Args:
        limit: the number of characters of programs to hold.
    """

    def __init__(self, *, limit: int = PROGRAM_CHARS) -> None:
        self._limit = limit
        self._chars = 0
        self._programs: deque[tuple[int, Program]] = deque()

    def load(self) -> StoredCluster:
        """Return an empty state."""
        return StoredCluster()

    def save(self, membership: Membership) -> None:
        """Forget which members have changed."""
        membership.unsaved.clear()

    def note_client(self, client: str, *, connected: bool) -> None:
        """Do nothing."""

    async def record(self, entries: Iterable[HistoryEntry]) -> None:
        """Hold the programs of requests; see ``Store``."""
        for entry in entries:
            if entry.program:
                self._programs.append((entry.engine_id, Program(entry.program, entry.outcome)))
                self._chars += len(entry.program)
        while self._chars > self._limit:
            self._chars -= len(self._programs.popleft()[1].text)

    async def programs(self, engine_id: int) -> list[Program]:
        """See ``Store``."""
        return [program for owner, program in self._programs if owner == engine_id]

    def remove(self) -> None:
        """Do nothing."""


class SqliteStore:
    """Two databases in a folder that only its owner can read.

    Members and clients are written by the caller, in less than 0.1 ms; the history is written by a thread, in batches.
    There are two files, because SQLite allows one writer at a time per file.

    Args:
        folder: the folder, made if it is missing.
        limit: the number of finished requests to store.
        program_chars: the number of characters of programs to store.
    """

    def __init__(self, folder: str, *, limit: int = HISTORY_ENTRIES, program_chars: int = PROGRAM_CHARS) -> None:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._limit = limit
        self._program_chars = program_chars
        self._paths = [os.path.join(folder, name) for name in ("members.sqlite", "history.sqlite")]
        self._members, self._history = (
            _open(path, tables) for path, tables in zip(self._paths, (_MEMBERS, _HISTORY), strict=True)
        )
        self._unwritten: deque[HistoryEntry] = deque()
        # One thread writes, so that calls are written in order, and calls that arrive during a write go together.
        self._writer = ThreadPoolExecutor(1, "controller-history")

    def load(self) -> StoredCluster:
        """See ``Store``."""
        rows = self._members.execute("SELECT engine_id, member FROM members ORDER BY engine_id")
        members = {engine_id: pickle.loads(member) for engine_id, member in rows}
        (next_id,) = self._members.execute("SELECT next_id FROM cluster").fetchone()
        clients = [name for (name,) in self._members.execute("SELECT name FROM clients")]
        history = [
            HistoryEntry(RequestId(client, seq), engine_id, *rest)
            for table, order in (("finished", "number"), ("running", "rowid"))
            for engine_id, client, seq, *rest in self._history.execute(f"SELECT {_ENTRY} FROM {table} ORDER BY {order}")
        ]
        completed = dict(self._history.execute("SELECT engine_id, requests FROM completed").fetchall())
        return StoredCluster(members, next_id, clients, history, completed)

    def save(self, membership: Membership) -> None:
        """See ``Store``. After a failure, the next change is saved together with this one."""
        members, unsaved = membership.members, membership.unsaved
        if not unsaved:
            return
        changed = [(engine_id, members[engine_id]) for engine_id in unsaved if engine_id in members]
        gone = [engine_id for engine_id in unsaved if engine_id not in members]
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
            # A full disk must not stop the cluster. The change is lost only if the controller dies before the next.
            print_traceback()
        else:
            unsaved.clear()

    def note_client(self, client: str, *, connected: bool) -> None:
        """See ``Store``."""
        statement = "INSERT OR IGNORE INTO clients VALUES (?)" if connected else "DELETE FROM clients WHERE name = ?"
        try:
            self._members.execute(statement, (client,))
        except sqlite3.Error:
            print_traceback()  # goes on, as save() does

    async def record(self, entries: Iterable[HistoryEntry]) -> None:
        """See ``Store``."""
        self._unwritten.extend(entries)
        await asyncio.get_running_loop().run_in_executor(self._writer, self._write_history)

    async def programs(self, engine_id: int) -> list[Program]:
        """See ``Store``."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._read_programs, engine_id)

    def close(self) -> None:
        """Close the files without removing them."""
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
        with contextlib.suppress(OSError):  # the folder contains a file of another program
            os.rmdir(os.path.dirname(self._paths[0]))

    def _write_history(self) -> None:
        entries = [self._unwritten.popleft() for _ in range(len(self._unwritten))]
        if not entries:
            return  # another call has written them
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
                self._history.executemany(_PROGRAM, [(e.engine_id, e.program, e.outcome) for e in ended if e.program])
                self._history.execute(_FORGET_PROGRAMS, (self._program_chars,))
                self._history.execute(
                    "DELETE FROM finished WHERE number <= (SELECT max(number) FROM finished) - ?", (self._limit,)
                )
        except sqlite3.Error:
            print_traceback()
            # Write these with the next entries, when there is room again. Otherwise, after this controller has died,
            # the next one would show requests that have long ended as waiting.
            self._unwritten.extendleft(reversed(entries[-self._limit :]))

    def _read_programs(self, engine_id: int) -> list[Program]:
        rows = self._history.execute(
            "SELECT text, outcome FROM programs WHERE engine_id = ? ORDER BY number", (engine_id,)
        )
        return [Program(*row) for row in rows]


def _open(path: str, tables: str) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    # One thread at a time uses the connection, but not the thread that opens it.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")
    connection.executescript(tables)
    return connection


def _row(entry: HistoryEntry) -> tuple[object, ...]:
    (client, seq), engine_id, label, source, *rest, _ = entry
    return engine_id, client, seq, label[:TEXT_CHARS], source[:TEXT_CHARS], *rest


def _without_addresses(member: Member) -> Member:
    return replace(member, info=_without_address(member.info), former=_without_address(member.former))


def _without_address(engine: EngineInfo | None) -> EngineInfo | None:
    return None if engine is None else replace(engine, address=None)
