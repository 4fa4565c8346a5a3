from __future__ import annotations

import pickle

import pytest

from nsactors.protocol.engine_info import RecoveryReport
from nsactors.protocol.messages import Apply, Execute, RequestId
from nsactors.protocol.serialize import Payload
from nsactors.recovery.journal import Journal, JournalEntry, ProcessState, Snapshot, State
from nsactors.recovery.replay import RecoveryReports, recover, slice_for


def entry(code: str, state: State = State.COMPLETED, error: str = "", *bound: str, **process: int) -> JournalEntry:
    return JournalEntry(RequestId("ann", 1), Execute(code), None, state, error, bound, process=process)


class Recovery:
    """A namespace that notes what is done to it; cells are ``name`` or ``name!Error``."""

    def __init__(self, unrestorable: dict[str, str] | None = None) -> None:
        self.steps: list[str] = []
        self.in_history: list[str] = []
        self.names: set[str] = set()
        self._unrestorable = unrestorable or {}

    def of(self, journal: Journal) -> RecoveryReport:
        functions = {"set_process": self._set_process, "sources": lambda entry: ("the clock",) * ("now" in entry.label)}
        return recover(3, journal, restore=self._restore, run=self._run, names=self.names, **functions)

    def _set_process(self, state: ProcessState) -> dict[str, str]:
        self.steps.append(f"set {' '.join(state)}".strip())
        return {name: "no" for name in state if name.startswith("bad")}

    def _restore(self, snapshot: Snapshot) -> dict[str, str]:
        self.steps.append("restore")
        return self._unrestorable

    def _run(self, entry: JournalEntry) -> str:
        assert isinstance(entry.operation, Execute)
        name, _, error = entry.operation.code.partition("!")
        self.steps.append(name)
        if entry.operation.store_history:
            self.in_history.append(name)
        self.names.add(name)
        return error


def test_entries_are_replayed_in_order() -> None:
    recovery = Recovery()
    report = recovery.of(Journal(None, (), (entry("a"), entry("b"))))
    assert recovery.steps == ["a", "b"]
    assert report == RecoveryReport(3, replayed=2)
    assert report.is_complete


def test_a_request_that_was_changed_in_the_debugger_is_replayed_and_named() -> None:
    recovery = Recovery()
    report = recovery.of(Journal(None, (), (entry("now", State.EDITED), entry("b", State.EDITED))))
    assert recovery.steps == ["now", "b"]
    assert list(map(str, report.may_differ)) == [
        "execute: now (uses the clock, lines typed in the debugger)",
        "execute: b (uses lines typed in the debugger)",
    ]


def test_the_snapshot_is_restored_again_after_what_was_kept_for_it() -> None:
    recovery = Recovery()
    journal = Journal(Snapshot(modules={"np": "numpy"}, left_out={"f": "no"}), (entry("f"),), (entry("a"),))
    report = recovery.of(journal)
    assert recovery.steps == ["restore", "f", "restore", "a"]
    assert recovery.in_history == ["a"], "the snapshot has the others"
    assert (report.restored, report.remade, report.replayed) == (("np",), ("f",), 1)
    assert not report.is_complete


def test_a_snapshot_without_gaps_is_restored_once() -> None:
    recovery = Recovery()
    recovery.of(Journal(Snapshot(), (), ()))
    assert recovery.steps == ["restore"]


def test_the_process_is_set_before_and_after_a_snapshot_and_before_each_entry() -> None:
    recovery = Recovery()
    snapshot = Snapshot(process={"s": 1})
    entries = (entry("a", random=1), entry("b"), entry("c", State.INTERRUPTED, folder=1))
    recovery.of(Journal(snapshot, (), entries))
    assert recovery.steps == ["set s", "restore", "set s", "set random", "a", "b", "set folder"]


