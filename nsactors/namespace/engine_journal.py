"""An engine's journal through its incarnations: written by one, copied to a keeper, read by the next."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from nsactors.core.cluster import EngineSpec
from nsactors.core.journal import Entry, Journal, Snapshot, State
from nsactors.core.messages import Outcome, Request, RequestId
from nsactors.core.payload import Payload
from nsactors.core.recovery import RecoveryReport
from nsactors.core.shipping import NOWHERE, Batch, Position, Segment, Span, next_span
from nsactors.errors import ConnectionLost, MpiError
from nsactors.namespace.contacts import CONTACTS
from nsactors.namespace.journal_file import JournalCopy, read_journal
from nsactors.namespace.journalling import JournalledNamespace
from nsactors.namespace.mpi_use import MpiUse, barring_mpi
from nsactors.namespace.namespace import Namespace

__all__ = ["EngineJournal", "JournalKeeper"]

BATCH_BYTES = 16_000_000
SHIP_EVERY_S = 0.1
_OVER = "over"  # where an entry would be, and like none of them
KILLED_BY = 2  # times that an entry was running when a recovery died: once may be chance

Answered = Callable[[Entry, Any, BaseException | None], object]


class JournalKeeper(Protocol):
    """Has copies of journals, for when machines are lost. Calls raise ``ConnectionLost`` if it cannot be reached."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is on another machine than the engine that asks."""
        ...

    def accept(self, engine_id: int, incarnation: int, batch: Batch) -> Position:
        """Take a part of a journal; how far the copy goes now."""
        ...

    def segments(self, engine_id: int, incarnation: int) -> Sequence[Segment]:
        """What there is of a journal."""
        ...

    def read(self, engine_id: int, incarnation: int, span: Span) -> Batch:
        """A part of a copy."""
        ...

    def forget(self, engine_id: int, incarnation: int) -> None:
        """A journal is of no use any more."""
        ...


