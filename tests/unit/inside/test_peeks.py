"""Expressions are evaluated beside the engine's own code, end once, and are given up at their limit."""

from __future__ import annotations

import builtins
import itertools
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from nsactors.inside import peeks
from nsactors.inside.peeks import Peeks, TooManyPeeks, short_text, text_of_value, variables_of
from nsactors.protocol.inspection import Peek, PeekResult
from nsactors.protocol.serialize import Payload, unpack
from nsactors.testing import TIMEOUT_S, open_gate, wait_until


class Store:
    """Keeps what is put."""

    ref_types: tuple[type, ...] = ()

    def put(self, payload: Payload) -> Any:
        return payload

    def memory(self) -> None: ...


Look = Callable[..., PeekResult]


@pytest.fixture
def names() -> dict[str, Any]:
    return {"__builtins__": builtins, "x": [1, 2, 3]}


@pytest.fixture
def look(names: dict[str, Any]) -> Look:
    """Evaluates an expression, and waits for its outcome."""
    kept = Peeks(3, names, Store())

    def look(expression: str, limit_s: float = TIMEOUT_S, *, as_text: bool = False) -> PeekResult:
        results: SimpleQueue[PeekResult] = SimpleQueue()
        kept.begin(Peek(expression, limit_s, as_text), results.put)
        return results.get(timeout=TIMEOUT_S)

    return look


def value_of(result: PeekResult) -> Any:
    assert isinstance(result.value, Payload), result
    return unpack(result.value)


def test_an_expression_has_a_value(look: Look) -> None:
    assert value_of(look("len(x)")) == 3


def test_it_runs_on_another_thread(look: Look, names: dict[str, Any]) -> None:
    names["threading"] = threading
    assert value_of(look("threading.get_ident()")) != threading.get_ident()


@pytest.mark.parametrize(
    ("expression", "error"), [("1/0", "ZeroDivisionError"), ("nosuch", "NameError"), ("exit()", "SystemExit")]
)
def test_an_error_of_any_class_is_a_failure(look: Look, names: dict[str, Any], expression: str, error: str) -> None:
    names["exit"] = sys.exit
    failure = look(expression).failure
    assert failure is not None
    assert (failure.type_name, failure.engine_id, failure.call) == (error, 3, f"peek({expression})")


def test_the_text_that_it_prints_comes_with_it(look: Look, names: dict[str, Any]) -> None:
    from nsactors.namespace.output import ThreadCapture

    capture = ThreadCapture()
    try:
        result = look("print('told') or 5")
        print("mine")
        assert [chunk.text for chunk in capture.read()] == ["mine\n"]
    finally:
        capture.close()
    assert (value_of(result), result.printed) == (5, "told\n")


def test_text_that_is_printed_without_end_is_cut(look: Look) -> None:
    assert len(look("[print('a' * 1000) for _ in range(100)] and None").printed) == peeks.PRINTED_CHARS


def test_a_peek_does_not_wait_for_a_keyboard(look: Look) -> None:
    failure = look("input()").failure
    assert failure is not None
    assert "an engine has no keyboard" in failure.message
    result = look("breakpoint() or 5")
    assert value_of(result) == 5


def test_a_peek_that_is_too_slow_is_given_up_and_its_code_is_interrupted(look: Look, names: dict[str, Any]) -> None:
    ended = threading.Event()

    def spin() -> None:
        try:
            while True:
                pass
        finally:
            ended.set()

    names["spin"] = spin
    assert look("spin()", 0.05) == PeekResult()
    assert ended.wait(TIMEOUT_S)
    assert value_of(look("len(x)")) == 3


def test_peeks_that_hang_in_c_code_are_few(names: dict[str, Any], tmp_path: Path) -> None:
    kept = Peeks(3, names, Store())
    results: SimpleQueue[PeekResult] = SimpleQueue()
    with open_gate(tmp_path / "gate") as gate:
        names["hang"] = gate.pass_through
        for _ in range(peeks.MOST):
            kept.begin(Peek("hang()", 0.05), results.put)
        assert [results.get(timeout=TIMEOUT_S) for _ in range(peeks.MOST)] == [PeekResult()] * peeks.MOST
        with pytest.raises(TooManyPeeks, match=f"{peeks.MOST} peeks hang"):
            kept.begin(Peek("len(x)", TIMEOUT_S), results.put)
    wait_until(lambda: not kept._count)
    kept.begin(Peek("len(x)", TIMEOUT_S), results.put)
    assert value_of(results.get(timeout=TIMEOUT_S)) == 3


def test_a_value_that_is_too_large_is_refused_before_it_is_packed(
    look: Look, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peeks, "MOST_BYTES", 1_000)
    names["large"] = [0] * 10_000
    failure = look("large").failure
    assert failure is not None
    assert "large has 80 kB, too much for a peek" in failure.message
    assert value_of(look("large[:2]")) == [0, 0]


def test_a_value_as_text_need_not_be_picklable_and_is_cut(look: Look, names: dict[str, Any]) -> None:
    names["lock"], names["many"] = threading.Lock(), list(range(10**6))
    assert "lock" in value_of(look("lock", as_text=True))
    assert value_of(look("many", as_text=True)).endswith("...]")
    text = value_of(look("'a' * 10**7", as_text=True))
    assert text.endswith("(the rest is left out)")
    assert len(text) < peeks.TEXT_CHARS + 100
    assert text_of_value({"a": 1}) == "{'a': 1}"


class Hostile:
    """A class whose code must not run."""

    def __repr__(self) -> str:
        raise RuntimeError("looked at")

    __len__ = __bool__ = __getattr__ = __repr__  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("value", "text"),
    ids=itertools.count(),
    argvalues=[
        (5, "5"),
        (None, "None"),
        (1 << 5_000, "a number of 5,001 bits"),
        ("abc", "'abc'"),
        ("a" * 1_000, f"'{'a' * peeks.SHORT_CHARS}'… (1,000 in all)"),
        ([1], "1 item"),
        ({}, "0 items"),
        (sys, "sys"),
        (Hostile, f"{__name__}.Hostile"),
        (Hostile(), ""),
        (np.zeros(3), ""),
    ],
)
def test_short_texts_run_no_code_of_others(value: Any, text: str) -> None:
    assert short_text(value) == text


def test_variables_are_the_users_names() -> None:
    names = {"__name__": "__main__", "_": 1, "In": [""], "Out": {}, "b": np.zeros((2, 3)), "a": 1}
    assert [(one.name, one.type_name, one.text) for one in variables_of(names)] == [
        ("a", "int", "1"),
        ("b", "ndarray float64 (2, 3)", ""),
    ]
