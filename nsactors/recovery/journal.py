"""The journal of a namespace: its requests in order, from which it can be restored.

The state of an engine is the sum of its requests (event sourcing). Each request that may change it is written *before*
it runs, and its outcome *before* it is answered: the journal contains every request that was acknowledged. A snapshot
of the names replaces all entries before it, except those that created objects which cannot be pickled: these entries
are kept, to be replayed.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

from nsactors._frozen import frozen
from nsactors.protocol.messages import (
    Aborted,
    EngineRequest,
    Execute,
    Expired,
    Failed,
    Ok,
    Operation,
    Outcome,
    Pull,
    Refused,
    RequestId,
    RunTasks,
    TakeSnapshot,
    label_of,
)
from nsactors.protocol.serialize import Payload

_PREVIEW_CHARS = 200


class State(enum.IntEnum):
    """The progress of a request, which decides whether it is replayed. The numbers are on disk: never change one."""

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
    UNWRITTEN = 10
    EDITED = 11

    @property
    def is_replayed(self) -> bool:
        """True if a recovery replays the request.

        A request that raised is replayed: it changed the namespace up to the line that raised, and will raise at this
        line again. A request that was cut short from outside is not replayed: the place where it stopped is unknown. If
        the user changed variables of a request in the debugger, it is replayed without these changes, and reported.
        """
        return self in (State.COMPLETED, State.FAILED, State.EDITED)

    @property
    def reason(self) -> str:
        """The reason why a recovery does not replay the request; empty if it does."""
        return _REASONS.get(self, "")


_REASONS = {
    State.BEGUN: "it was running when the engine died",
    State.INTERRUPTED: "it was interrupted",
    State.EXPIRED: "it ran into its time limit",
    State.USED_MPI: "it used MPI, which needs all engines at the same time",
    State.USED_SERVICE: "it communicated with others, by messages or a tuple space, and would do so twice",
    State.NOT_JOURNALLED: "its sender asked not to repeat it",
    State.KILLS: "it ended the engine whenever it was replayed",
    State.UNWRITTEN: "there was no room on the disk to write it down",
    State.HELD_REFERENCES: "its arguments held references to an object store, which do not outlive their owner",
}


ProcessState = Mapping[str, Any]
"""Parts of the state of a process, by name, besides the names of the namespace: generators, environment, settings.