def test_what_cannot_be_set_of_the_process_is_told_unless_it_is_set_later() -> None:
    snapshot = Snapshot(process={"bad": 1, "bad2": 1}, not_kept={"other": "why"})
    report = Recovery().of(Journal(snapshot, (), (entry("a", good=1),)))
    assert report.not_kept == (("bad", "no"), ("bad2", "no"), ("other", "why"))
    assert not report.is_complete


def test_requests_that_use_what_is_another_each_time_are_told() -> None:
    report = Recovery().of(Journal(None, (), (entry("a"), entry("now"), entry("now", State.INTERRUPTED))))
    assert list(map(str, report.may_differ)) == ["execute: now (uses the clock)"]
    assert not report.is_complete


def test_what_must_not_be_repeated_is_said_and_not_run() -> None:
    states = [state for state in State if not state.is_replayed]
    recovery = Recovery()
    report = recovery.of(Journal(None, (), tuple(entry(state.name, state) for state in states)))
    assert recovery.steps == []
    assert [reason for _, _, reason in report.not_replayed] == [state.reason for state in states]


def test_a_request_that_fails_as_it_did_is_no_divergence() -> None:
    report = Recovery().of(Journal(None, (), (entry("a!KeyError", State.FAILED, "KeyError"),)))
    assert (report.replayed, report.diverged) == (1, ())


def test_a_request_that_ends_otherwise_is_reported_and_the_next_one_runs() -> None:
    recovery = Recovery()
    report = recovery.of(Journal(None, (), (entry("a!KeyError"), entry("b", State.FAILED, "OSError"), entry("c"))))
    assert recovery.steps == ["a", "b", "c"]
    assert [str(divergence) for divergence in report.diverged] == [
        "execute: a!KeyError: completed then, raised KeyError now",
        "execute: b: raised OSError then, completed now",
    ]


def test_names_that_nobody_could_make_are_lost_with_their_reason() -> None:
    report = Recovery({"x": "broken"}).of(Journal(Snapshot(modules={"x": "x"}, left_out={"f": "cannot pickle"})))
    assert report.lost == (("f", "cannot pickle"), ("x", "broken"))
    assert report.restored == ()


def test_a_name_that_a_later_request_bound_or_removed_is_neither_lost_nor_as_it_was_at_first() -> None:
    snapshot = Snapshot(left_out={"f": "no", "g": "no"})
    later = entry("x", State.COMPLETED, "", "f", "g")
    report = Recovery().of(Journal(snapshot, (entry("g"),), (later,)))
    assert (report.lost, report.remade) == ((), ())


def test_the_report_reads_well_and_travels() -> None:
    report = RecoveryReport(
        3, ("a", "b"), ("f",), 1, lost=(("s", "cannot pickle 'socket'"),), shipped_only=True, not_replayed=()
    )
    assert str(report).splitlines() == [
        "engine 3 is recovered: 2 names restored from the snapshot, 1 name recreated, 1 request replayed",
        "  its machine is lost: requests that were not yet replicated to another machine are missing",
        "  recreated with their first values: f",
        "  lost: s (cannot pickle 'socket')",
    ]
    assert pickle.loads(pickle.dumps(report)) == report


def test_long_lists_are_cut_in_the_text() -> None:
    report = RecoveryReport(0, lost=tuple((f"n{i}", "why") for i in range(12)))
    assert str(report).endswith("n9 (why); and 2 more")


def test_nothing_to_recover_is_said() -> None:
    assert str(RecoveryReport(0)) == "engine 0 is recovered: its namespace was empty"


def reports(*sizes: tuple[int, int]) -> list[RecoveryReport]:
    """Reports of engines that list so many names."""
    return [RecoveryReport(engine_id, restored=tuple(map(str, range(size)))) for engine_id, size in sizes]


def test_reports_are_remembered_in_the_order_in_which_they_came() -> None:
    remembered = RecoveryReports()
    for report in (given := reports((1, 3), (0, 2), (1, 4))):
        remembered.add(report)
    assert list(remembered) == given


