"""The fixtures, used as a user's tests use them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nsactors import Client
from nsactors.testing import TIMEOUT_S, Gate
from nsactors.testing.plugin import gate, local_client, local_cluster

__all__ = ["gate", "local_client", "local_cluster"]


def test_engines_run_code(local_client: Client) -> None:
    assert local_client[:].apply_sync(lambda: 6 * 7) == [42, 42]
    local_client[:].push({"left": 1})


def test_namespaces_are_empty_whatever_an_earlier_test_left(local_client: Client) -> None:
    assert local_client[:].apply_sync(lambda: "left" in globals()) == [False, False]
    local_client[:].push({"left": 1})


def test_a_gate_holds_engines(local_client: Client, gate: Gate) -> None:
    running = local_client[:].apply_async(gate.pass_through)
    gate.wait_arrived(2)
    assert not running.ready()
    gate.open()
    assert running.get() == ["passed", "passed"]


def test_a_gate_that_is_left_closed_opens_at_the_end(local_client: Client, gate: Gate) -> None:
    local_client[0].apply_async(gate.pass_through)
    gate.wait_arrived()


def test_a_test_that_fails_becomes_an_engine_until_a_client_has_come_and_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["nsactors.testing.plugin"]\n')
    (tmp_path / "test_it.py").write_text("def test_it():\n    total = 41\n    assert total == 42\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nsactors-embed", "test_it.py"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        told = next(line for line in running.stdout if "failed" in line)
        assert told.startswith("test_it.py::test_it failed: its names are the engine test-")
        with Client(f"test-{running.pid}", timeout=TIMEOUT_S) as rc:
            assert rc[0]["total"] == 41
        assert "1 failed" in running.stdout.read()
    assert running.returncode == 1
