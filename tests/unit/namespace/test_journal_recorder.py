"""A namespace, its journal, and the namespace made again from it."""

from __future__ import annotations

import errno
import itertools
import os
import random
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.errors import Failure, SnapshotUnproved
from nsactors.namespace import Namespace
from nsactors.namespace.journal_recorder import JournalledNamespace
from nsactors.namespace.plain_shell import Completions, fresh_names
from nsactors.namespace.process_state import EngineProcess
from nsactors.namespace.snapshot import is_users
from nsactors.protocol.engine_info import RecoveryReport
from nsactors.protocol.messages import (
    Apply,
    EngineRequest,
    Execute,
    Failed,
    Ok,
    Operation,
    Outcome,
    Pull,
    Push,
    Reference,
    RequestId,
    Reset,
)
from nsactors.protocol.serialize import Payload, RemoteValue, pack
from nsactors.recovery.journal import Journal, Snapshot, SnapshotPolicy
from nsactors.recovery.storage import JournalFile, read_journal
from tests.unit.namespace.in_process import InProcess, at_once


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

    def __init__(self, folder: str, policy: SnapshotPolicy | None = None, process: EngineProcess | None = None) -> None:
        self.shell: BareShell | None = None
        self.namespace = Namespace(fresh_names(), self._make_shell, keep=no_store)
        self.journalled = JournalledNamespace(
            self.namespace, folder, InProcess(), policy=policy, process=process, in_background=at_once
        )
        self._seq = 0
        self.told: list[Exception] = []

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
        self.journalled.begin(EngineRequest(RequestId("ann", self._seq), operation), payload, journalled=journalled)
        outcome = self._outcome(operation, payload)
        if not dies:
            failed = self.journalled.end(outcome)
            self.told += [failed] if failed else []
        return outcome

    def _outcome(self, operation: Operation, payload: Payload | None) -> Outcome:
        try:
            self.namespace.run(operation, payload)
        except BaseException as error:
            return Failed(Failure.capture(error, engine_id=0, call="a test"))
        return Ok()

    def recover(self, journal: Journal) -> RecoveryReport:
        report = self.journalled.recover(0, journal, self.number_cells)
        self.journalled.prove()
        return report

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
        ("execute: a = 2", "its sender asked not to repeat it")
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


class Refusing:
    """Says of some names that they do not load, or cannot say anything."""

    def __init__(self, *refused: str, fails: bool = False) -> None:
        self._refused = refused
        self._fails = fails

    def failures(self, path: str, snapshot: Snapshot) -> dict[str, str]:
        if self._fails:
            raise SnapshotUnproved("no memory")
        return dict.fromkeys(self._refused, "it does not load")


def test_a_name_that_does_not_load_elsewhere_is_made_again_and_the_others_are_restored(
    engine: Engine, heir: Engine, journal_folder: str
) -> None:
    engine.journalled._prover = Refusing("a")
    engine.run(Execute("a = [1]"))
    engine.run(Execute("b = [2]"))
    assert engine.journalled.snapshot().left_out == {"a": "it does not load"}
    engine.run(Execute("c = [3]"))
    report = heir.recover(read_journal(journal_folder))
    assert heir.names == {"a": [1], "b": [2], "c": [3]}
    assert (report.restored, report.remade, report.replayed, report.lost) == (("b",), ("a",), 1, ())


def test_a_snapshot_that_cannot_be_tried_leaves_the_journal(engine: Engine, heir: Engine, journal_folder: str) -> None:
    engine.journalled._prover = Refusing(fails=True)
    engine.run(Execute("a = [1]"))
    with pytest.raises(SnapshotUnproved, match="no memory"):
        engine.journalled.snapshot()
    report = heir.recover(read_journal(journal_folder))
    assert (heir.names, report.replayed) == ({"a": [1]}, 1)


def test_a_due_snapshot_that_cannot_be_tried_is_told_with_the_next_request(tmp_path: Path) -> None:
    with engine_in(tmp_path, "first", SnapshotPolicy(journal_bytes=1)) as engine:
        engine.journalled._prover = Refusing(fails=True)
        engine.run(Execute("a = [1]"))
        engine.run(Execute("b = [2]"))
        assert [type(error) for error in engine.told] == [SnapshotUnproved] * 2
        assert engine.journalled.file.position.segment == 0


