"""The journal of a namespace: what made it, in order, so that it can be made again.

An engine's state is the sum of its instruction stream (event sourcing). Every request that may change it is written
down *before* it runs, and how it ended *before* it is answered: what has been acknowledged is in the journal. A
snapshot of the names takes the place of all that was written before it, but for the entries that made what cannot be
pickled; those are kept, to be run again.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from nsactors.core.messages import (
    Aborted,
    Execute,
    Expired,
    Failed,
    Ok,
    Operation,
    Outcome,
    Pull,
    Refused,
    Request,
    RequestId,
    RunTasks,
    TakeSnapshot,
)
from nsactors.core.payload import Payload

__all__ = [
    "Base",
    "Begun",
    "Ended",
    "Entry",
    "Journal",
    "Record",
    "Snapshot",
    "SnapshotPart",
    "SnapshotPolicy",
    "State",
    "begin",
    "changes_state",
    "end",
]

_PREVIEW_CHARS = 200


class State(enum.IntEnum):
    """How far a request came, and whether it may be run again. The numbers are on disk: never change one."""

    BEGUN = 0
    COMPLETED = 1
    FAILED = 2
    INTERRUPTED = 3
    EXPIRED = 4
    USED_MPI = 5
    NOT_JOURNALLED = 6
    HELD_REFERENCES = 7
    KILLS = 8
    USED_SERVICE = 9

    @property
    def is_replayed(self) -> bool:
        """Whether a recovery runs it again.

        One that raised is: it changed the namespace up to the line that raised, and will raise there again. One that
        was cut short from outside is not: nobody knows where it stood.
        """
        return self in (State.COMPLETED, State.FAILED)

    @property
    def reason(self) -> str:
        """Why a recovery does not run it again; empty if it does."""
        return _REASONS.get(self, "")


_REASONS = {
    State.BEGUN: "it was running when the engine died",
    State.INTERRUPTED: "it was interrupted",
    State.EXPIRED: "it ran into its time limit",
    State.USED_MPI: "it used MPI, which takes all engines at once",
    State.USED_SERVICE: "it spoke to others, by messages or a tuple space, and would do so twice",
    State.NOT_JOURNALLED: "it was sent as not to be repeated",
    State.KILLS: "it ended the engine whenever it was run again",
    State.HELD_REFERENCES: "its arguments held references to an object store, which do not outlive their owner",
}


class Begun(NamedTuple):
    """A request is about to run.

    ``state`` is BEGUN, or why it will not be repeated; there is no payload then, and only the beginning of a cell.
    """

    request: RequestId
    operation: Operation
    payload: Payload | None
    state: State = State.BEGUN


class Ended(NamedTuple):
    """The request that was begun last has ended.

    Attributes:
        state: how.
        error: class of what it raised.
        bound: the names that are bound to something else since, or are gone.
        took_s: how long it ran.
    """

    state: State
    error: str = ""
    bound: tuple[str, ...] = ()
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One request of the journal, with its end. See :class:`Begun` and :class:`Ended`."""

    request: RequestId
    operation: Operation
    payload: Payload | None
    state: State
    error: str = ""
    bound: tuple[str, ...] = ()
    took_s: float = 0.0

    @property
    def label(self) -> str:
        """What people call it: its first line of source, or the call."""
        if isinstance(self.operation, Execute):
            lines = self.operation.code.strip().splitlines() or [""]
            return f"execute: {lines[0][:60]}{' ...' if len(lines) > 1 or len(lines[0]) > 60 else ''}"
        return Request(self.request, self.operation).label


