"""What an engine's IPython remembers of its cells; each test has a process, for there is one IPython in each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PREPARATION = """
import sys, types
from nsactors.namespace import ipython_shell
from nsactors.namespace.gate import CellLoop

class NoOutput:
    def show(self, display):
        pass

ipython_shell.KEPT_CELLS = 3
module = sys.modules["space"] = types.ModuleType("space")
shell = ipython_shell.IPythonShell(0, module, NoOutput(), CellLoop(), sys.argv[1])
ipython, history, names = shell._shell, shell._shell.history_manager, shell.names

def run(code):
    try:
        shell.run_cell(code, silent=False, store_history=True)
    except ZeroDivisionError:
        pass
"""


def check(folder: Path, code: str) -> None:
    """Run code in another process; its assertions are this test's."""
    ended = subprocess.run(
        [sys.executable, "-c", PREPARATION + code, folder], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_the_last_cells_are_remembered_under_their_numbers(tmp_path: Path) -> None:
    check(
        tmp_path,
        """
for number in range(1, 6):
    run(f"{number} * 10")
assert names["In"] == ["", "", "", "3 * 10", "4 * 10", "5 * 10"], names["In"]
assert "_i2" not in names and names["_i3"] == "3 * 10"
assert len(history.db_input_cache) == 3
""",
    )


def test_nothing_holds_a_result_any_more_that_the_user_and_out_have_let_go(tmp_path: Path) -> None:
    check(
        tmp_path,
        """
import weakref
run("class Thing: pass\\nThing()")
thing = weakref.ref(names["Out"][1])
for _ in range(3):
    run("1 + 1")
names["Out"].clear()
del names["_1"]
assert thing() is None
""",
    )


def test_what_cells_print_and_raise_is_not_kept(tmp_path: Path) -> None:
    check(
        tmp_path,
        """
for _ in range(3):
    run("print('x' * 1000)\\n1 / 0")
assert not getattr(history, "outputs", None)
for _ in range(3):
    run("pass")
assert not getattr(history, "exceptions", None)
""",
    )


def test_printing_is_not_recorded_while_a_cell_runs(tmp_path: Path) -> None:
    check(
        tmp_path,
        """
names["history"] = history
run("print('x')\\nkept = dict(getattr(history, 'outputs', {}))")
assert names["kept"] == {}
""",
    )
