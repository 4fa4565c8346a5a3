"""Snapshots tried in another process, whatever they do there."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nsactors.errors import exceptions
from nsactors.namespace import clean_interpreter
from nsactors.namespace.clean_interpreter import CleanInterpreter
from nsactors.namespace.forking import Forker
from nsactors.namespace.module_versions import ModuleVersions, SourceStore, sources_folder
from nsactors.namespace.plain_shell import fresh_names
from nsactors.namespace.snapshot import take
from nsactors.protocol.client_modules import ClientModules, OwnModule, digest_of
from nsactors.recovery.journal import Snapshot
from nsactors.recovery.storage import JournalFile
from nsactors.testing import no_process_left_behind, wait_until

# What loading does; the pid of the forking process is written to a file.
ACTING = """
class Acting:
    def __init__(self, code): self.code = code
    def __reduce__(self): return exec, (self.code,)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def interpreter(folder: Path) -> Iterator[CleanInterpreter]:
    interpreter = CleanInterpreter(str(folder))
    yield interpreter
    interpreter.close()


def failures(interpreter: CleanInterpreter, folder: Path, code: str, **values: Any) -> dict[str, str]:
    names = {**fresh_names(), **values}
    exec(compile(ACTING + code, "<test>", "exec", dont_inherit=True), names)
    return tried(interpreter, folder, take(names))


def tried(interpreter: CleanInterpreter, folder: Path, snapshot: Snapshot) -> dict[str, str]:
    file = JournalFile(str(folder / f"{len(os.listdir(folder))}.journal"))
    draft = file.draft(snapshot)
    try:
        return interpreter.failures(draft.path, draft.read())
    finally:
        draft.discard()
        file.close()


def forking_process(interpreter: CleanInterpreter, folder: Path) -> int:
    told = folder / "pid"
    write = f"import os, pathlib; pathlib.Path({str(told)!r}).write_text(str(os.getppid()))"
    assert failures(interpreter, folder, f"pid = Acting({write!r})") == {}
    return int(told.read_text())


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_is_whole_loads(interpreter: CleanInterpreter, folder: Path) -> None:
    code = "import math, functools\n@functools.lru_cache\ndef f(x): return x\nclass C: pass\nc = C()\ndata = [1]"
    assert failures(interpreter, folder, code) == {}


def test_what_loads_in_this_process_alone_is_named(interpreter: CleanInterpreter, folder: Path) -> None:
    code = """
import sys, types
made = sys.modules["made"] = types.ModuleType("made")
exec("class C: pass", vars(made))
c = made.C()
class State:
    def __setstate__(self, state): sys.modules["made"]
state, good = State(), [1]
state.a = 1
del types
"""
    try:
        failed = failures(interpreter, folder, code)
        assert failed == {
            "made": "ModuleNotFoundError: No module named 'made'",
            "c": "ModuleNotFoundError: No module named 'made'",
            "state": "KeyError: 'made'",
        }
    finally:
        del clean_interpreter.sys.modules["made"]


def test_a_class_that_would_be_found_in_this_process_is_not(interpreter: CleanInterpreter, folder: Path) -> None:
    code = "class E(Exception):\n    def __init__(self, a, b): super().__init__(a)\nbad, good = E(1, 2), [1]"
    assert failures(interpreter, folder, code).keys() == {"bad"}


def test_loading_that_ends_the_process_or_never_ends_costs_its_own_name_alone(
    interpreter: CleanInterpreter, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clean_interpreter, "LIMIT_S", 1.0)
    code = """
import os, signal
leaves = Acting("import os; os._exit(0)")
crashes = Acting("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
loops = Acting("while True: pass")
good = [1]
"""
    failed = failures(interpreter, folder, code)
    assert failed.keys() == {"leaves", "crashes", "loops"}
    assert failed["leaves"] == failed["crashes"] == "loading it ends the interpreter"
    assert "to load" in failed["loops"]


