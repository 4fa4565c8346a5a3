"""Debugging goes on beside engines that share a process with it."""

from __future__ import annotations

import bdb
import builtins
import pdb
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from nsactors.namespace.debuggers import DebuggerBypass

ELSEWHERE = -1  # no thread


@pytest.fixture(autouse=True)
def _no_engines_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DebuggerBypass, "_open", {})
    monkeypatch.setattr(DebuggerBypass, "_patches", [])


def test_only_the_threads_of_engines_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[object] = []
    monkeypatch.setattr(bdb.Bdb, "set_trace", lambda debugger, frame=None: traced.append(frame))
    bypass = DebuggerBypass(ELSEWHERE)
    try:
        pdb.Pdb(nosigint=True, readrc=False).set_trace()
        assert traced == [sys._getframe()]
    finally:
        bypass.close()


def test_the_last_engine_leaves_everything_as_it_was() -> None:
    places: list[tuple[Any, str]] = [(sys, "breakpointhook"), (bdb.Bdb, "set_trace"), (builtins, "input")]
    before = [vars(owner)[name] for owner, name in places]
    first, second = DebuggerBypass(ELSEWHERE), DebuggerBypass(ELSEWHERE - 1)
    first.close()
    assert all(vars(owner)[name] is not was for (owner, name), was in zip(places, before, strict=True))
    second.close()
    assert [vars(owner)[name] for owner, name in places] == before


def test_an_editors_hook_is_called_for_engines_that_are_threads_too(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    monkeypatch.setattr(sys, "breakpointhook", lambda: called.append(True))
    bypass = DebuggerBypass(threading.get_ident())
    try:
        breakpoint()
    finally:
        bypass.close()
    assert called == [True]


@pytest.mark.parametrize("connected", [True, False])
def test_a_kernels_hook_counts_as_an_editors_if_one_is_connected(
    monkeypatch: pytest.MonkeyPatch, *, connected: bool
) -> None:
    called: list[object] = []

    def hook() -> None:
        called.append("editor")

    def stop(frame: object) -> str:
        called.append("client")
        return ""

    hook.__module__ = "debugpy._vendored.force_pydevd"
    monkeypatch.setitem(sys.modules, "debugpy", SimpleNamespace(is_client_connected=lambda: connected))  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "breakpointhook", hook)
    bypass = DebuggerBypass(threading.get_ident())
    bypass.stop = stop
    try:
        breakpoint()
    finally:
        bypass.close()
    assert called == ["editor" if connected else "client"]


def test_a_debugger_may_be_of_another_class_as_in_a_jupyter_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernels(pdb.Pdb):
        pass

    before = vars(pdb.Pdb)["interaction"]
    monkeypatch.setattr(pdb, "Pdb", Kernels)
    bypass = DebuggerBypass(ELSEWHERE)
    try:
        assert Kernels.interaction is not before
    finally:
        bypass.close()
    assert Kernels.interaction is before
