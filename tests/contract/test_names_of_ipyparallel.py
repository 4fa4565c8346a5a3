"""What nsactors itself has of ipyparallel's names, beside what the other tests are about."""

from __future__ import annotations

import concurrent.futures
import importlib
from collections.abc import Callable
from typing import Any

import pytest

import nsactors
from nsactors import AsyncResult, Client, DirectView
from nsactors.errors import InvalidArgument
from nsactors.testing import TIMEOUT_S, Gate

pytestmark = pytest.mark.once  # decided before anything is sent


def test_a_client_knows_what_has_not_ended(rc: Client, gate: Gate) -> None:
    running = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    task = rc.load_balanced_view([1]).apply_async(abs, -1)
    assert task.get(TIMEOUT_S) == 1
    assert rc.outstanding == set(running.msg_ids)
    gate.open()
    running.get(TIMEOUT_S)
    assert rc.outstanding == set()


def test_an_interactive_wait_may_be_for_the_first_alone(rc: Client, gate: Gate) -> None:
    running = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    done, failed = rc[1].apply_async(abs, -1), rc[2].apply_async(lambda: 1 / 0)
    AsyncResult.join(running, done).wait_interactive(timeout=TIMEOUT_S, return_when=concurrent.futures.FIRST_COMPLETED)
    AsyncResult.join(running, failed).wait_interactive(
        timeout=TIMEOUT_S, return_when=concurrent.futures.FIRST_EXCEPTION
    )
    assert not running.done()
    gate.open()
    running.get(TIMEOUT_S)
    with pytest.raises(ZeroDivisionError):
        failed.get()


@pytest.mark.parametrize("view_of", [lambda rc: rc[:], Client.load_balanced_view])
def test_a_lazy_map_chooses_how_much_is_on_its_way(rc: Client, view_of: Callable[[Client], Any]) -> None:
    assert list(view_of(rc).imap(abs, range(-9, 0), max_outstanding="auto")) == list(range(9, 0, -1))
    with pytest.raises(InvalidArgument):
        view_of(rc).imap(abs, [1], max_outstanding="many")


def test_a_remote_function_may_be_told_later_to_wait(dv: DirectView) -> None:
    dv = dv.with_flags(block=False)
    size = dv.remote()(len)
    assert size.block is None
    assert isinstance(size([1]), AsyncResult)
    size.block = True
    assert size([1]) == [1] * len(dv)
    size.block = None
    assert isinstance(size([1]), AsyncResult)
    with pytest.raises(InvalidArgument):
        size.block = "yes"  # type: ignore[assignment]


def test_the_errors_are_one_module_under_both_names() -> None:
    assert importlib.import_module("nsactors.error") is nsactors.errors is nsactors.error
