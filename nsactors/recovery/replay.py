"""Replay of a journal: the plan, the report, and slices that recreate a name.

A slice is a program slice (Weiser 1981) over whole requests. An entry that bound a wanted name belongs to the slice.
The names that this entry used are then wanted as well, unless the snapshot has them.

Changes that later entries made to an object without binding its name are not replayed: a generator starts anew, and a
connection is in the state in which it was opened.
"""

from __future__ import annotations

import ast
import dis
import re
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from types import CodeType

from nsactors.protocol.engine_info import Divergence, MayDiffer, NotReplayed, RecoveryReport
from nsactors.protocol.messages import Execute
from nsactors.recovery.journal import Journal, JournalEntry, ProcessState, Snapshot, State

_TYPED = "lines typed in the debugger"
_REMEMBERED = 2_500  # the number of reports and of items that they list, each of about 100 bytes


class RecoveryReports:
    """The last recovery report of each engine, and as many of the newest other reports as fit; oldest first.

    Args:
        limit: the total number of reports and of items listed in them.
    """

    def __init__(self, limit: int = _REMEMBERED) -> None:
        self._limit = limit
        self._reports: list[RecoveryReport] = []

    def __iter__(self) -> Iterator[RecoveryReport]:
        return iter(self._reports)

    def add(self, report: RecoveryReport) -> None:
        """Add a report; older ones may be dropped."""
        reports = [*self._reports, report]
        last = {each.engine_id: each for each in reports}
        excess = sum(map(_size, reports)) - self._limit
        kept = []
        for each in reports:
            if excess > 0 and each is not last[each.engine_id]:
                excess -= _size(each)
            else:
                kept.append(each)
        self._reports = kept  # in one step: other threads may be iterating


def _all_set(state: ProcessState) -> dict[str, str]:
    return {}


def _no_sources(entry: JournalEntry) -> tuple[str, ...]:
    return ()


def recover(
    engine_id: int,
    journal: Journal,
    *,
    restore: Callable[[Snapshot], dict[str, str]],
    run: Callable[[JournalEntry], str],
    names: Container[str],
    set_process: Callable[[ProcessState], dict[str, str]] = _all_set,
    sources: Callable[[JournalEntry], tuple[str, ...]] = _no_sources,
    shipped_only: bool = False,
) -> RecoveryReport:
    """Restore a namespace: its snapshot, then the entries kept for names that it cannot hold, then all later entries.

    Kept entries may change other names when they run again, so the snapshot is restored a second time after them. An
    entry that raises an exception does not end the recovery: when it raised it the first time, later requests still
    ran.

    Args:
        engine_id: the engine, for the report.
        journal: the journal of the namespace.
        restore: restores a snapshot into the namespace; returns names that it could not restore, with the reason.
        run: runs one entry; returns the class of the exception that it raised, or an empty text.
        names: the namespace.
        set_process: sets a recorded state of the process; returns parts that it could not set, with the reason.
        sources: returns the sources that an entry used in its replay and that differ each time.
        shipped_only: whether the journal comes from its replica, for the report.
    """
    replay = _Replay(run, set_process, sources)
    snapshot = journal.snapshot or Snapshot()
    failed: dict[str, str] = {}

    def restore_all() -> dict[str, str]:
        replay.set_process(snapshot.process)  # set it before loading, because loading may need the environment
        failed = restore(snapshot)
        replay.set_process(snapshot.process)  # set it again, because loading may have changed it
        return failed

    if journal.snapshot is not None:
        failed = restore_all()
        if journal.kept:
            replay.all_of(map(_without_history, journal.kept))
            # The second restoration sets the same state again, and finds the same failures.
            replay.not_kept.clear()
            failed = restore_all()
    of_snapshot = replay.count
    missing = [name for name in snapshot.left_out if name not in names]
    replay.all_of(journal.entries)
    # Names that a later request bound or removed are already as that request left them.
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
        may_differ=tuple(replay.may_differ),
        not_kept=tuple(sorted((snapshot.not_kept | replay.not_kept).items())),
        shipped_only=shipped_only,
    )


