"""Errors at an IPython prompt: of engines, and those that have to do with them."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell

from nsactors import Cluster
from nsactors.client import prompt
from nsactors.client.prompt import _debug_engines, _show_no_empty_values, draw_errors, join_prompt
from nsactors.errors import CompositeError, NsactorsError
from nsactors.protocol.messages import ExecuteResult, RequestId
from nsactors.protocol.serialize import OWN_BYTES, pack, unpack
from nsactors.results import Call, ExecuteReply
from tests.unit.errors.raising import remote


@pytest.fixture
def shell() -> Iterator[Any]:
    shell = InteractiveShell()  # type: ignore[no-untyped-call]
    shell.run_line_magic("colors", "nocolor")
    shell.user_ns["arrived"] = unpack(pack(np.zeros(OWN_BYTES)))
    shell.user_ns["own"] = np.broadcast_to(0, 3)
    end = draw_errors(shell)
    yield shell
    end()
    shell.history_manager.end_session()


def test_writing_to_an_array_that_came_from_an_engine_says_how_to_get_one_that_can_be_written_to(
    shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(shell.run_cell("arrived[0] = 1").error_in_exec, ValueError)
    shown = capsys.readouterr().out
    assert "ValueError: assignment destination is read-only" in shown
    assert "`arrived` (8.4 MB) arrives as a read-only view" in shown
    assert "copy=True" in shown


@pytest.mark.parametrize("cell", ["own[0] = 1", "int('x')", "1 / 0"])
def test_other_errors_are_shown_as_ever(shell: Any, capsys: pytest.CaptureFixture[str], cell: str) -> None:
    shell.run_cell(cell)
    with_client = capsys.readouterr().out
    shell.set_custom_exc((), None)
    shell.run_cell(cell)
    assert capsys.readouterr().out.replace("[2]", "[1]") == with_client.replace("[2]", "[1]")


@pytest.mark.parametrize("cell", ["Client('no-such-cluster')", "Cluster(n=-1, backend='local')"])
def test_errors_before_there_is_a_client_are_shown_without_frames(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, cell: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    shell = InteractiveShell()  # type: ignore[no-untyped-call]
    monkeypatch.setattr("nsactors.client.prompt.current_shell", lambda: shell)
    shell.run_cell("from nsactors import Client, Cluster")
    assert isinstance(shell.run_cell(cell).error_in_exec, NsactorsError)
    shown = capsys.readouterr().out
    assert "Traceback" not in shown
    assert len(shown.splitlines()) < 8
    shell.history_manager.end_session()


class BareShell:
    """A shell that keeps the values that are set in it."""

    custom_exceptions: tuple[type[BaseException], ...] = ()

    def __init__(self) -> None:
        self.call_pdb = False
        self.debugged: list[bool] = []
        self.InteractiveTB = types.SimpleNamespace(tb="of an older error")
        self.shown: list[str] = []

    def set_custom_exc(self, kinds: tuple[type[BaseException], ...], handler: Callable[..., Any] | None) -> None:
        assert handler is not None
        self.custom_exceptions, self.handler = kinds, handler

    def _showtraceback(self, kind: type, error: Exception, lines: list[str]) -> None:
        self.shown = lines

    def debugger(self, force: bool) -> None:
        self.debugged.append(force)

    def fail(self, function: Callable[[], object]) -> Exception:
        try:
            function()
        except self.custom_exceptions as error:
            self.handler(self, type(error), error, error.__traceback__)
            return error  # type: ignore[return-value]  # the classes of the shell's are exceptions
        raise AssertionError("it did not fail")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> BareShell:
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        monkeypatch.setattr(sys, name, "of an older error", raising=False)
    bare = BareShell()
    draw_errors(bare)
    return bare


def fail_in_the_package() -> None:
    """Raise where nsactors does: in a frame of its own, below the user's."""
    names: dict[str, Any] = {"__name__": "nsactors.results.async_result", "error": remote("1 / 0")}
    exec("def get(): raise error", names)
    names["get"]()


def test_the_debugger_opens_this_error_where_the_call_was_made_and_no_older_one(bare: BareShell) -> None:
    error = bare.fail(fail_in_the_package)
    assert (sys.last_type, sys.last_value) == (type(error), error)
    assert sys.last_traceback is bare.InteractiveTB.tb is error.__traceback__
    if sys.version_info >= (3, 12):
        assert sys.last_exc is error
    frames = []
    at = sys.last_traceback
    while at is not None:
        frames.append(at.tb_frame.f_code.co_name)
        at = at.tb_next
    assert frames[-1] == "fail_in_the_package"
    assert "Called from" in bare.shown[0]


