from __future__ import annotations

import threading
from pathlib import Path

import pytest

from nsactors.testing import TIMEOUT_S, Gate, gates, open_gate, wait_until


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "TIMEOUT_S", 0.01)


def test_a_caller_is_held_until_the_gate_opens(tmp_path: Path) -> None:
    passed = threading.Event()
    with open_gate(tmp_path / "gate") as gate:
        caller = threading.Thread(target=lambda: (gate.pass_through(), passed.set()))
        caller.start()
        gate.wait_arrived()
        assert not passed.is_set()
        gate.open()
        assert passed.wait(TIMEOUT_S)
        caller.join(TIMEOUT_S)


def test_an_open_gate_lets_every_later_caller_pass(tmp_path: Path) -> None:
    with open_gate(tmp_path / "gate") as gate:
        gate.open()
        assert [gate.pass_through(), gate.pass_holding_gil()] == ["passed"] * 2
        gate.wait_arrived(2)
        assert not gate.has_visitor()


def test_a_gate_that_nobody_reaches_fails_the_test(tmp_path: Path, impatient: None) -> None:
    with open_gate(tmp_path / "gate") as gate, pytest.raises(AssertionError, match="0 of 2 callers have arrived"):
        gate.wait_arrived(2)


def test_a_gate_that_stays_closed_fails_its_caller(tmp_path: Path, impatient: None) -> None:
    with open_gate(tmp_path / "gate") as gate, pytest.raises(TimeoutError, match=r"call gate\.open\(\)"):
        gate.pass_through()


def test_a_closed_gate_is_gone(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    gate.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        gate.pass_through()


def test_waiting_ends_when_the_condition_holds() -> None:
    answers = iter([False, False, True])
    wait_until(lambda: next(answers))
    assert list(answers) == []


def test_waiting_for_what_never_holds_fails_the_test() -> None:
    with pytest.raises(AssertionError, match=r"this does not hold after 0\.01 s"):
        wait_until(lambda: False, 0.01)
