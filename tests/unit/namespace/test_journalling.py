"""A namespace, its journal, and the namespace made again from it."""

from __future__ import annotations

import errno
import itertools
import os
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.core.journal import Journal, SnapshotPolicy
from nsactors.core.messages import Apply, Execute, Failed, Ok, Operation, Outcome, Pull, Push, Request, RequestId, Reset
from nsactors.core.payload import Payload, pack
from nsactors.core.recovery import RecoveryReport
from nsactors.core.remote_value import RemoteValue
from nsactors.errors import Failure
from nsactors.namespace import Namespace
from nsactors.namespace.bindings import is_users
from nsactors.namespace.journal_file import JournalFile, read_journal
from nsactors.namespace.journalling import JournalledNamespace
from nsactors.namespace.plain_shell import fresh_names
from nsactors.namespace.shell import Completions


class BareShell:
    """A shell that runs cells and keeps what has run."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names
        self.execution_count = 1
        names.update(In=[""], Out={})

    def run_cell(self, code: str, *, silent: bool, store_history: bool) -> None:
        if store_history and not silent:
            self.names["In"].append(code)
            self.execution_count += 1
        exec(code, self.names)

    def reset(self) -> None:
        self.names.clear()
        self.names.update(fresh_names(), In=[""], Out={})

    def complete(self, code: str, cursor: int) -> Completions:
        raise NotImplementedError

    def inspect(self, name: str, detail: int) -> str | None:
        raise NotImplementedError


def no_store(name: str, value: Any) -> RemoteValue:
    raise NotImplementedError


class Engine:
    """Runs requests as an engine does."""

    def __init__(self, folder: str, policy: SnapshotPolicy | None = None) -> None:
        self.shell: BareShell | None = None
        self.namespace = Namespace(fresh_names(), self._make_shell, keep=no_store)
        self.journalled = JournalledNamespace(self.namespace, folder, policy=policy)
        self._seq = 0

    def _make_shell(self, names: dict[str, Any]) -> BareShell:
        self.shell = BareShell(names)
        return self.shell

    def number_cells(self, number: int) -> None:
        self.namespace.run(Execute("", silent=True), None)
        assert self.shell is not None
        self.shell.execution_count = number

    @property
    def names(self) -> dict[str, Any]:
        """The user's."""
        return {name: value for name, value in self.namespace.names.items() if is_users(name, value)}

    def run(
        self, operation: Operation, value: object = None, *, journalled: bool = True, dies: bool = False
    ) -> Outcome:
        payload = None if value is None else pack(value)
        self._seq += 1
        self.journalled.begin(Request(RequestId("ann", self._seq), operation), payload, journalled=journalled)
        outcome = self._outcome(operation, payload)
        if not dies:
            self.journalled.end(outcome)
        return outcome

    def _outcome(self, operation: Operation, payload: Payload | None) -> Outcome:
        try:
            self.namespace.run(operation, payload)
        except BaseException as error:
            return Failed(Failure.capture(error, engine_id=0, call="a test"))
        return Ok()

    def recover(self, journal: Journal) -> RecoveryReport:
        return self.journalled.recover(0, journal, self.number_cells)

    def close(self) -> None:
        self.journalled.file.close()


@contextmanager
def engine_in(parent: str | Path, name: str, policy: SnapshotPolicy | None = None) -> Iterator[Engine]:
    engine = Engine(os.path.join(parent, name), policy)
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with engine_in(tmp_path, "first") as engine:
        yield engine


@pytest.fixture
def heir(tmp_path: Path) -> Iterator[Engine]:
    with engine_in(tmp_path, "second") as heir:
        yield heir


@pytest.fixture
def journal_folder(tmp_path: Path) -> str:
    return str(tmp_path / "first")


NAMES = ["a", "b", "c"]
CELLS = [
    "{0} = {2}",
    "{0} = [{2}]",
    "{0} = {1}",
    "{0} = [{1}, {1}]",
    "{0}.append({2})",
    "{0}.append({1})",
    "del {0}",
    "{0} = {2}; {1} = 1 / 0",
    "def {0}(): return {1}",
    "{0} = {1}()",
    "class {0}: size = {2}",
    "import math as {0}",
    "{0} = (i for i in range({2}))",
    "{0} = __import__('threading').Lock()",
    "raise SystemExit",
]


def add(name: str, value: Any) -> None:
    globals()[name] = globals().get(name, 0) + value


add.__module__ = "__main__"  # goes by value, as a user's

cells = st.builds(str.format, st.sampled_from(CELLS), st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(0, 5))
steps = st.one_of(
    cells.map(lambda code: (Execute(code), None)),
    st.dictionaries(st.sampled_from(NAMES), st.integers() | st.lists(st.integers())).map(lambda ns: (Push(), ns)),
    st.tuples(st.sampled_from(NAMES), st.integers(0, 5)).map(lambda args: (Apply("add"), (add, args, {}))),
    st.just((Reset(), None)),
    st.just((Pull(("a",), True), None)),
    st.just("snapshot"),
)


