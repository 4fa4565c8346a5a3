"""The journal recorder: a namespace with its journal, through the incarnations of its engine.

:class:`JournalledNamespace` records requests, takes snapshots and recovers a namespace. :class:`EngineJournal` does the
same for an engine, and adds replication to another machine and recovery from a former incarnation.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Protocol

from nsactors.errors import ConnectionLost, MpiError, SnapshotUnwritten
from nsactors.errors.reporting import print_traceback
from nsactors.namespace.clean_interpreter import CleanInterpreter, Prover
from nsactors.namespace.code_uses import (
    attributes_set_by_call,
    attributes_set_by_cell,
    inputs_of_call,
    inputs_of_cell,
)
from nsactors.namespace.mpi_guard import MpiUse, barring_mpi
from nsactors.namespace.namespace import Namespace
from nsactors.namespace.process_state import EngineProcess
from nsactors.namespace.snapshot import Bindings, restore, take
from nsactors.protocol.engine_info import EngineSpec, RecoveryReport
from nsactors.protocol.messages import EngineRequest, Execute, Operation, Outcome, RequestId
from nsactors.protocol.serialize import Payload
from nsactors.recovery.encoding import decode
from nsactors.recovery.journal import Journal, JournalEntry, Snapshot, SnapshotPolicy, State, begin, changes_state, end
from nsactors.recovery.replay import recover
from nsactors.recovery.replication import NOWHERE, JournalBatch, Position, Segment, SegmentRange, next_span
from nsactors.recovery.storage import Draft, JournalCopy, JournalFile, StoredJournal, find_journal
from nsactors.recovery.unjournaled import read_gap
from nsactors.services.service import CONTACTS

RETRY_S = 1.0


def _ignore(*args: object) -> None:
    """Ignore the arguments: the default of callbacks."""


def _in_background(run: Callable[[], None]) -> None:
    threading.Thread(target=run, name="prove-snapshot", daemon=True).start()


class JournalledNamespace:
    """Record the requests of a namespace, take its snapshots, and recover it from a journal.

    Methods run on the thread that runs the requests: :meth:`begin` before each request and :meth:`end` after it.

    A snapshot is a draft until a test has shown that it loads. Only a request for a snapshot waits for that test.

    If the disk is full, the journal continues in memory; see ``JournalFile.failure``.

    Args:
        namespace: a namespace at the start of its engine.
        folder: the folder for the journal, which is made here.
        prover: tests snapshots.
        in_background: runs work that no request waits for.
        policy: when to take snapshots without being asked.
        ref_types: classes of references to an object store.
        process: the process whose state is also recorded; None for an engine without a process of its own.
    """

    def __init__(
        self,
        namespace: Namespace,
        folder: str,
        prover: Prover,
        *,
        in_background: Callable[[Callable[[], None]], None] = _in_background,
        policy: SnapshotPolicy | None = None,
        ref_types: tuple[type, ...] = (),
        process: EngineProcess | None = None,
    ) -> None:
        self.file = JournalFile(folder)
        self._namespace = namespace
        self._prover = prover
        self._in_background = in_background
        self._draft: Draft | None = None  # the last draft that is not tested yet; it replaces older drafts
        self._drafting = threading.Lock()
        self._failed: Exception | None = None
        self._policy = policy or SnapshotPolicy()
        self._ref_types = ref_types
        self._process = process
        self._bindings = Bindings(namespace.names)
        self._snapshot_took_s = 0.0
        self._failed_at = (0, 0.0)  # bytes and seconds of the journal at the last failure of a snapshot
        self._attributes: dict[str, None] = {}  # attributes of modules that have been set
        self._operation: Operation | None = None
        self._retry_at = 0.0  # when to try again to take a snapshot that completes the journal
        self._began = 0.0
        self._is_open = False

    def begin(self, request: EngineRequest, payload: Payload | None, *, journalled: bool = True) -> None:
        """Record a request that is about to run, if it may change the namespace.

        Args:
            request: the request.
            payload: its payload.
            journalled: False if it must not be replayed.
        """
        self._operation = request.operation
        self._is_open = changes_state(request.operation)
        if self._is_open:
            changes = self._process.changes() if self._process else None
            if self._process:
                self._process.begin(request.id)
            self.file.append(begin(request, payload, journalled=journalled, process=changes))
            self._began = time.monotonic()

    def end(
        self, outcome: Outcome, *, used_mpi: bool = False, used_service: bool = False, edited: bool = False
    ) -> Exception | None:
        """Record the end of a request, before its reply is sent; take a snapshot if one is due.

        A snapshot may fail although a record succeeds, because a snapshot takes more room on the disk. The journal is
        then as complete as it was, and the next snapshot is tried when it is due. Return the error of a snapshot that
        failed.

        Args:
            outcome: the outcome in the reply.
            used_mpi: whether the request communicated with other engines, which may be gone at a replay.
            used_service: whether the request called services of the cluster.
            edited: whether the user may have changed the request's variables in the debugger.
        """
        if not self._is_open:
            if self.file.failure is not None:
                self.file.flush()
            return None
        self._is_open = False
        self._note_attributes(self._operation)
        took_s = time.monotonic() - self._began
        if self._process:
            self._process.end()
        used = {"used_mpi": used_mpi, "used_service": used_service, "edited": edited}
        self.file.append(end(outcome, bound=self._bindings.changed(), took_s=took_s, **used))
        return self._snapshot_of_incomplete() if self.file.is_incomplete else self._snapshot_if_due()

    def note_call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the function that the current request is about to call."""
        self._attributes.update(dict.fromkeys(attributes_set_by_call(function)))

    def _note_attributes(self, operation: Operation | None) -> None:
        if isinstance(operation, Execute):
            self._attributes.update(dict.fromkeys(attributes_set_by_cell(operation.code, self._namespace.names)))

    def snapshot(self) -> Snapshot:
        """Take a snapshot now, between two requests. It contains the reason for each left-out name, for the user.

        Raises:
            SnapshotUnproved: if the snapshot could not be tested; the journal is as complete as it was.
        """
        snapshot = self._adopted(self._drafted(None))
        assert snapshot is not None, "only this thread makes drafts, and it has made no other one"
        return snapshot

    def prove(self) -> None:
        """Test the last snapshot in the background, if it has not been tested yet."""
        draft = self._draft
        if draft is not None:
            self._in_background(lambda: self._prove(draft))

    def recover(
        self,
        engine_id: int,
        journal: Journal,
        number_cells: Callable[[int], None],
        *,
        runs: Callable[[JournalEntry], object] = _ignore,
        loads: Callable[[str], object] = _ignore,
        skipped: Mapping[str, str] = MappingProxyType({}),
        ran: Callable[[JournalEntry, Any, BaseException | None], object] = _ignore,
        stored: StoredJournal | None = None,
        shipped_only: bool = False,
    ) -> RecoveryReport:
        """Restore the namespace from a journal.

        The new journal has the same contents as the former one until a snapshot has passed its test. The caller
        discards the output of replayed requests; their time is not limited.

        Args:
            engine_id: for the report.
            journal: the journal of the engine's former incarnation.
            number_cells: sets the number of the next cell; this starts the shell.
            runs: called with each entry before it is replayed.
            loads: called with the first name of each component before it is loaded, and with "" at the end.
            skipped: first names of components that are not loaded, with the reason.
            ran: called with each replayed entry, its value and its error.
            stored: the journal with its file, if the new journal must keep all of its contents.
            shipped_only: for the report: whether the journal is the replica's copy.
        """
        names = self._namespace.names
        call: tuple[Any, tuple[Any, ...], dict[str, Any]] | None = None  # what the running entry calls

        def note_call(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal call
            call = function, args, kwargs
            self.note_call(function, args, kwargs)

        def sources(entry: JournalEntry) -> tuple[str, ...]:
            if isinstance(entry.operation, Execute):
                return inputs_of_cell(entry.operation.code, names)
            nonlocal call
            made, call = call, None
            return inputs_of_call(*made, names) if made else ()

        def restore_cells_and_names(snapshot: Snapshot) -> dict[str, str]:
            if snapshot.inputs:
                number_cells(len(snapshot.inputs))  # first, since a shell empties the histories at its start
            failed = restore(snapshot, names, skipped=skipped, loads=loads)
            loads("")
            return failed

        def run(entry: JournalEntry) -> str:
            runs(entry)
            if self._process:
                self._process.begin(entry.request)
            try:
                value = self._namespace.run(entry.operation, entry.payload, note_call)
            except BaseException as error:  # the same error as the first time, SystemExit included
                ran(entry, None, error)
                return type(error).__name__
            finally:
                self._note_attributes(entry.operation)
                if self._process:
                    self._process.end()
            ran(entry, value, None)
            return ""

        report = recover(
            engine_id,
            journal,
            restore=restore_cells_and_names,
            run=run,
            names=names,
            set_process=self._process.set if self._process else lambda state: {},
            sources=sources,
            shipped_only=shipped_only,
        )
        self._bindings.changed()
        recovered = journal.recovered()
        if recovered.snapshot is not None and skipped:
            recovered = replace(recovered, snapshot=recovered.snapshot.without_components(skipped))
        self.file.begin_with(recovered, stored)
        try:
            self._drafted(recovered)
        except Exception as error:  # the journal still has these contents, or waits for room on the disk too
            self._failed = error if self.file.failure is None else None
        return report

    def _snapshot_if_due(self) -> Exception | None:
        nbytes, replay_s = self.file.grown_bytes, self.file.replay_s
        failed_nbytes, failed_replay_s = self._failed_at
        is_due = self._policy.is_due(nbytes - failed_nbytes, replay_s - failed_replay_s, self._snapshot_took_s)
        if is_due and self._draft is None:
            try:
                self._drafted(None)
            except Exception as error:
                self._fail(error)
            else:
                self.prove()
        failed, self._failed = self._failed, None
        return failed

    def _snapshot_of_incomplete(self) -> Exception | None:
        """Take a snapshot and wait for its test: only then are those requests safe that the journal lacks."""
        if time.monotonic() < self._retry_at:
            return None
        began = time.monotonic()
        try:
            self.snapshot()
        except Exception as error:
            took_s = time.monotonic() - began
            self._retry_at = time.monotonic() + max(RETRY_S, took_s / self._policy.share)
            return error
        return None

    def _drafted(self, journal: Journal | None) -> Draft:
        began = time.monotonic()
        with self._drafting:
            snapshot = take(self._namespace.names, ref_types=self._ref_types)
            if self._process:
                state, not_kept = self._process.state()
                if self._attributes:
                    not_kept |= {"attributes of modules": f"set them again: {', '.join(self._attributes)}"}
                snapshot = replace(snapshot, process=state, not_kept=not_kept)
                # The journal goes on without this snapshot until the snapshot has passed its test; if it fails, for
                # good.
                self._process.not_recorded()
            # A draft beside the journal: a process that dies before the test has passed leaves the journal whole.
            self._draft = self.file.draft(snapshot, journal)
        self._snapshot_took_s = time.monotonic() - began
        return self._draft

    def _prove(self, draft: Draft) -> None:
        try:
            self._adopted(draft)
        except Exception as error:
            self._fail(error)

    def _adopted(self, draft: Draft) -> Snapshot | None:
        """Adopt a draft if it passes the test and no newer draft has been made during the test."""
        try:
            refused = self._prover.failures(draft.path, draft.read())
        except BaseException:
            draft.discard()
            with self._drafting:
                if self._draft is draft:
                    self._draft = None
            raise
        with self._drafting:
            if self._draft is not draft:
                draft.discard()
                return None
            self._draft = None
            snapshot = self.file.adopt(draft, refused)
        self._failed_at = (0, 0.0)
        return snapshot

    def _fail(self, error: Exception) -> None:
        self._failed_at = self.file.grown_bytes, self.file.replay_s
        self._failed = error


BATCH_BYTES = 16_000_000
REPLICATE_EVERY_S = 0.1
_CONTINUED = "continued-as-"
_LOAD = "load "
_OVER = "over"  # used in place of an entry, and different from all entries
KILLED_BY = 2  # recoveries that died while one entry ran: a single one may be chance

Answered = Callable[[JournalEntry, Any, BaseException | None], object]


class JournalReplica(Protocol):
    """A copy of journals on another machine. Methods raise ``ConnectionLost`` if it cannot be reached."""

    @property
    def is_elsewhere(self) -> bool:
        """Return whether the replica is on another machine than the calling engine."""
        ...

    def accept(self, engine_id: int, incarnation: int, batch: JournalBatch) -> Position:
        """Store a part of a journal; return the position up to which the copy is complete."""
        ...

    def segments(self, engine_id: int, incarnation: int) -> Sequence[Segment]:
        """Return the stored segments of a journal."""
        ...

    def read(self, engine_id: int, incarnation: int, span: SegmentRange) -> JournalBatch:
        """Return a part of a copy."""
        ...

    def saved_at(self, engine_id: int, incarnation: int) -> float | None:
        """Return when an earlier cluster saved this copy, from which this cluster continues; otherwise None."""
        ...

    def forget(self, engine_id: int, incarnation: int) -> None:
        """Drop a journal that is not needed any more."""
        ...


class EngineJournal:
    """The journal of an engine, by which its namespace outlives its process.

    An engine starts, recovers and continues even on a full disk. Each of its replies then has a warning, and the former
    incarnation's journal stays until the new journal is on disk.

    Args:
        spec: the engine.
        namespace: the engine's namespace, at its start.
        folder_of: returns the folder of an incarnation's journal on this machine.
        ref_types: classes of references to an object store.
        replica: the journal replica of the cluster, if there is one.
        process: the engine's own process, if it has one.
        prover: tests snapshots; None for the clean interpreter of this machine's engines.
    """

    def __init__(
        self,
        spec: EngineSpec,
        namespace: Namespace,
        folder_of: Callable[[int], str],
        ref_types: tuple[type, ...],
        replica: JournalReplica | None,
        process: EngineProcess | None = None,
        prover: Prover | None = None,
    ) -> None:
        self._spec = spec
        self._namespace = namespace
        self._folder_of = folder_of
        self._replica = replica
        self._kept = NOWHERE
        self._replicating = threading.Lock()
        self._stopped: Exception | None = None  # the reason why requests are not recorded, other than a full disk
        self._was_waiting = False
        self._replica_full = ""
        self._to_remove: list[str] = []  # folders to remove as soon as this incarnation's own journal is on disk
        folder = folder_of(spec.incarnation)
        prover = prover or CleanInterpreter(os.path.dirname(folder))
        self._journalled = JournalledNamespace(namespace, folder, prover, ref_types=ref_types, process=process)
        self._mpi = MpiUse(namespace.names)
        self._contacts = CONTACTS.count

    def recover(self, answered: Answered) -> tuple[RecoveryReport, dict[str, int]]:
        """Recover the namespace of the former incarnation; return the report, and the last request of each client.

        Args:
            answered: called with each replayed request, its value and its error.
        """
        began = time.monotonic()
        former = self._spec.recovers
        assert former is not None, "there is a journal to recover from"
        folder, stored, journal = self._found_here(former) or self._found_elsewhere(former)
        shipped_only = folder == self._fetched(former)
        saved = self._replica.saved_at(self._spec.engine_id, former) if shipped_only and self._replica else None
        missing = _unjournalled(folder, journal)
        attempts = _Attempts(folder)
        said = journal
        journal = attempts.without_killers(said)
        self._journalled.file.mark_in(folder)
        with barring_mpi(MpiError("the MPI world is gone: import MPI again, when the engine is in a new one")):
            report = self._journalled.recover(
                self._spec.engine_id,
                replace(journal, entries=(*journal.entries, *missing)),
                self._namespace.number_cells,
                runs=attempts.note,
                loads=attempts.note_load,
                skipped=attempts.skipped,
                stored=stored if journal is said and not attempts.skipped else None,
                ran=answered,
                shipped_only=shipped_only and saved is None and not self._spec.options.ships_journal,
            )
        report = replace(report, saved_at=saved)
        attempts.over()
        self._release()
        with contextlib.suppress(OSError):  # once this incarnation counts, the former one's copy is not read any more
            self.replicate()
        if not self._journalled.file.is_begun:
            _continue(folder, self._folder_of(self._spec.incarnation))
        if shipped_only and journal == Journal():
            report = replace(report, lost=(*report.lost, ("its whole namespace", "nothing is left of its journal")))
        if not shipped_only and stored is None:
            report = replace(report, lost=(*report.lost, ("its last requests", "the disk had no room for a journal")))
        taken = replace(journal, entries=(*journal.entries, *missing)).taken
        return replace(report, took_s=time.monotonic() - began), taken

    def settled(self, closed: threading.Event) -> None:
        """Let this incarnation replace the former one. From now on, replicate its journal until ``closed`` is set.

        The new journal contains all of the former incarnation's journal. The former journal is removed as soon as the
        new one is on disk, because a further incarnation would have to recover from it until then. A snapshot of the
        recovered namespace is tested now.
        """
        former = self._spec.recovers
        if former is not None:
            self._to_remove = [*map(self._folder_of, range(former + 1)), self._fetched(former)]
            self._remove_former()
        self._journalled.prove()  # not earlier: clients wait for the recovery, which needs the processors
        if self._replica is not None:
            threading.Thread(target=self._keep_replicating, args=(self._replica, closed), daemon=True).start()

    def begin(self, request: EngineRequest, payload: Payload | None) -> str:
        """Record a request that is about to run; if that fails, return a text for its client."""
        self._mpi.begin(request.operation, payload)
        self._contacts = CONTACTS.count
        return self._write(lambda: self._journalled.begin(request, payload, journalled=request.journalled))

    def note_call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the function that the current request is about to call."""
        self._journalled.note_call(function, args, kwargs)

    def end(self, outcome: Outcome, *, edited: bool = False) -> str:
        """Record the end of a request, before its reply is sent; if that fails, return a text for its client.

        Args:
            outcome: the outcome in the reply.
            edited: whether the user may have changed the request's variables in the debugger.
        """

        def write() -> str:
            self._remove_former()
            used_service = CONTACTS.count != self._contacts
            failed = self._journalled.end(outcome, used_mpi=self._mpi.used(), used_service=used_service, edited=edited)
            self._release()
            if failed is None or self._journalled.file.failure is not None:  # reported with every reply
                return ""
            return (
                f"[nsactors: engine {self._spec.engine_id} could not take a snapshot ({failed}): its journal goes on "
                "without it, and a recovery takes longer]\n"
            )

        return self._write(write) + self._warnings()

    def snapshot(self) -> Snapshot:
        """Take a snapshot now.

        Raises:
            SnapshotUnproved: if the snapshot could not be tested.
            SnapshotUnwritten: if the disk had no room for the snapshot.
        """
        try:
            snapshot = self._journalled.snapshot()
        except OSError as error:
            raise SnapshotUnwritten(self._spec.engine_id, _reason(error), self._journalled.file.waiting) from None
        self._stopped = None  # the snapshot holds all that was not recorded
        self._release()
        return snapshot

    @property
    def replicates(self) -> bool:
        """Return whether the journal is copied to another machine."""
        return self._replica is not None and self._replica.is_elsewhere

    @property
    def replicates_before_replies(self) -> bool:
        """Return whether a reply waits until the replica has its request."""
        return self.replicates and self._spec.options.ships_journal

    def replicate(self) -> bool:
        """Send the rest of the journal to the replica; return whether all records made before this call are there.

        Raises:
            ConnectionLost: if the replica cannot be reached.
            OSError: if the replica has no room.
        """
        if self._replica is None or not self._replica.is_elsewhere:
            return False
        file = self._journalled.file
        with self._replicating:
            goal = file.position
            while span := next_span(self._kept, file.segments, BATCH_BYTES):
                batch = file.read_span(span)
                self._kept = self._accepted(self._replica, batch)
                file.release(self._kept)
                if self._kept >= goal:
                    break
        return True

    def _accepted(self, replica: JournalReplica, batch: JournalBatch) -> Position:
        try:
            position = replica.accept(self._spec.engine_id, self._spec.incarnation, batch)
        except ConnectionLost:
            raise
        except OSError as error:
            self._replica_full = _reason(error)
            raise
        self._replica_full = ""
        return position

    def _keep_replicating(self, replica: JournalReplica, closed: threading.Event) -> None:
        former = self._spec.recovers
        while (self.replicates or former is not None) and not closed.wait(REPLICATE_EVERY_S):
            try:
                self.replicate()
                if former is not None:  # only now that the copy of this incarnation's journal is complete
                    replica.forget(self._spec.engine_id, former)
                    former = None
            except OSError:
                pass  # the replica cannot be reached or is full, which replies report; the next round sends the rest
            except Exception:  # no error may end this thread
                print_traceback()

    def _found_here(self, former: int) -> tuple[str, StoredJournal | None, Journal] | None:
        """Return folder, file and contents of the former journal, or of the one that it continues on a full disk."""
        wanted = os.path.basename(self._folder_of(former))
        for incarnation in range(former, -1, -1):
            folder = self._folder_of(incarnation)
            goes_on = os.path.exists(os.path.join(folder, _CONTINUED + wanted))
            if (incarnation == former and os.path.isdir(folder)) or goes_on:
                stored = find_journal(folder)
                return folder, stored, stored.journal if stored else Journal()
        return None

    def _found_elsewhere(self, former: int) -> tuple[str, StoredJournal | None, Journal]:
        """Return folder, file and contents of the replica's copy; an empty journal if there is no replica."""
        folder = self._fetched(former)
        if self._replica is None:
            return folder, None, Journal()
        # A snapshot that has not arrived whole is useless; the segment that it should replace is still usable.
        segments = [each for each in self._replica.segments(self._spec.engine_id, former) if each.is_usable]
        try:
            copy = JournalCopy(folder)
            while span := next_span(copy.position, segments, BATCH_BYTES):
                copy.accept(self._replica.read(self._spec.engine_id, former, span))
        except ConnectionLost:
            raise
        except OSError:  # no room here: read it into memory
            return folder, None, self._read_from_keeper(former, segments)
        stored = find_journal(folder)
        return folder, stored, stored.journal if stored else Journal()

    def _read_from_keeper(self, former: int, segments: Sequence[Segment]) -> Journal:
        assert self._replica is not None, "the replica has the copy"
        data = bytearray()
        for segment in segments[-1:]:
            while span := next_span(Position(segment.number, len(data)), [segment], BATCH_BYTES):
                data += self._replica.read(self._spec.engine_id, former, span).data
        return Journal.of(record for record, _ in decode(memoryview(bytes(data)))) or Journal()

    def _fetched(self, incarnation: int) -> str:
        # Not the folder of the journal itself, which counts as complete.
        return f"{self._folder_of(incarnation)}.fetched"

    def _release(self) -> None:
        if not self.replicates:
            self._journalled.file.release(self._journalled.file.position)

    def _remove_former(self) -> None:
        if self._to_remove and self._journalled.file.is_begun:
            for folder in self._to_remove:
                shutil.rmtree(folder, ignore_errors=True)
            self._to_remove = []

    def _write(self, write: Callable[[], str | None]) -> str:
        try:
            return write() or ""
        except Exception as error:  # the engine goes on after any error
            self._stopped = error
            return ""

    def _warnings(self) -> str:
        """Return the warnings that each reply carries while requests are not safe."""
        engine, file = f"engine {self._spec.engine_id}", self._journalled.file
        if self._stopped is not None:
            return (
                f"[nsactors: {engine} no longer records its journal ({_reason(self._stopped)}): if it dies, changes "
                "since then are lost. view.snapshot() saves them]\n"
            )
        was_waiting, self._was_waiting = self._was_waiting, file.failure is not None
        if file.failure is not None:
            return (
                f"[nsactors: {engine} cannot write its journal ({_reason(file.failure)}): if it dies now, the changes "
                f"of its last {_count(file.waiting)} are lost. Make room on the disk, and it goes on]\n"
            )
        text = f"[nsactors: the disk has room again, and the journal of {engine} is complete]\n" if was_waiting else ""
        if self._replica_full and not self.replicates_before_replies:
            text += (
                f"[nsactors: the journal of {engine} is not copied to the head node ({self._replica_full}): if the "
                "engine's machine fails now, its last changes are lost. Make room on the head node's disk]\n"
            )
        return text


def _unjournalled(folder: str, journal: Journal) -> tuple[JournalEntry, ...]:
    """Return the requests that a folder marks as missing in its journal."""
    try:
        gap = read_gap(folder)
    except OSError:  # a copy has no mark, and neither has a full disk
        return ()
    taken = journal.taken
    return tuple(entry for entry in gap if entry.request.seq > taken.get(entry.request.client, -1))


def _continue(folder: str, new: str) -> None:
    """Mark in the old folder that a new folder continues its journal, because the disk has no room for a copy."""
    with contextlib.suppress(OSError):
        os.close(os.open(os.path.join(folder, _CONTINUED + os.path.basename(new)), os.O_WRONLY | os.O_CREAT, 0o600))


def _count(requests: int) -> str:
    return "request" if requests == 1 else f"{requests} requests"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"


class _Attempts:
    """The entries and names at which attempts at a recovery died, counted in a file.

    Args:
        folder: the folder of the journal.
    """

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "attempts")
        try:
            with open(self._path) as file:
                attempts = file.read().split("attempt\n")[1:]
        except FileNotFoundError:
            attempts = []
        deaths = Counter(attempt.splitlines()[-1] for attempt in attempts if attempt)
        self._killers = {line for line, count in deaths.items() if count >= KILLED_BY}
        names = [json.loads(line.removeprefix(_LOAD)) for line in self._killers if line.startswith(_LOAD)]
        self.skipped = dict.fromkeys(names, "loading it ended the engine whenever that was tried")
        self._write("attempt")

    def note(self, entry: JournalEntry) -> None:
        """Write down the entry that is about to run."""
        self._write(_line(entry.request))

    def note_load(self, name: str) -> None:
        """Write down the name of the component that is about to be loaded; "" at the end."""
        self._write(f"{_LOAD}{json.dumps(name)}" if name else "loaded")

    def over(self) -> None:
        """Write down that all entries have run, so that none of them is the cause of a later death."""
        self._write(_OVER)

    def without_killers(self, journal: Journal) -> Journal:
        """Return the journal; mark the entries in it that must not be replayed, since attempts have died of them."""
        if not self._killers:
            return journal
        return replace(journal, kept=self._spared(journal.kept), entries=self._spared(journal.entries))

    def _spared(self, entries: Sequence[JournalEntry]) -> tuple[JournalEntry, ...]:
        return tuple(
            replace(entry, state=State.KILLS) if _line(entry.request) in self._killers else entry for entry in entries
        )

    def _write(self, line: str) -> None:
        with contextlib.suppress(OSError):  # if the disk is full, deaths are not counted
            # This runs for each of a thousand components, and is three times as fast as a file object.
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(file, f"{line}\n".encode())
            finally:
                os.close(file)


def _line(request: RequestId) -> str:
    return f"{request.client} {request.seq}"