def test_what_runs_while_a_due_snapshot_is_being_tried_is_not_lost(tmp_path: Path) -> None:
    waiting: list[Callable[[], None]] = []
    with engine_in(tmp_path, "first", SnapshotPolicy(journal_bytes=1)) as engine:
        engine.journalled._in_background = waiting.append
        engine.run(Execute("a = [1]"))
        engine.run(Execute("a.append(2)"))
        (prove,) = waiting
        prove()
        engine.run(Execute("a.append(3)"))
        with engine_in(tmp_path, "second") as heir:
            report = heir.recover(read_journal(str(tmp_path / "first")))
            assert (heir.names, report.restored, report.replayed) == ({"a": [1, 2, 3]}, ("a",), 2)


def test_a_snapshot_that_is_asked_for_overtakes_one_that_is_being_tried(tmp_path: Path) -> None:
    waiting: list[Callable[[], None]] = []
    with engine_in(tmp_path, "first", SnapshotPolicy(journal_bytes=1)) as engine:
        engine.journalled._in_background = waiting.append
        engine.run(Execute("a = [1]"))
        engine.run(Execute("a.append(2)"))
        engine.journalled.snapshot()
        engine.run(Execute("b = 3"))
        for prove in waiting:
            prove()
        assert engine.journalled._failed is None
        with engine_in(tmp_path, "second") as heir:
            heir.recover(read_journal(str(tmp_path / "first")))
            assert heir.names == {"a": [1, 2], "b": 3}


def test_until_the_snapshot_of_a_recovery_is_proved_its_journal_says_what_the_former_one_said(
    engine: Engine, heir: Engine, journal_folder: str, tmp_path: Path
) -> None:
    heir.journalled._prover = Refusing(fails=True)
    engine.run(Execute("a = [1]"))
    engine.run(Execute("raise SystemExit"))
    engine.run(Execute("os._exit(1)"), dies=True)
    heir.recover(read_journal(journal_folder))
    heir.run(Execute("a.append(2)"))
    with engine_in(tmp_path, "third") as third:
        report = third.recover(read_journal(str(tmp_path / "second")))
        assert (third.names, report.replayed, report.not_replayed) == ({"a": [1, 2]}, 3, ())


def test_names_that_are_there_from_the_start_are_there_after_a_second_recovery(
    engine: Engine, heir: Engine, journal_folder: str, tmp_path: Path
) -> None:
    heir.journalled._prover = Refusing(fails=True)
    engine.run(Execute("a = 1"))
    heir.recover(read_journal(journal_folder))
    with engine_in(tmp_path, "third") as third:
        third.namespace.names["startup"] = 5
        third.recover(read_journal(str(tmp_path / "second")))
        assert third.names == {"startup": 5, "a": 1}


def test_a_snapshot_that_failed_is_tried_again_when_the_next_would_be_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed_at = []

    def full(file: JournalFile, *args: object) -> None:
        failed_at.append(file.grown_bytes)
        raise OSError(errno.ENOSPC, "no space left")

    with engine_in(tmp_path, "first", SnapshotPolicy(journal_bytes=300)) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(JournalFile, "draft", full)
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


RANDOM = """\
import random
import numpy as np
from sklearn.utils import check_random_state
a = random.random(), random.gauss(), random.sample(range(1000), 3)
b = np.random.rand(), np.random.normal(), np.random.default_rng().random(), np.random.RandomState().rand()
c = check_random_state(None).rand(), list(np.random.permutation(10))
random.shuffle(c[1])
"""