def test_a_snapshot_that_ends_one_process_after_the_other_is_given_up(
    interpreter: CleanInterpreter, folder: Path
) -> None:
    code = "\n".join(f"x{k} = Acting('import os; os._exit({k})')" for k in range(clean_interpreter.MOST_DEATHS + 1))
    with pytest.raises(exceptions.SnapshotUnproved, match="5 times"):
        failures(interpreter, folder, code)


def test_what_loading_does_to_its_process_is_gone_with_it(interpreter: CleanInterpreter, folder: Path) -> None:
    assert failures(interpreter, folder, "a = Acting('import os, sys; os.environ.clear(); sys.path.clear()')") == {}
    assert failures(interpreter, folder, "import fractions\na = fractions.Fraction(1)") == {}


def test_the_engines_of_a_folder_share_a_process_that_ends_with_the_last_one(folder: Path) -> None:
    first, second = CleanInterpreter(str(folder / "..")), CleanInterpreter(str(folder / ".."))
    pid = forking_process(first, folder)
    assert forking_process(second, folder) == pid
    first.close()
    assert is_running(pid)
    assert forking_process(second, folder) == pid
    second.close()
    wait_until(lambda: not is_running(pid))


def test_a_process_that_was_killed_is_started_again(interpreter: CleanInterpreter, folder: Path) -> None:
    pid = forking_process(interpreter, folder)
    os.kill(pid, signal.SIGKILL)
    assert forking_process(interpreter, folder) != pid


def test_libraries_that_a_trial_has_imported_are_there_for_the_next_one(
    interpreter: CleanInterpreter, folder: Path
) -> None:
    assert failures(interpreter, folder, "import xmlrpc.client\nused = xmlrpc.client.Binary(b'')") == {}
    code = "seen = Acting('import sys; assert \"xmlrpc.client\" in sys.modules')"
    assert failures(interpreter, folder, code) == {}


def test_a_process_whose_engine_is_killed_while_it_starts_ends_too(tmp_path: Path) -> None:
    program = f"""
import os
from nsactors.namespace import clean_interpreter

start = clean_interpreter._start

def start_and_end(*arguments):
    start(*arguments)
    os._exit(0)

clean_interpreter._start = start_and_end
clean_interpreter._connect({str(tmp_path)!r})
"""
    with no_process_left_behind():
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_paths_too_long_for_a_socket_are_no_hindrance(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    interpreter = CleanInterpreter(str(deep))
    try:
        assert failures(interpreter, tmp_path, "a = [1]") == {}
    finally:
        interpreter.close()


def test_without_another_process_a_snapshot_is_not_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean_interpreter.sys, "executable", "/nowhere/python")
    interpreter = CleanInterpreter(str(tmp_path))
    with pytest.raises(exceptions.SnapshotUnproved, match="/nowhere/python"):
        failures(interpreter, tmp_path, "a = [1]")
    interpreter.close()


def test_a_forking_process_ends_when_it_is_not_asked_for_long() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Forker(None, theirs).run(idle_s=0.01)


def test_values_of_a_clients_own_modules_are_loaded_with_their_version(
    interpreter: CleanInterpreter, folder: Path
) -> None:
    source = b"class Mine: pass\n"
    SourceStore(sources_folder(str(folder))).keep(source)
    module = OwnModule("mine_of_ann", "/nowhere/mine_of_ann.py", digest_of(source), None, 1, True)
    versions = ModuleVersions({}, SourceStore(sources_folder(str(folder))), lambda digests: {})
    try:
        versions.select("ann", ClientModules("ann", (), (module,)))
        mine = importlib.import_module("mine_of_ann")
        snapshot = take({**fresh_names(), "a": mine.Mine()})
        refused = tried(interpreter, folder, snapshot)
        assert list(refused) == ["a"]
        told = replace(snapshot, process={versions.name: versions.value()})
        assert tried(interpreter, folder, told) == {}
    finally:
        versions.close()
        del sys.modules["mine_of_ann"]