class _Replay:
    """Replays entries, and records those that it skipped, that ended differently, or that may differ."""

    def __init__(
        self,
        run: Callable[[JournalEntry], str],
        set_process: Callable[[ProcessState], dict[str, str]],
        sources: Callable[[JournalEntry], tuple[str, ...]],
    ) -> None:
        self._run = run
        self._set_process = set_process
        self._sources = sources
        self.count = 0
        self.left_out: list[NotReplayed] = []
        self.diverged: list[Divergence] = []
        self.may_differ: list[MayDiffer] = []
        self.not_kept: dict[str, str] = {}

    def set_process(self, state: ProcessState) -> None:
        """Set parts of the state of the process, forgetting earlier failures to set them."""
        if state:
            failed = self._set_process(state)
            self.not_kept = {name: why for name, why in self.not_kept.items() if name not in state} | failed

    def all_of(self, entries: Iterable[JournalEntry]) -> None:
        for entry in entries:
            # Set the state even before entries that are skipped, because their predecessors left it.
            self.set_process(entry.process)
            if not entry.state.is_replayed:
                self.left_out.append(NotReplayed(entry.request, entry.label, entry.state.reason))
                continue
            self.count += 1
            error = self._run(entry)
            if error != entry.error:
                self.diverged.append(Divergence(entry.request, entry.label, entry.error, error))
            sources = self._sources(entry)
            if entry.state is State.EDITED:
                sources += (_TYPED,)
            if sources:
                self.may_differ.append(MayDiffer(entry.request, entry.label, sources))


def _without_history(entry: JournalEntry) -> JournalEntry:
    """Return the entry without a place in the histories, which contain its cell already."""
    if isinstance(entry.operation, Execute):
        return replace(entry, operation=entry.operation._replace(store_history=False))
    return entry


def _size(report: RecoveryReport) -> int:
    told = report.not_replayed, report.diverged, report.may_differ
    listed = report.restored, report.remade, report.lost, report.not_kept, *told
    return 1 + sum(map(len, listed))


_STORES = frozenset({"STORE_NAME", "STORE_GLOBAL"})
_LOADS = frozenset({"LOAD_NAME", "LOAD_GLOBAL"})
_SHELL_LINE = re.compile(r"^([ \t]*)[%!].*$", re.MULTILINE)


def slice_for(
    entries: Sequence[JournalEntry], wanted: AbstractSet[str], provided: AbstractSet[str]
) -> tuple[JournalEntry, ...]:
    """Return the entries to replay, in order, to recreate the ``wanted`` names.

    Args:
        entries: all entries, oldest first.
        wanted: the missing names.
        provided: the names that exist already.
    """
    open_names = set(wanted) - provided
    known = {name for entry in entries for name in entry.bound}
    kept: list[JournalEntry] = []
    # Go backwards: the last entry that bound a name determines its value, and shows which names it needs.
    for entry in reversed(entries):
        if not open_names:
            break
        stored, used = _names(entry, known)
        bound = open_names.intersection(entry.bound)
        # A new object may have the address of the old object. The name then seems to be bound to the same object. So
        # any entry whose source binds the name may have created the object.
        if bound or open_names & stored:
            kept.append(entry)
            open_names -= bound
            open_names |= used - provided
    return tuple(reversed(kept))


def _names(entry: JournalEntry, known: set[str]) -> tuple[set[str], set[str]]:
    """Return the names that an entry's code binds at its top level, and those that it uses."""
    if entry.state is State.NOT_JOURNALLED or entry.state is State.HELD_REFERENCES:
        return set(), set()
    if isinstance(entry.operation, Execute):
        return _names_of_cell(entry.operation.code, known)
    data = entry.payload.data if entry.payload else b""
    # The code of a function contains the names that it uses as text. Other text may be mistaken for a name; this name
    # is then recreated without need, which costs time and does no harm.
    return set(), {name for name in known if name.encode() in data}


def _names_of_cell(source: str, known: set[str]) -> tuple[set[str], set[str]]:
    # Names that magics and shell commands bind are in the entry's `bound`; only names that they use are missed. If the
    # rest does not compile either, all known words in the source count as used.
    plain = _SHELL_LINE.sub(r"\1pass", source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the user saw them the first time
            code = compile(plain, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except (SyntaxError, ValueError):
        return set(), known.intersection(re.findall(r"\w+", source))
    assert isinstance(code, CodeType)
    stored = {i.argval for i in dis.get_instructions(code) if i.opname in _STORES}
    used = {i.argval for inner in _codes(code) for i in dis.get_instructions(inner) if i.opname in _LOADS}
    return stored, used & known


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