def test_an_error_of_a_magic_has_a_frame_to_open_too(bare: BareShell) -> None:
    def cell() -> None:
        names: dict[str, Any] = {
            "__name__": "nsactors.magics.extension",
            "error": CompositeError("", [remote("1 / 0")]),
        }
        exec("def px(): raise error", names)
        names["px"]()

    error = bare.fail(cell)
    assert error.__traceback__ is not None
    assert "Called from" not in bare.shown[0]


def test_the_debugger_says_after_an_error_of_engines_whose_frames_it_shows(
    bare: BareShell, capsys: pytest.CaptureFixture[str]
) -> None:
    bare.fail(fail_in_the_package)
    bare.debugger(force=True)
    assert capsys.readouterr().out.startswith("These are the frames here that made the call")
    sys.last_value = ZeroDivisionError()  # type: ignore[assignment]
    bare.debugger(force=True)
    assert capsys.readouterr().out == ""
    assert bare.debugged == [True, True]


def test_of_a_name_that_an_object_of_ours_does_not_have_the_frames_are_the_users(
    shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.user_ns["cluster"] = Cluster(n=1, backend="local")
    shell.run_cell("cluster.stop_engine")
    shown = capsys.readouterr().out
    assert "has no attribute 'stop_engine': did you mean 'stop_engines'?" in shown
    assert "cluster.stop_engine" in shown
    assert "formatting.py" not in shown


def test_with_pdb_on_the_debugger_is_opened_at_once(bare: BareShell) -> None:
    bare.call_pdb = True
    bare.fail(fail_in_the_package)
    assert bare.debugged == [True]


def test_a_cell_on_engines_that_gave_no_value_has_no_place_among_values_that_are_shown(
    shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _show_no_empty_values(shell)
    silent, loud = (Call(RequestId("ann", seq), 0, "execute", True, done=True) for seq in (0, 1))
    loud.output.chunks.append(ExecuteResult(1, {"text/plain": "42"}, {}))
    shell.user_ns.update(silent=ExecuteReply(silent), loud=ExecuteReply(loud))
    assert shell.run_cell("silent").result is shell.user_ns["silent"]
    assert shell.user_ns["_"] is shell.user_ns["silent"]
    assert capsys.readouterr().out == ""
    shell.run_cell("loud")
    assert "42" in capsys.readouterr().out


class EditedModules:
    """Modules of which one has been edited."""

    def __init__(self) -> None:
        self.looks = 0

    def look_for_edits(self) -> None:
        self.looks += 1

    def tell_edits(self) -> str:
        return "mine: edited since imported here" if self.looks == 1 else ""


def test_the_plain_interpreter_tells_of_edits_before_its_next_prompt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    monkeypatch.setattr(prompt, "current_shell", lambda: None)
    modules, requests = EditedModules(), [0]
    end = join_prompt(cast("Any", None), cast("Any", modules), lambda: requests[0])
    assert (str(sys.ps1), modules.looks) == (">>> ", 0)  # no engine has been used
    requests[0] += 1
    assert str(sys.ps1) == ">>> "
    assert capsys.readouterr().err == "nsactors: mine: edited since imported here\n"
    assert (str(sys.ps1), modules.looks) == (">>> ", 1)
    end()
    assert sys.ps1 == ">>> "


def test_clients_that_overlap_leave_the_prompt_of_the_plain_interpreter_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    monkeypatch.setattr(prompt, "current_shell", lambda: None)
    end_first = join_prompt(cast("Any", None), cast("Any", EditedModules()))
    modules, requests = EditedModules(), [0]
    end_second = join_prompt(cast("Any", None), cast("Any", modules), lambda: requests[0])
    end_first()
    requests[0] += 1
    assert (str(sys.ps1), modules.looks) == (">>> ", 1)
    end_second()
    assert sys.ps1 == ">>> "


def test_clients_that_overlap_leave_the_debugger_as_it_was(bare: BareShell) -> None:
    usual, asked = bare.debugger, list[str]()

    def debugs(name: str, there: bool) -> Callable[[BaseException], bool]:
        def debug(error: BaseException) -> bool:
            asked.append(name)
            return there

        return debug

    end_first = _debug_engines(bare, debugs("first", there=True))
    end_second = _debug_engines(bare, debugs("second", there=False))
    bare.fail(fail_in_the_package)
    bare.debugger(force=True)
    assert (asked, bare.debugged) == (["second", "first"], [])  # the newest client is asked first
    end_first()
    bare.debugger(force=True)
    assert (asked, bare.debugged) == (["second", "first", "second"], [True])
    end_second()
    assert bare.debugger is usual


def test_the_magic_opens_the_usual_debugger(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    opened: list[Any] = []
    shell.user_ns["error"] = remote("1 / 0")
    shell.run_cell("raise error")
    shell.InteractiveTB.debugger = lambda force: opened.append(sys.last_value)
    capsys.readouterr()
    shell.run_cell("%debug")
    assert opened == [shell.user_ns["error"]]
    assert capsys.readouterr().out.startswith("These are the frames here that made the call")