class SnapshotPart(NamedTuple):
    """Names whose values were pickled together: what they share stays shared."""

    names: tuple[str, ...]
    payload: Payload


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A namespace at one moment.

    Attributes:
        parts: the values that can be pickled, nearly always all in one part. A result is called ``Out[3]``.
        modules: names that are bound to modules, with the module's own name.
        left_out: names that could not be pickled, with the reason.
        inputs: the cells that have run, as in ``In``.
        folder: the working folder.
        path: ``sys.path``.
        taken: the last request of each client that is in it.
    """

    parts: tuple[SnapshotPart, ...] = ()
    modules: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    folder: str = ""
    path: tuple[str, ...] = ()
    taken: dict[str, int] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """The names that can be had back from it."""
        return frozenset(self.modules).union(
            name for part in self.parts for name in part.names if not name.startswith("Out[")
        )

    @property
    def nbytes(self) -> int:
        """Size of the pickled values in bytes."""
        return sum(part.payload.nbytes for part in self.parts)


class Base(NamedTuple):
    """What every journal begins with: a snapshot, or None for a new namespace; ``kept`` entries follow it."""

    snapshot: Snapshot | None = None
    kept: int = 0


Record = Base | Begun | Ended | Entry


@dataclass(frozen=True, slots=True)
class Journal:
    """What a journal says, put together from its records.

    Attributes:
        snapshot: where it begins; None for an empty namespace.
        kept: entries that are in the snapshot, but for the names they made that it could not hold.
        entries: what came after it.
    """

    snapshot: Snapshot | None = None
    kept: tuple[Entry, ...] = ()
    entries: tuple[Entry, ...] = ()

    @classmethod
    def of(cls, records: Iterable[Record]) -> Journal | None:
        """The journal these records make; None if they end before all is there that it begins with."""
        base: Base | None = None
        kept: list[Entry] = []
        entries: list[Entry] = []
        begun: Begun | None = None
        for record in records:
            match record:
                case Base():
                    base = record
                case Entry():
                    kept.append(record)
                case Begun():
                    begun = record
                case Ended() if begun is not None:
                    entries.append(_entry(begun, record))
                    begun = None
        if begun is not None:
            entries.append(Entry(begun.request, begun.operation, begun.payload, State.BEGUN))
        if base is None or len(kept) < base.kept:
            return None
        return cls(base.snapshot, tuple(kept), tuple(entries))

    @property
    def taken(self) -> dict[str, int]:
        """The last request of each client that was begun: none up to it is to be run for its client again.

        Requests that change nothing are not written down, and do no harm if they run twice.
        """
        taken = dict(self.snapshot.taken) if self.snapshot else {}
        for client, seq in (entry.request for entry in self.entries):
            taken[client] = max(seq, taken.get(client, -1))
        return taken

    def recovered(self) -> Journal:
        """What it says of a namespace that was made again from it: nothing of requests that were not replayed."""
        return Journal(
            replace(self.snapshot or Snapshot(), taken=self.taken),
            tuple(entry for entry in self.kept if entry.state.is_replayed),
            tuple(entry for entry in self.entries if entry.state.is_replayed),
        )


def _entry(begun: Begun, ended: Ended) -> Entry:
    state = ended.state if begun.state is State.BEGUN else begun.state
    return Entry(begun.request, begun.operation, begun.payload, state, *ended[1:])


def changes_state(operation: Operation) -> bool:
    """Whether a request may change the namespace, and belongs in the journal.

    Tasks do not: they may run anywhere, so they cannot count on what others leave behind, and go elsewhere if their
    engine dies.
    """
    return not isinstance(operation, Pull | TakeSnapshot | RunTasks)


def begin(request: Request, payload: Payload | None, *, journalled: bool = True) -> Begun:
    """What to write down before a request runs.

    Args:
        request: the request.
        payload: its payload.
        journalled: False if its sender does not want it to be repeated, for what it does outside of the namespace.
    """
    if not journalled:
        return Begun(request.id, _preview(request.operation), None, State.NOT_JOURNALLED)
    if payload is not None and payload.refs:
        return Begun(request.id, request.operation, None, State.HELD_REFERENCES)
    return Begun(request.id, request.operation, payload)


def end(
    outcome: Outcome,
    *,
    bound: tuple[str, ...] = (),
    took_s: float = 0.0,
    used_mpi: bool = False,
    used_service: bool = False,
) -> Ended:
    """What to write down before a request is answered.

    Args:
        outcome: what the answer says.
        bound: the names it bound anew or removed.
        took_s: how long it ran.
        used_mpi: whether it took part in communication that needs the other engines as they were then.
        used_service: whether it called services of the cluster, which remember it.
    """
    error = outcome.failure.type_name if isinstance(outcome, Failed) else ""
    state = State.USED_MPI if used_mpi else State.USED_SERVICE if used_service else _end_state(outcome)
    return Ended(state, error, bound, took_s)


def _end_state(outcome: Outcome) -> State:
    match outcome:
        case Ok():
            return State.COMPLETED
        case Failed(failure):
            return State.INTERRUPTED if failure.type_name == "KeyboardInterrupt" else State.FAILED
        case Expired():
            return State.EXPIRED
        case Aborted() | Refused():
            raise ValueError(f"a request that never ran has no end: {outcome}")


def _preview(operation: Operation) -> Operation:
    match operation:
        case Execute(code):
            return operation._replace(code=code[:_PREVIEW_CHARS])
        case _:
            return operation


@dataclass(frozen=True, slots=True)
class SnapshotPolicy:
    """When a snapshot is worth its cost.

    A recovery costs what it replays, so what counts is the time that entries took, and not the time of day: an engine
    that idles needs no snapshots.

    Attributes:
        journal_bytes: the journal may grow by this much before it is cut.
        replay_s: a replay may take this long.
        share: but not more than this share of the engine's time goes into snapshots because of ``replay_s``.
    """

    journal_bytes: int = 1_000_000_000
    replay_s: float = 60.0
    share: float = 0.05

    def is_due(self, grown_bytes: int, replay_s: float, last_took_s: float = 0.0) -> bool:
        """Whether to take one now.

        Args:
            grown_bytes: size of what was written since the last one.
            replay_s: how long the entries since then took.
            last_took_s: what the last snapshot took.
        """
        return grown_bytes >= self.journal_bytes or replay_s >= max(self.replay_s, last_took_s / self.share)
