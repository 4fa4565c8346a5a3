"""Debuggers that code opens on engines, where nobody could answer them: they are skipped, and a line reports this."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from nsactors import Client
from nsactors.testing import TIMEOUT_S

PASSED = "was skipped: its client has no prompt"
NO_KEYBOARD = "was skipped: it needs a keyboard, and breakpoint() does not"
CELLS = {
    "breakpoint": "x = 1\nbreakpoint()\ny = 2",
    "pdb": "import pdb; x = 1\npdb.Pdb().set_trace()\ny = 2",  # pytest has replaced pdb.set_trace in its process
    "IPython's": "from IPython.core.debugger import Pdb; x = 1\nPdb().set_trace()\ny = 2",
    "post mortem": (
        "import pdb, sys; x = 1\ntry: 1/0\nexcept ZeroDivisionError:\n    pdb.post_mortem(sys.exc_info()[2])\ny = 2"
    ),
    "run": "import pdb; x = 1\npdb.run('y = 2', globals())",
}


@pytest.fixture(autouse=True)
def _no_shell_stays() -> Iterator[None]:
    """IPython's debugger makes a shell of the process, which may be the tests' own."""
    had_shell = _shell_class() is not None and _shell_class().initialized()
    yield
    if not had_shell and (shell_class := _shell_class()) is not None:
        shell_class.clear_instance()


def _shell_class() -> Any:
    module = sys.modules.get("IPython.terminal.interactiveshell")
    return None if module is None else module.TerminalInteractiveShell


@pytest.mark.sampled
@pytest.mark.parametrize("code", CELLS.values(), ids=CELLS)
def test_a_debugger_in_a_cell_is_passed_with_one_line(rc: Client, code: str) -> None:
    reply = rc[0].execute(code).get(TIMEOUT_S)
    assert rc[0].pull(("x", "y"), block=True) == [1, 2]
    assert [PASSED in line or NO_KEYBOARD in line for line in reply.stderr.splitlines()] == [True]


def test_the_line_says_where_it_was(rc: Client) -> None:
    reply = rc[0].execute("x = 0\n\nbreakpoint()").get(TIMEOUT_S)
    before, _, after = reply.stderr.partition("<cell ")
    assert (before, after.partition(">")[2]) == ("breakpoint() at ", f", line 3, {PASSED}\n")


def test_a_breakpoint_in_a_loop_is_told_once_and_again_in_the_next_request(rc: Client) -> None:
    rc[0].execute("def look():\n    for _ in range(100): breakpoint()", block=True)
    texts = [rc[0].execute("look()").get(TIMEOUT_S).stderr for _ in range(2)]
    assert [text.count(PASSED) for text in texts] == [1, 1]


def test_a_breakpoint_in_a_function_or_a_task_is_passed(rc: Client) -> None:
    def look() -> int:
        breakpoint()
        return 5

    applied, task = rc[0].apply_async(look), rc.load_balanced_view().apply_async(look)
    assert (applied.get(TIMEOUT_S), task.get(TIMEOUT_S)) == (5, 5)
    assert PASSED in applied.stderr
    assert PASSED in task.stderr


def test_the_hook_of_the_environment_is_not_called(rc: Client) -> None:
    code = "import os\nos.environ['PYTHONBREAKPOINT'] = 'builtins.exit'\nbreakpoint()\nx = 1"
    rc[0].execute(code).get(TIMEOUT_S)
    rc[0].execute("os.environ['PYTHONBREAKPOINT'] = '0'", block=True)
    assert rc[0]["x"] == 1


@pytest.mark.sampled
@pytest.mark.parametrize("code", ["input()", "import getpass; getpass.getpass()", "import code; code.interact()"])
def test_asking_for_the_keyboard_says_that_there_is_none(rc: Client, code: str) -> None:
    with pytest.raises(EOFError, match="an engine has no keyboard"):
        rc[0].execute(code).get(TIMEOUT_S)


def test_breakpoints_of_the_client_stay_its_own(rc: Client) -> None:
    assert "ray" not in os.environ.get("PYTHONBREAKPOINT", "")