def described(names: dict[str, Any]) -> dict[str, Any]:
    """Values in a form that can be compared, and which of them are one object."""
    seen: dict[int, str] = {}

    def describe(value: Any) -> Any:
        if isinstance(value, list | types.FunctionType | type) and id(value) in seen:
            return f"as {seen[id(value)]}"
        seen[id(value)] = f"object {len(seen)}"
        match value:
            case list():
                return [describe(item) for item in value]
            case type():
                return "class", value.__name__, getattr(value, "size", None)
            case types.FunctionType():
                return "function", value.__code__.co_names
            case int() | types.ModuleType():
                return value
            case _ if not isinstance(getattr(type(value), "size", None), int):
                return type(value)
            case _:
                return "instance", describe(type(value))

    return {name: describe(value) for name, value in sorted(names.items())}


@given(st.lists(steps, max_size=15), st.sampled_from([None, *CELLS]), st.booleans())
def test_whatever_was_answered_before_a_crash_is_there_after_it(
    happened: list[Any], last: str | None, again: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder, engine_in(folder, "0") as engine:
        for step in happened:
            if step == "snapshot":
                engine.journalled.snapshot()
            else:
                engine.run(*step)
        expected = described(engine.names)
        if last is not None:
            engine.run(Execute(last.format("a", "b", 3)), dies=True)
        for number in ("1", "2") if again else ("1",):
            with engine_in(folder, number) as heir:
                report = heir.recover(read_journal(os.path.join(folder, str(int(number) - 1))))
                assert described(heir.names) == expected, str(report)
                assert report.lost == ()
                assert report.diverged == ()
                assert len(report.not_replayed) == (last is not None and number == "1")


@given(st.lists(steps.filter(lambda step: step != "snapshot"), max_size=8), st.data())
def test_a_journal_cut_off_anywhere_gives_what_had_been_answered_by_then(
    happened: list[Any], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder, engine_in(folder, "0") as engine:
        start = engine.journalled.file.position.offset
        states = [(start, described(engine.names))]
        for step in happened:
            engine.run(*step)
            states.append((engine.journalled.file.position.offset, described(engine.names)))
        length = data.draw(st.integers(start, states[-1][0]))
        os.truncate(os.path.join(folder, "0", "0.journal"), length)
        with engine_in(folder, "1") as heir:
            heir.recover(read_journal(os.path.join(folder, "0")))
            assert described(heir.names) == [state for end, state in states if end <= length][-1]


def test_what_cannot_be_pickled_is_made_again(
    engine: Engine, heir: Engine, journal_folder: str, tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("text")
    engine.run(Push(), {"path": str(tmp_path / "data")})
    engine.run(Execute("n = 0; file = open(path)"))
    engine.run(Execute("n = 5"))
    engine.journalled.snapshot()
    report = heir.recover(read_journal(journal_folder))
    with engine.names["file"], heir.names["file"] as file:
        assert file.read() == "text"
    assert heir.names["n"] == 5
    assert (report.restored, report.remade, report.replayed) == (("n", "path"), ("file",), 0)


def test_what_is_not_to_be_repeated_is_not(engine: Engine, heir: Engine, journal_folder: str) -> None:
    engine.run(Execute("a = 1"))
    engine.run(Execute("a = 2"), journalled=False)
    report = heir.recover(read_journal(journal_folder))
    assert heir.names == {"a": 1}
    assert [(label, reason) for _, label, reason in report.not_replayed] == [
        ("execute: a = 2", "it was sent as not to be repeated")
    ]


def test_reading_is_not_written_down(engine: Engine) -> None:
    before = engine.journalled.file.position
    engine.run(Pull(("nothing",), single=True))
    assert engine.journalled.file.position == before


def test_histories_go_on_after_a_recovery(engine: Engine, heir: Engine, journal_folder: str) -> None:
    engine.run(Execute("a = 1"))
    engine.journalled.snapshot()
    engine.run(Execute("b = 2"))
    heir.recover(read_journal(journal_folder))
    assert heir.namespace.names["In"] == ["", "a = 1", "b = 2"]
    assert heir.namespace.execution_count == 3


def test_snapshots_are_taken_when_they_are_due(tmp_path: Path) -> None:
    with engine_in(tmp_path, "first", SnapshotPolicy(journal_bytes=300)) as engine:
        for n in range(20):
            engine.run(Execute(f"a = {n}"))
        assert engine.journalled.file.position.segment > 2
        assert engine.journalled.file.grown_bytes < 300


def test_a_snapshot_that_failed_is_tried_again_when_the_next_would_be_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed_at = []

    def full(file: JournalFile, *args: object) -> None:
        failed_at.append(file.grown_bytes)
        raise OSError(errno.ENOSPC, "no space left")

    with engine_in(tmp_path, "first", SnapshotPolicy(journal_bytes=300)) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(JournalFile, "cut", full)
            for n in range(20):
                engine.run(Execute(f"a = {n}"))
        assert len(failed_at) > 2
        assert all(after - before >= 300 for before, after in itertools.pairwise([0, *failed_at]))
        for n in range(20):
            engine.run(Execute(f"a = {n}"))
        assert engine.journalled.file.position.segment > 2
        assert engine.journalled.file.grown_bytes < 300


def test_after_a_recovery_the_journal_begins_with_what_was_recovered(
    engine: Engine, heir: Engine, journal_folder: str
) -> None:
    engine.run(Execute("a = [1]"))
    engine.run(Execute("os._exit(1)"), dies=True)
    heir.recover(read_journal(journal_folder))
    journal = heir.journalled.file.read()
    assert journal.snapshot is not None
    assert (journal.snapshot.names, journal.taken, journal.entries) == ({"a"}, {"ann": 2}, ())
