"""What is left of the traceback of an interrupt."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from nsactors.namespace.gate import InterruptGate, run_user_code, user_traceback
from nsactors.views.mapping import MapPart


def struck(*args: Any) -> None:
    """Calls our signal handler, as the interpreter does below what it has stopped."""
    loop = SimpleNamespace(awaiting=True)
    gate: Any = SimpleNamespace(_target="request", _running="request", _cell_loop=loop)
    InterruptGate._on_sigint(gate, 2, None)


def frames_of(function: Callable[..., Any], *args: Any) -> list[str]:
    with pytest.raises(KeyboardInterrupt) as caught:
        run_user_code(function, *args)
    return [frame.name for frame in traceback.extract_tb(user_traceback(caught.value))]


def test_our_own_frames_below_the_users_are_left_out() -> None:
    assert frames_of(struck) == ["struck"]


def test_the_users_function_inside_a_map_is_kept() -> None:
    def of_item(item: int) -> None:
        struck()

    assert frames_of(MapPart(of_item, return_exceptions=False), range(3))[-2:] == ["of_item", "struck"]


def test_nothing_is_left_where_only_our_own_code_was_struck() -> None:
    loop = SimpleNamespace(awaiting=True)
    gate = SimpleNamespace(_target="request", _running="request", _cell_loop=loop)
    assert frames_of(InterruptGate._on_sigint, gate, 2, None) == []
