"""What a recovery does with a journal, and what it tells people about it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from nsactors.core.journal import Entry, Journal, Snapshot
from nsactors.core.messages import Execute, RequestId

__all__ = ["Divergence", "NotReplayed", "RecoveryReport", "RecoveryReports", "recover"]

_SHOWN = 10
_REMEMBERED = 2_500  # reports and what they list, of about 100 bytes each


class NotReplayed(NamedTuple):
    """A request that was not run again, and why. What it had changed is lost; it can be sent again."""

    request: RequestId
    label: str
    reason: str


class Divergence(NamedTuple):
    """A request that ended otherwise than the first time: classes of what it raised, empty if it completed."""

    request: RequestId
    label: str
    error_then: str
    error_now: str

    def __str__(self) -> str:
        return f"{self.label}: {_ended(self.error_then)} then, {_ended(self.error_now)} now"


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What became of an engine's namespace.

    Attributes:
        engine_id: the engine.
        restored: names whose values come from the snapshot.
        remade: names that no snapshot can hold, made anew by running again what had made them. They are as they were
            then: what later requests did to them was not repeated.
        replayed: how many requests were run again on top of the snapshot.
        not_replayed: those that were not.
        diverged: those that ended otherwise than the first time, the makers of ``remade`` among them.
        lost: names that could not be had back, with the reason.
        shipped_only: the journal comes from its keeper, since the engine's machine is gone: what had not been shipped
            when it went is missing.
        took_s: how long all of that took, in seconds.
    """

    engine_id: int
    restored: tuple[str, ...] = ()
    remade: tuple[str, ...] = ()
    replayed: int = 0
    not_replayed: tuple[NotReplayed, ...] = ()
    diverged: tuple[Divergence, ...] = ()
    lost: tuple[tuple[str, str], ...] = ()
    shipped_only: bool = False
    took_s: float = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether the namespace is as it was when the engine last answered, for all that is known."""
        return not (self.remade or self.not_replayed or self.diverged or self.lost or self.shipped_only)

    def __str__(self) -> str:
        done = [
            _count(len(self.restored), "name", " restored from the snapshot"),
            _count(len(self.remade), "name", " made anew"),
            _count(self.replayed, "request", " replayed"),
        ]
        lines = [f"engine {self.engine_id} is recovered: {', '.join(filter(None, done)) or 'its namespace was empty'}"]
        if self.shipped_only:
            lines.append("  its machine is gone: what was not yet shipped to the journal's keeper is missing")
        lines += _listed("made anew, as they were at first", self.remade)
        lines += _listed("not repeated", (f"{label} ({reason})" for _, label, reason in self.not_replayed))
        lines += _listed("ended otherwise", map(str, self.diverged))
        lines += _listed("lost", (f"{name} ({reason})" for name, reason in self.lost))
        return "\n".join(lines)


class RecoveryReports:
    """The last report of each engine, and of older ones the newest, as far as there is room; oldest first.

    Args:
        limit: how many reports, and items listed in them, there is room for.
    """

    def __init__(self, limit: int = _REMEMBERED) -> None:
        self._limit = limit
        self._reports: list[RecoveryReport] = []

    def __iter__(self) -> Iterator[RecoveryReport]:
        return iter(self._reports)

    def add(self, report: RecoveryReport) -> None:
        """An engine has been recovered; older reports may have to go."""
        reports = [*self._reports, report]
        last = {each.engine_id: each for each in reports}
        excess = sum(map(_size, reports)) - self._limit
        kept = []
        for each in reports:
            if excess > 0 and each is not last[each.engine_id]:
                excess -= _size(each)
            else:
                kept.append(each)
        self._reports = kept  # in one step: others may be reading


def recover(
    engine_id: int,
    journal: Journal,
    *,
    restore: Callable[[Snapshot], dict[str, str]],
    run: Callable[[Entry], str],
    names: Container[str],
    shipped_only: bool = False,
) -> RecoveryReport:
    """Make a namespace again: the snapshot, then what was kept for names it could not hold, then all that came after.

    What was kept may have changed other names when it runs again, so the snapshot is restored once more after it. An
    entry that raises does not end the recovery: those after it were run at the time, too.

    Args:
        engine_id: for the report.
        journal: what is known of the namespace.
        restore: makes a namespace what a snapshot says, except for the names left out of it; gives names that it
            could not restore, with the reason.
        run: runs one entry; gives the class of what it raised, or an empty text.
        names: the namespace.
        shipped_only: for the report.
    """
    replay = _Replay(run)
    snapshot = journal.snapshot or Snapshot()
    failed: dict[str, str] = {}
    if journal.snapshot is not None:
        failed = restore(snapshot)
        if journal.kept:
            replay.all_of(map(_without_history, journal.kept))
            failed = restore(snapshot)
    of_snapshot = replay.count
    missing = [name for name in snapshot.left_out if name not in names]
    replay.all_of(journal.entries)
    # What a later request bound or removed is as that request left it.
    settled = {name for entry in journal.entries if entry.state.is_replayed for name in entry.bound}
    lost = failed | {name: snapshot.left_out[name] for name in missing}
    return RecoveryReport(
        engine_id,
        restored=tuple(sorted(snapshot.names - failed.keys())),
        remade=tuple(sorted(snapshot.left_out.keys() - set(missing) - settled)),
        replayed=replay.count - of_snapshot,
        not_replayed=tuple(replay.left_out),
        diverged=tuple(replay.diverged),
        lost=tuple(sorted((name, reason) for name, reason in lost.items() if name not in settled)),
        shipped_only=shipped_only,
    )


class _Replay:
    """Runs entries again, and notes which it did not, and which ended otherwise."""

    def __init__(self, run: Callable[[Entry], str]) -> None:
        self._run = run
        self.count = 0
        self.left_out: list[NotReplayed] = []
        self.diverged: list[Divergence] = []

    def all_of(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if not entry.state.is_replayed:
                self.left_out.append(NotReplayed(entry.request, entry.label, entry.state.reason))
                continue
            self.count += 1
            error = self._run(entry)
            if error != entry.error:
                self.diverged.append(Divergence(entry.request, entry.label, entry.error, error))


def _without_history(entry: Entry) -> Entry:
    """The entry as one whose cell has a place in the histories already."""
    if isinstance(entry.operation, Execute):
        return replace(entry, operation=entry.operation._replace(store_history=False))
    return entry


def _size(report: RecoveryReport) -> int:
    listed = report.restored, report.remade, report.not_replayed, report.diverged, report.lost
    return 1 + sum(map(len, listed))


def _ended(error: str) -> str:
    return f"raised {error}" if error else "completed"


def _count(number: int, noun: str, what: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}{what}" if number else ""


def _listed(title: str, items: Iterable[str]) -> list[str]:
    texts = list(items)
    if not texts:
        return []
    more = [f"and {len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else []
    return [f"  {title}: {'; '.join(texts[:_SHOWN] + more)}"]
