"""A namespace with its journal: what an engine does beside running requests, so that they can be run again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from nsactors.core.journal import Entry, Journal, Snapshot, SnapshotPolicy, begin, changes_state, end
from nsactors.core.messages import Outcome, Request
from nsactors.core.payload import Payload
from nsactors.core.recovery import RecoveryReport, recover
from nsactors.namespace.bindings import Bindings
from nsactors.namespace.journal_file import JournalFile
from nsactors.namespace.namespace import Namespace
from nsactors.namespace.snapshot import restore, take

__all__ = ["JournalledNamespace"]


def _nothing(*told: object) -> None:
    """For who does not want to be told."""


class JournalledNamespace:
    """Writes down what a namespace runs, takes its snapshots, and makes it again from a journal.

    All on the thread that runs the requests, :meth:`begin` before one and :meth:`end` after it.

    Args:
        namespace: a namespace as it is when an engine starts.
        folder: for the journal; made here.
        policy: when to take snapshots without being asked.
        ref_types: classes of references to an object store.

    Raises:
        OSError: from every method, if the journal cannot be written. The namespace is sound then, and so is what the
            journal said before.
    """

    def __init__(
        self,
        namespace: Namespace,
        folder: str,
        *,
        policy: SnapshotPolicy | None = None,
        ref_types: tuple[type, ...] = (),
    ) -> None:
        self.file = JournalFile(folder)
        self._namespace = namespace
        self._policy = policy or SnapshotPolicy()
        self._ref_types = ref_types
        self._bindings = Bindings(namespace.names)
        self._snapshot_took_s = 0.0
        self._failed_at = (0, 0.0)  # bytes and seconds of the journal when a snapshot was last due and failed
        self._began = 0.0
        self._is_open = False

    def begin(self, request: Request, payload: Payload | None, *, journalled: bool = True) -> None:
        """Write a request down that is about to run, if it may change the namespace.

        Args:
            request: the request.
            payload: its payload.
            journalled: False if it is not to be repeated.
        """
        self._is_open = changes_state(request.operation)
        if self._is_open:
            self.file.append(begin(request, payload, journalled=journalled))
            self._began = time.monotonic()

    def end(self, outcome: Outcome, *, used_mpi: bool = False, used_service: bool = False) -> Exception | None:
        """Write down how it ended; to be called before it is answered. Takes a snapshot if one is due.

        A snapshot that fails, for one takes more room than a record, leaves a journal that says all that it would have
        said. It is tried again when one would be due after it. Gives what it failed with.

        Args:
            outcome: what the answer will say.
            used_mpi: whether it communicated with engines that may be gone.
            used_service: whether it called services of the cluster.
        """
        if not self._is_open:
            return None
        self._is_open = False
        took_s = time.monotonic() - self._began
        used = {"used_mpi": used_mpi, "used_service": used_service}
        self.file.append(end(outcome, bound=self._bindings.changed(), took_s=took_s, **used))
        return self._snapshot_if_due()

    def snapshot(self) -> Snapshot:
        """Take a snapshot now, between two requests; what it says of names that it leaves out is for the user."""
        return self._snapshot(None)

    def recover(
        self,
        engine_id: int,
        journal: Journal,
        number_cells: Callable[[int], None],
        *,
        runs: Callable[[Entry], object] = _nothing,
        ran: Callable[[Entry, Any, BaseException | None], object] = _nothing,
        shipped_only: bool = False,
    ) -> RecoveryReport:
        """Make the namespace what a journal says. Its own journal then begins with a snapshot.

        What entries print is for the caller to discard; nothing limits the time they take.

        Args:
            engine_id: for the report.
            journal: of the engine's former incarnation.
            number_cells: starts the shell if need be, and tells it the number of its next cell.
            runs: told of each entry that is about to run.
            ran: told of each that has run, its value, and what it raised.
            shipped_only: for the report: whether it is the keeper's copy.
        """
        names = self._namespace.names

        def restore_cells_and_names(snapshot: Snapshot) -> dict[str, str]:
            if snapshot.inputs:
                number_cells(len(snapshot.inputs))  # first: a shell that starts empties the histories
            return restore(snapshot, names)

        def run(entry: Entry) -> str:
            runs(entry)
            try:
                value = self._namespace.run(entry.operation, entry.payload)
            except BaseException as error:  # whatever it raised the first time, SystemExit among it
                ran(entry, None, error)
                return type(error).__name__
            ran(entry, value, None)
            return ""

        report = recover(
            engine_id, journal, restore=restore_cells_and_names, run=run, names=names, shipped_only=shipped_only
        )
        self._bindings.changed()
        self._snapshot(journal.recovered())
        return report

    def _snapshot_if_due(self) -> Exception | None:
        nbytes, replay_s = self.file.grown_bytes, self.file.replay_s
        failed_nbytes, failed_replay_s = self._failed_at
        if self._policy.is_due(nbytes - failed_nbytes, replay_s - failed_replay_s, self._snapshot_took_s):
            try:
                self.snapshot()
            except Exception as error:
                self._failed_at = nbytes, replay_s
                return error
        return None

    def _snapshot(self, journal: Journal | None) -> Snapshot:
        began = time.monotonic()
        snapshot = take(self._namespace.names, ref_types=self._ref_types)
        self.file.cut(snapshot, journal)
        self._snapshot_took_s = time.monotonic() - began
        self._failed_at = (0, 0.0)
        return snapshot