class EngineJournal:
    """What an engine does so that its namespace outlives its process.

    Args:
        spec: the engine.
        namespace: its names, as they are when it starts.
        folder_of: where an incarnation of this engine keeps its journal, if it is on this machine.
        ref_types: classes of references to an object store.
        keeper: of all journals of the cluster, if there is one.

    Raises:
        OSError: if the journal cannot be written.
    """

    def __init__(
        self,
        spec: EngineSpec,
        namespace: Namespace,
        folder_of: Callable[[int], str],
        ref_types: tuple[type, ...],
        keeper: JournalKeeper | None,
    ) -> None:
        self._spec = spec
        self._namespace = namespace
        self._folder_of = folder_of
        self._keeper = keeper
        self._kept = NOWHERE
        self._shipping = threading.Lock()
        self._stopped = False
        self._journalled = JournalledNamespace(namespace, folder_of(spec.incarnation), ref_types=ref_types)
        self._mpi = MpiUse(namespace.names)
        self._contacts = CONTACTS.count

    def recover(self, answered: Answered) -> tuple[RecoveryReport, dict[str, int]]:
        """Make the namespace of the former incarnation again: what became of it, and the last request of each client.

        Args:
            answered: told of each request that was run again, its value, and what it raised.
        """
        began = time.monotonic()
        former = self._spec.recovers
        assert former is not None, "there is a journal to recover from"
        folder = self._folder_of(former)
        shipped_only = not os.path.isdir(folder)
        if shipped_only:
            folder = self._fetched(former)
            if self._keeper is not None:
                self._fetch(former, folder)
            os.makedirs(folder, exist_ok=True)
        attempts = _Attempts(folder)
        journal = attempts.without_killers(read_journal(folder))
        with barring_mpi(MpiError("the MPI world is gone: import MPI again, when the engine is in a new one")):
            report = self._journalled.recover(
                self._spec.engine_id,
                journal,
                self._namespace.number_cells,
                runs=attempts.note,
                ran=answered,
                shipped_only=shipped_only and not self._spec.options.ships_journal,
            )
        attempts.over()
        self._release()
        with contextlib.suppress(ConnectionLost):  # once it counts, the former one's copy is not asked for any more
            self.ship()
        if shipped_only and journal == Journal():
            report = replace(report, lost=(*report.lost, ("its whole namespace", "nothing is left of its journal")))
        return replace(report, took_s=time.monotonic() - began), journal.taken

    def settled(self, closed: threading.Event) -> None:
        """This incarnation counts from now on: its journal is copied as it grows, until ``closed`` is set.

        It begins with all that the former one's said, so that may go. Before, another process might have had to recover
        from it.
        """
        former = self._spec.recovers
        if former is not None:
            shutil.rmtree(self._folder_of(former), ignore_errors=True)
            shutil.rmtree(self._fetched(former), ignore_errors=True)
        if self._keeper is not None:
            threading.Thread(target=self._keep_shipping, args=(self._keeper, closed), daemon=True).start()

    def begin(self, request: Request, payload: Payload | None) -> str:
        """Write down a request that is about to run; what to tell its sender if that fails."""
        self._mpi.begin(request.operation, payload)
        self._contacts = CONTACTS.count
        return self._write(lambda: self._journalled.begin(request, payload, journalled=request.journalled))

    def end(self, outcome: Outcome) -> str:
        """Write down how it ended, before it is answered; as :meth:`begin`."""

        def write() -> str:
            used_service = CONTACTS.count != self._contacts
            failed = self._journalled.end(outcome, used_mpi=self._mpi.used(), used_service=used_service)
            self._release()
            if failed is None:
                return ""
            return (
                f"[nsactors: engine {self._spec.engine_id} could not take a snapshot ({failed}): its journal goes on "
                "without, and a recovery takes longer]\n"
            )

        return self._write(write)

    def snapshot(self) -> Snapshot:
        """Take a snapshot now."""
        snapshot = self._journalled.snapshot()
        self._release()
        return snapshot

    @property
    def ships(self) -> bool:
        """Whether there is another machine to send it to."""
        return self._keeper is not None and self._keeper.is_elsewhere

    @property
    def ships_before_answers(self) -> bool:
        """Whether a request is answered only when its journal is with the keeper."""
        return self.ships and self._spec.options.ships_journal and not self._stopped

    def ship(self) -> bool:
        """Send the keeper what it has not; whether it has everything that there was when this began.

        Raises:
            ConnectionLost: if it cannot be reached.
        """
        if self._keeper is None or not self._keeper.is_elsewhere:
            return False
        file = self._journalled.file
        with self._shipping:
            goal = file.position
            while span := next_span(self._kept, file.segments, BATCH_BYTES):
                batch = file.read_span(span)
                self._kept = self._keeper.accept(self._spec.engine_id, self._spec.incarnation, batch)
                file.release(self._kept)
                if self._kept >= goal:
                    break
        return True

    def _keep_shipping(self, keeper: JournalKeeper, closed: threading.Event) -> None:
        former = self._spec.recovers
        while (self.ships or former is not None) and not closed.wait(SHIP_EVERY_S):
            try:
                self.ship()
                if former is not None:  # only now: the copy of this one's journal was not complete before
                    keeper.forget(self._spec.engine_id, former)
                    former = None
            except ConnectionLost:
                pass  # the keeper is away: it is sent with the next
            except Exception:  # nothing may end this thread
                traceback.print_exc()

    def _fetch(self, incarnation: int, folder: str) -> None:
        assert self._keeper is not None, "it is the keeper's copy that is fetched"
        engine_id = self._spec.engine_id
        # A snapshot that had not arrived whole is of no use; the segment that it was to replace is.
        segments = [segment for segment in self._keeper.segments(engine_id, incarnation) if segment.is_usable]
        copy = JournalCopy(folder)
        while span := next_span(copy.position, segments, BATCH_BYTES):
            copy.accept(self._keeper.read(engine_id, incarnation, span))

    def _fetched(self, incarnation: int) -> str:
        # Not the folder of the journal itself: whoever finds that one takes it for all that was ever written.
        return f"{self._folder_of(incarnation)}.fetched"

    def _release(self) -> None:
        if not self.ships:
            self._journalled.file.release(self._journalled.file.position)

    def _write(self, write: Callable[[], str | None]) -> str:
        if self._stopped:
            return ""
        try:
            return write() or ""
        except Exception as error:  # the disk, mostly; whatever it is, the engine goes on
            self._stopped = True
            return (
                f"[nsactors: engine {self._spec.engine_id} keeps no journal from here on ({error}): if it dies, its "
                "namespace will be recovered as it was before this]\n"
            )


class _Attempts:
    """Which entries were running when attempts at a recovery died; on disk, for those who die cannot tell.

    Args:
        folder: of the journal.
    """

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "attempts")
        try:
            with open(self._path) as file:
                attempts = file.read().split("attempt\n")[1:]
        except FileNotFoundError:
            attempts = []
        deaths = Counter(attempt.splitlines()[-1] for attempt in attempts if attempt)
        self._killers = {request for request, count in deaths.items() if count >= KILLED_BY}
        self._write("attempt")

    def note(self, entry: Entry) -> None:
        """This entry is about to run."""
        self._write(_line(entry.request))

    def over(self) -> None:
        """All have run: what ends this process from now on is none of them."""
        self._write(_OVER)

    def without_killers(self, journal: Journal) -> Journal:
        """The journal, with those not to be run again that attempts have died of."""
        if not self._killers:
            return journal
        return Journal(journal.snapshot, self._spared(journal.kept), self._spared(journal.entries))

    def _spared(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        return tuple(
            replace(entry, state=State.KILLS) if _line(entry.request) in self._killers else entry for entry in entries
        )

    def _write(self, line: str) -> None:
        with open(self._path, "a") as file:
            file.write(line + "\n")


def _line(request: RequestId) -> str:
    return f"{request.client} {request.seq}"