def test_the_oldest_reports_are_forgotten_when_there_is_no_room_for_what_they_list() -> None:
    remembered = RecoveryReports(limit=20)
    for report in (given := reports((0, 8), (0, 8), (0, 8))):
        remembered.add(report)
    assert list(remembered) == given[1:]


def test_the_last_report_of_each_engine_is_remembered_however_much_it_lists() -> None:
    remembered = RecoveryReports(limit=20)
    for report in (given := reports((0, 50), (1, 50), (0, 70))):
        remembered.add(report)
    assert list(remembered) == given[1:]


def test_reports_that_list_nothing_need_room_too() -> None:
    remembered = RecoveryReports(limit=20)
    for report in reports(*[(0, 0)] * 100):
        remembered.add(report)
    assert len(list(remembered)) == 20


def cell(code: str, *bound: str, state: State = State.COMPLETED) -> JournalEntry:
    return JournalEntry(RequestId("ann", 1), Execute(code), None, state, bound=bound)


def test_the_last_entry_that_bound_a_name_makes_it() -> None:
    entries = [cell("f = open(a)", "f"), cell("f = open(b)", "f"), cell("n = 1", "n")]
    assert slice_for(entries, {"f"}, {"n"}) == (entries[1],)


def test_what_it_was_made_of_is_made_before_it() -> None:
    entries = [cell("db = connect()", "db"), cell("n = 3", "n"), cell("cursor = db.cursor()", "cursor")]
    assert slice_for(entries, {"cursor"}, {"n"}) == (entries[0], entries[2])


def test_what_the_snapshot_has_need_not_be_made() -> None:
    entries = [cell("path = find()", "path"), cell("f = open(path)", "f")]
    assert slice_for(entries, {"f"}, {"path"}) == (entries[1],)


def test_a_name_inside_a_function_is_used_but_not_bound() -> None:
    entries = [
        cell("lock = Lock()", "lock"),
        cell("def g():\n    lock = 1", "g"),
        cell("def h():\n    return lock", "h"),
    ]
    assert slice_for(entries, {"lock"}, {"g", "h"}) == (entries[0],)
    assert slice_for(entries, {"h"}, {"g"}) == (entries[0], entries[2])


def test_a_function_that_was_applied_uses_the_names_in_its_code() -> None:
    made = JournalEntry(RequestId("ann", 2), Apply("f"), Payload(b"..connection.."), State.COMPLETED, bound=("cursor",))
    entries = [cell("connection = connect()", "connection"), made]
    assert slice_for(entries, {"cursor"}, set()) == tuple(entries)


def test_an_entry_that_seems_to_have_bound_the_same_object_again_is_kept_and_so_is_the_one_before() -> None:
    entries = [cell("f = open(a)", "f"), cell("f = None; f = open(b)")]
    assert slice_for(entries, {"f"}, set()) == tuple(entries)


@pytest.mark.parametrize("code", ["%%time\nf = open(path)", "if True:\n    !ls\nf = open(path)", "f = await path"])
def test_cells_of_ipython_are_understood(code: str) -> None:
    entries = [cell("path = 1", "path"), cell(code, "f")]
    assert slice_for(entries, {"f"}, set()) == tuple(entries)


def test_a_cell_that_is_not_python_uses_every_name_in_it() -> None:
    entries = [cell("path = 1", "path"), cell("other = 1", "other"), cell("f = !cat {path}", "f")]
    assert slice_for(entries, {"f"}, set()) == (entries[0], entries[2])


def test_an_entry_that_cannot_be_repeated_stands_for_what_it_made() -> None:
    entries = [cell("f = open(a)", "f"), cell("f = open(b)", "f", state=State.NOT_JOURNALLED)]
    assert slice_for(entries, {"f"}, set()) == (entries[1],)


def test_what_no_entry_made_keeps_nothing() -> None:
    assert slice_for([cell("n = 1", "n")], {"f"}, {"n"}) == ()