class Incarnations:
    """One engine after the other, each with generators in another state, as in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = -1
        self._process: EngineProcess | None = None
        self.engine = self._start()

    def _start(self) -> Engine:
        if self._process is not None:
            self._process.close()
        self._number += 1
        self._process = EngineProcess()
        random.seed(self._number)
        np.random.seed(self._number)
        return Engine(str(self._folder / str(self._number)), process=self._process)

    def die(self) -> RecoveryReport:
        former = str(self._folder / str(self._number))
        self.engine.close()
        self.engine = self._start()
        return self.engine.recover(read_journal(former))

    def close(self) -> None:
        self.engine.close()
        assert self._process is not None
        self._process.close()


@pytest.fixture
def incarnations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Incarnations]:
    monkeypatch.chdir(tmp_path)
    states = random.getstate(), np.random.get_state()
    environment, path = dict(os.environ), [*sys.path]
    incarnations = Incarnations(tmp_path)
    yield incarnations
    incarnations.close()
    random.setstate(states[0])
    np.random.set_state(states[1])
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path


def values(engine: Engine) -> list[Any]:
    return [engine.names[name] for name in "abc"]


def test_random_numbers_are_the_same_after_a_replay(incarnations: Incarnations) -> None:
    for _ in range(2):
        incarnations.engine.run(Execute(RANDOM))
    expected = values(incarnations.engine)
    incarnations.die()
    assert values(incarnations.engine) == expected


def test_a_snapshot_lets_generators_go_on_where_they_were(incarnations: Incarnations) -> None:
    incarnations.engine.run(Execute(RANDOM))
    incarnations.engine.journalled.snapshot()
    incarnations.engine.run(Execute(RANDOM))
    expected = values(incarnations.engine)
    incarnations.die()
    assert values(incarnations.engine) == expected
    before = random.getstate(), np.random.rand(3).tolist()
    incarnations.die()
    assert random.getstate() == before[0]
    assert np.random.rand(3).tolist() == before[1]


def test_what_is_not_repeated_does_not_move_the_generators_of_what_is(incarnations: Incarnations) -> None:
    incarnations.engine.run(Execute("import random, os; random.seed(1)"))
    incarnations.engine.run(Execute("random.random(); os.environ['SET'] = '1'"), journalled=False)
    incarnations.engine.run(Execute("a = random.random()"))
    expected = incarnations.engine.names["a"]
    del os.environ["SET"]
    incarnations.die()
    assert incarnations.engine.names["a"] == expected
    assert os.environ["SET"] == "1"


def test_the_environment_is_there_after_a_snapshot(incarnations: Incarnations, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    run = incarnations.engine.run
    run(Execute("import os, sys; os.environ['SET'] = '1'; os.chdir('folder'); sys.path.insert(0, '/mine')"))
    incarnations.engine.journalled.snapshot()
    del os.environ["SET"], sys.path[0]
    os.chdir(tmp_path)
    report = incarnations.die()
    assert (os.environ["SET"], os.getcwd(), sys.path[0]) == ("1", str(tmp_path / "folder"), "/mine")
    assert report.is_complete


def test_what_is_made_again_for_a_snapshot_finds_the_process_as_it_was_then(
    incarnations: Incarnations, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "data").write_text("text")
    run = incarnations.engine.run
    run(Execute("import os; os.chdir('folder')"))
    run(Execute("file = open('data')"))
    run(Execute("os.chdir('..')"))
    incarnations.engine.journalled.snapshot()
    incarnations.engine.names["file"].close()
    incarnations.die()
    with incarnations.engine.names["file"] as file:
        assert file.read() == "text"
    assert os.getcwd() == str(tmp_path)


def test_what_could_not_be_set_of_the_process_is_told(incarnations: Incarnations, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    incarnations.engine.run(Execute("import os; os.chdir('folder')"))
    incarnations.engine.journalled.snapshot()
    os.chdir(tmp_path)
    (tmp_path / "folder").rmdir()
    report = incarnations.die()
    assert [name for name, _ in report.not_kept] == ["the working folder"]
    assert "process state not restored: the working folder" in str(report)
    assert not report.is_complete


def test_requests_that_no_replay_repeats_exactly_are_told(engine: Engine, heir: Engine, journal_folder: str) -> None:
    def note(log: list[float]) -> None:
        import time

        log.append(time.time())

    note.__module__ = "__main__"
    engine.run(Execute("import time; time.sleep(0); log = []"))
    engine.run(Execute("began = time.time()"))
    engine.run(Apply("note"), (note, (Reference("log"),), {}))
    engine.run(Apply("getpid"), (os.getpid, (), {}))
    report = heir.recover(read_journal(journal_folder))
    assert [(told.label, told.sources) for told in report.may_differ] == [
        ("execute: began = time.time()", ("the clock",)),
        ("note", ("the clock",)),
    ]
    assert not report.is_complete


def test_attributes_of_modules_that_a_snapshot_loses_are_told(incarnations: Incarnations) -> None:
    import string

    incarnations.engine.run(Execute("import string; string.mine = 5"))
    try:
        assert incarnations.die().is_complete, "the replay has set it again"
        report = incarnations.die()
        assert report.not_kept == (("attributes of modules", "set them again: string.mine"),)
    finally:
        del vars(string)["mine"]


def test_data_that_is_nested_deeply_ends_no_recovery(tmp_path: Path) -> None:
    with engine_in(tmp_path, "0") as engine:
        engine.run(Execute("nested = []\nfor _ in range(100_000): nested = [nested]"))
        engine.run(Execute("first = nested"))
        with engine_in(tmp_path, "1") as again:
            assert again.recover(engine.journalled.file.read()).is_complete
            assert again.names.keys() >= {"nested", "first"}