The values are plain (numbers, texts, bytes, tuples and dictionaries of them), so that reading them needs no library.
"""


class RequestStarted(NamedTuple):
    """A request is about to run.

    ``state`` is BEGUN, or the reason why the request will not be replayed. In the second case, there is no payload, and
    only the start of a cell. ``process`` contains the parts of the process's state that have changed since they were
    last recorded.
    """

    request: RequestId
    operation: Operation
    payload: Payload | None
    state: State = State.BEGUN
    process: ProcessState = {}  # noqa: RUF012 (a NamedTuple's default; never written to)


class RequestFinished(NamedTuple):
    """The last request that started has finished.

    Attributes:
        state: its outcome.
        error: the class of the exception that it raised.
        bound: the names that it bound to another object, or removed.
        took_s: its duration.
    """

    state: State
    error: str = ""
    bound: tuple[str, ...] = ()
    took_s: float = 0.0


@frozen
class JournalEntry:
    """One request of the journal, with its outcome. See :class:`RequestStarted` and :class:`RequestFinished`."""

    request: RequestId
    operation: Operation
    payload: Payload | None
    state: State
    error: str = ""
    bound: tuple[str, ...] = ()
    took_s: float = 0.0
    process: ProcessState = field(default_factory=dict)

    @property
    def records(self) -> tuple[RequestStarted, RequestFinished]:
        """The two records that make up the entry."""
        begun = RequestStarted(self.request, self.operation, self.payload, process=self.process)
        return begun, RequestFinished(self.state, self.error, self.bound, self.took_s)

    @property
    def label(self) -> str:
        """The text for users: its first line of source, or the call."""
        if isinstance(self.operation, Execute):
            lines = self.operation.code.strip().splitlines() or [""]
            return f"execute: {lines[0][:60]}{' ...' if len(lines) > 1 or len(lines[0]) > 60 else ''}"
        return label_of(self.operation)


class SnapshotPart(NamedTuple):
    """Names whose values were pickled together, so that shared objects stay shared.

    Attributes:
        names: the names; results are called ``Out[3]``.
        payload: a dictionary of their values.
        needs: names in earlier parts to which the values refer.
    """

    names: tuple[str, ...]
    payload: Payload
    needs: tuple[str, ...] = ()


@frozen
class Snapshot:
    """A namespace at one moment.

    Attributes:
        parts: the values that can be pickled, by component, in an order in which they can be loaded.
        modules: names that are bound to modules, with the names of the modules.
        left_out: names whose values cannot be pickled, with the reason.
        inputs: the cells that have run, as in ``In``.
        folder: the working folder.
        path: ``sys.path``.
        taken: the last request of each client that the snapshot includes.
        process: the state of the process, besides its names.
        not_kept: parts of that state that the snapshot does not include, with the reason.
    """

    parts: tuple[SnapshotPart, ...] = ()
    modules: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    folder: str = ""
    path: tuple[str, ...] = ()
    taken: dict[str, int] = field(default_factory=dict)
    process: ProcessState = field(default_factory=dict)
    not_kept: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """The names that it can restore."""
        return frozenset(self.modules).union(
            name for part in self.parts for name in part.names if not name.startswith("Out[")
        )

    def without(self, refused: Mapping[str, str]) -> Snapshot:
        """Return the snapshot without the parts of the names in ``refused``, which gives the reason for each."""
        return replace(
            self,
            parts=tuple(part for part in self.parts if refused.keys().isdisjoint(part.names)),
            modules={name: module for name, module in self.modules.items() if name not in refused},
            left_out={**self.left_out, **refused},
        )

    def without_components(self, firsts: Mapping[str, str]) -> Snapshot:
        """Return the snapshot without some components and modules.

        Args:
            firsts: the first names of the components, and the names of the modules, with the reason for each.
        """
        parts = {name: firsts[part.names[0]] for part in self.parts if part.names[0] in firsts for name in part.names}
        return self.without({**parts, **{name: firsts[name] for name in self.modules.keys() & firsts.keys()}})

    @property
    def nbytes(self) -> int:
        """Size of the pickled values in bytes."""
        return sum(part.payload.nbytes for part in self.parts)


class SegmentHeader(NamedTuple):
    """The first record of every segment: a snapshot, or None for a new namespace; ``kept`` entries follow it.

    Without a snapshot, ``taken`` has the last request of each client, which must not run again.
    """

    snapshot: Snapshot | None = None
    kept: int = 0
    taken: Mapping[str, int] = MappingProxyType({})


Record = SegmentHeader | RequestStarted | RequestFinished | JournalEntry


@frozen
class Journal:
    """The content of a journal, assembled from its records.

    Attributes:
        snapshot: its first state; None for an empty namespace.
        kept: entries that created names which the snapshot cannot hold; it includes their other effects.
        entries: the entries after the snapshot.
        taken_before: without a snapshot, the last request of each client, which must not run again.
    """

    snapshot: Snapshot | None = None
    kept: tuple[JournalEntry, ...] = ()
    entries: tuple[JournalEntry, ...] = ()
    taken_before: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Journal | None:
        """Assemble a journal from records; None if they end before the snapshot and its kept entries are complete."""
        base: SegmentHeader | None = None
        kept: list[JournalEntry] = []
        entries: list[JournalEntry] = []
        begun: RequestStarted | None = None
        for record in records:
            match record:
                case SegmentHeader():
                    base = record
                case JournalEntry():
                    kept.append(record)
                case RequestStarted():
                    begun = record
                case RequestFinished() if begun is not None:
                    entries.append(_entry(begun, record))
                    begun = None
        if begun is not None:
            entries.append(replace(_entry(begun, RequestFinished(State.BEGUN)), state=State.BEGUN))
        # Kept entries are part of the snapshot: without all of them, some of its names could not be recreated.
        if base is None or len(kept) < base.kept:
            return None
        return cls(base.snapshot, tuple(kept), tuple(entries), base.taken)

    @property
    def taken(self) -> dict[str, int]:
        """The last request of each client that has started: neither this nor an earlier one may run again.

        Requests that change nothing are not journalled, and do no harm if they run twice.
        """
        taken = dict(self.snapshot.taken if self.snapshot else self.taken_before)
        for client, seq in (entry.request for entry in self.entries):
            taken[client] = max(seq, taken.get(client, -1))
        return taken

    @property
    def process(self) -> ProcessState:
        """The last recorded state of the process."""
        return _merged([self.snapshot.process if self.snapshot else {}, *(entry.process for entry in self.entries)])

    def standing_alone(self) -> tuple[JournalEntry, ...]:
        """Return all entries, each with all that was recorded of the state of the process before it."""
        process: ProcessState = self.snapshot.process if self.snapshot else {}
        alone = list(self.kept)  # kept entries have the complete state already
        for entry in self.entries:
            process = _merged([process, entry.process])
            alone.append(replace(entry, process=process))
        return tuple(alone)

    def recovered(self) -> Journal:
        """Return the journal of the namespace restored from this one, without requests that were not replayed."""
        return Journal(
            replace(self.snapshot, taken=self.taken) if self.snapshot else None,
            tuple(entry for entry in self.kept if entry.state.is_replayed),
            tuple(self._replayed()),
            {} if self.snapshot else self.taken,
        )

    def _replayed(self) -> Iterator[JournalEntry]:
        process: ProcessState = {}  # recorded with entries that are left out
        for entry in self.entries:
            process = _merged([process, entry.process])
            if entry.state.is_replayed:
                yield replace(entry, process=process)
                process = {}


def _merged(states: Iterable[ProcessState]) -> ProcessState:
    merged: dict[str, Any] = {}
    for state in states:
        merged |= state
    return merged


def _entry(begun: RequestStarted, ended: RequestFinished) -> JournalEntry:
    state = ended.state if begun.state is State.BEGUN else begun.state
    return JournalEntry(begun.request, begun.operation, begun.payload, state, *ended[1:], process=begun.process)


def changes_state(operation: Operation) -> bool:
    """Return whether a request may change the namespace, and belongs in the journal.

    Tasks do not belong in the journal: they may run on any engine, so they cannot rely on the effects of others, and if
    their engine dies, they run on another engine.
    """
    return not isinstance(operation, Pull | TakeSnapshot | RunTasks)


def begin(
    request: EngineRequest, payload: Payload | None, *, journalled: bool = True, process: ProcessState | None = None
) -> RequestStarted:
    """Return the record to write before a request runs.

    Args:
        request: the request.
        payload: its payload.
        journalled: False if its sender excluded it from replay, because of its effects outside the namespace.
        process: the parts of the state of the process that have changed.
    """
    process = process or {}
    if not journalled:
        return RequestStarted(request.id, _preview(request.operation), None, State.NOT_JOURNALLED, process)
    # References cannot be pickled into a file: the stored objects live as long as their owner, not as the journal.
    if payload is not None and payload.refs:
        return RequestStarted(request.id, request.operation, None, State.HELD_REFERENCES, process)
    return RequestStarted(request.id, request.operation, payload, State.BEGUN, process)


def unwritten(begun: RequestStarted) -> RequestStarted:
    """Return a record of the same request without its content; it shows only that the request ran."""
    state = State.UNWRITTEN if begun.state is State.BEGUN else begun.state
    return RequestStarted(begun.request, _preview(begun.operation), None, state, begun.process)


def end(
    outcome: Outcome,
    *,
    bound: tuple[str, ...] = (),
    took_s: float = 0.0,
    used_mpi: bool = False,
    used_service: bool = False,
    edited: bool = False,
) -> RequestFinished:
    """Return the record to write before a request is answered.

    Args:
        outcome: the outcome in its reply.
        bound: the names that it bound or removed.
        took_s: its duration.
        used_mpi: whether it took part in communication that needs the other engines in the same state.
        used_service: whether it called services of the cluster, which remember the calls.
        edited: whether the user may have changed its variables in the debugger.
    """
    error = outcome.failure.type_name if isinstance(outcome, Failed) else ""
    # It does not matter whether the request succeeded: a replay would wait for the other engines, or send messages
    # twice.
    state = State.USED_MPI if used_mpi else State.USED_SERVICE if used_service else _end_state(outcome)
    if edited and state.is_replayed:
        state = State.EDITED
    return RequestFinished(state, error, bound, took_s)


def _end_state(outcome: Outcome) -> State:
    match outcome:
        case Ok():
            return State.COMPLETED
        case Failed(failure):
            # KeyboardInterrupt comes from outside, and BdbQuit from a user who has quit the debugger. If the user's
            # code raises one of them itself, it is treated in the same way: at worst, the request is not replayed.
            return State.INTERRUPTED if failure.type_name in ("KeyboardInterrupt", "BdbQuit") else State.FAILED
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


@frozen
class SnapshotPolicy:
    """Decides when a snapshot is worth its cost.

    A recovery takes as long as the entries that it replays. So the time of the entries counts, not the time on the
    clock: an idle engine needs no snapshots.

    Attributes:
        journal_bytes: the journal may grow by this much before it is cut.
        replay_s: a replay may take this long.
        share: the largest share of the engine's time that snapshots may take if they are made because of ``replay_s``.
    """

    journal_bytes: int = 1_000_000_000
    replay_s: float = 60.0
    share: float = 0.05

    def is_due(self, grown_bytes: int, replay_s: float, last_took_s: float = 0.0) -> bool:
        """Return whether to take a snapshot now.

        Args:
            grown_bytes: the size of the records since the last snapshot.
            replay_s: the duration of the requests since the last snapshot.
            last_took_s: the time that the last snapshot took.
        """
        return grown_bytes >= self.journal_bytes or replay_s >= max(self.replay_s, last_took_s / self.share)
