"""Stacks of other processes are read from what py-spy and Python's fault handler write."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nsactors.inside import processes
from nsactors.inside.processes import read_processes, refusal, spied_threads, written_threads
from nsactors.namespace import interrupts
from nsactors.testing import TIMEOUT_S, open_gate

HERE = interrupts.__file__
CELL = "<engine 3, cell 7>"


def frame(name: str, file: str, line: int) -> dict[str, Any]:
    return {"name": name, "filename": file, "line": line}


def thread(ident: int, name: str | None, *frames: dict[str, Any]) -> dict[str, Any]:
    return {"os_thread_id": ident, "thread_name": name, "frames": list(frames)}


REQUESTS = thread(
    42,
    "MainThread",
    frame("sum_up", "/home/me/model.py", 5),
    frame("<module>", CELL, 2),
    frame("run_user_code", HERE, 50),
    frame("EngineActor.handle", "/x/engine_actor.py", 300),
)


def test_the_thread_of_requests_comes_first_and_begins_with_the_users_code() -> None:
    library = thread(43, "ray", frame("poll", os.__file__, 1))
    own = thread(44, None, frame("worker", "/home/me/model.py", 9))
    found = spied_threads([library, own, REQUESTS], 42)
    assert [one.name for one in found] == ["requests", "without a name"]
    assert [(one.function, one.file, one.line) for one in found[0].frames] == [
        ("<module>", "<cell 7>", 2),
        ("sum_up", "/home/me/model.py", 5),
    ]


def test_an_idle_engine_has_no_functions() -> None:
    assert spied_threads([thread(42, "MainThread", frame("main_loop", "/x/ray/worker.py", 1))], 42)[0].frames == ()


def test_functions_of_c_code_are_not_the_users_own() -> None:
    sleep = frame("clock_nanosleep", "/usr/lib/libc.so.6", 0)
    (found,) = spied_threads([thread(42, "MainThread", sleep, *REQUESTS["frames"])], 42)
    assert [(one.function, one.own) for one in found.frames[-2:]] == [("sum_up", True), ("clock_nanosleep", False)]


def test_what_the_fault_handler_writes_is_read_the_oldest_thread_first() -> None:
    text = f"""Thread 0x00007f01 (most recent call first):
  File "/home/me/model.py", line 9 in worker

Current thread 0x00007f00 (most recent call first):
  File "/home/me/model.py", line 5 in sum_up
  File "{CELL}", line 2 in <module>
  File "{HERE}", line 50 in run_user_code
  File "/x/engine_actor.py", line 300 in handle
"""
    found = written_threads(text)
    assert [one.name for one in found] == ["requests", "0x00007f01"]
    assert [(one.function, one.line) for one in found[0].frames] == [("<module>", 2), ("sum_up", 5)]


@pytest.mark.parametrize(
    ("error", "scope", "remedy"),
    [
        ("Error: Permission denied (os error 13)", "1", "ptrace_scope is 1"),
        ("Error: Operation not permitted (os error 1)", "0", "SYS_PTRACE"),
        ("Error: Permission Denied: Try running again with elevated permissions", "", "SYS_PTRACE"),
        ("Error: Failed to get process executable name.\n\nCaused by:\n", "", "Failed to get process executable name"),
        ("", "", "it gives no reason"),
    ],
)
def test_a_refusal_is_told_with_its_remedy(error: str, scope: str, remedy: str) -> None:
    assert remedy in refusal(error, scope)


def test_without_py_spy_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "py_spy", lambda: None)
    (found,) = read_processes([os.getpid()])
    assert found.threads == ()
    assert "pip install nsactors[inside]" in found.note


@pytest.mark.parametrize(
    ("script", "note"),
    [
        ("exit 1", "it gives no reason"),
        ("echo not JSON", "a form that is not known"),
        ("echo '[{}]'", "a form that is not known"),
        ("sleep 20", "did not end within"),
    ],
)
def test_a_py_spy_that_fails_is_told(script: str, note: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "py-spy"
    program.write_text(f"#!/bin/sh\n{script.replace('sleep', 'exec sleep')}\n")
    program.chmod(0o700)
    monkeypatch.setattr(processes, "py_spy", lambda: os.fspath(program))
    monkeypatch.setattr(processes, "READ_S", 0.1 if "sleep" in script else 10.0)
    (found,) = read_processes([os.getpid()])
    assert note in found.note


def test_a_process_that_has_gone_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "py_spy", lambda: None)
    gone = tmp_path / "stacks"
    gone.touch()
    (found,) = read_processes([2**22 + 1], [os.fspath(gone)])
    assert "could not be sent a signal: No such process" in found.note


PROGRAM = """
import pickle, sys
from nsactors.inside.processes import StackFile
from nsactors.namespace.interrupts import run_user_code

kept = StackFile(sys.argv[1])
run_user_code(pickle.loads(bytes.fromhex(sys.argv[2])))
"""


@pytest.mark.parametrize(
    "by_signal",
    [True, pytest.param(False, marks=pytest.mark.skipif(processes.py_spy() is None, reason="py-spy is not installed"))],
    ids=["signal", "py-spy"],
)
def test_a_process_whose_interpreter_is_held_by_c_code_is_read(
    by_signal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "READ_S", TIMEOUT_S)
    monkeypatch.setattr(processes, "WRITTEN_S", TIMEOUT_S)
    file = os.fspath(tmp_path / "stacks")
    if by_signal:
        monkeypatch.setattr(processes, "py_spy", lambda: None)
    with open_gate(tmp_path / "gate") as gate:
        command = [sys.executable, "-c", PROGRAM, file, pickle.dumps(gate.pass_holding_gil).hex()]
        with subprocess.Popen(command) as process:
            gate.wait_arrived()
            (found,) = read_processes([process.pid], [file] if by_signal else [])
            gate.open()
    if "A signal needs no permission" in found.note:
        pytest.skip(found.note)
    assert (found.note, found.threads[0].name) == ("", "requests")
    assert found.threads[0].frames[0].function.endswith("pass_through")
    assert process.returncode == 0


def test_py_spy_is_looked_for_beside_the_interpreter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "py-spy").touch(0o700)
    monkeypatch.setattr(sys, "executable", os.fspath(tmp_path / "python"))
    assert processes.py_spy() == os.fspath(tmp_path / "py-spy")
