"""The command that measures, with systems that do not run."""

from __future__ import annotations

from pathlib import Path

import pytest

import benchmarks.__main__ as command
from benchmarks.operations.process import SystemFailed
from benchmarks.operations.turns import Turn


class ScriptedSystem:
    """A system that answers at once, unless it is one of those that do not start."""

    broken: frozenset[str] = frozenset()

    def __init__(self, name: str, engines: int) -> None:
        if name in self.broken:
            raise SystemFailed(f"{name} timed out")
        self.start = Turn([1.0], 1.0)

    def measure(self, operation: str, engines: int, runs: int) -> Turn:
        return Turn([0.001], 0.001)

    def close(self) -> None:
        """There is nothing to end."""


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "SystemProcess", ScriptedSystem)
    monkeypatch.setattr(command, "RESULTS", tmp_path)


def test_a_system_that_does_not_start_is_left_out_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ScriptedSystem, "broken", frozenset({"processes"}))
    assert command.main(["--quick", "--only", "call", "--systems", "nsactors,processes,multiprocessing"]) == 0
    printed = capsys.readouterr()
    assert "processes timed out\nOnce more." in printed.err
    assert "ProcessPoolExecutor is left out." in printed.err
    assert "multiprocessing.Pool" in printed.out
    assert "ProcessPoolExecutor" not in printed.out


def test_without_any_system_that_starts_there_is_no_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ScriptedSystem, "broken", frozenset({"nsactors"}))
    assert command.main(["--quick", "--only", "call", "--systems", "nsactors"]) == 1
    printed = capsys.readouterr()
    assert "No system has started." in printed.err
    assert printed.out == ""
