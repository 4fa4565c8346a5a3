"""What an engine's IPython remembers of its cells; each test has a process, for there is one IPython in each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from nsactors.namespace.ipython_shell import drawable

PREPARATION = """
import sys, types
from nsactors.namespace import ipython_shell
from nsactors.namespace.interrupts import CellEventLoop

class NoOutput:
    def show(self, display):
        pass

ipython_shell.KEPT_CELLS = 3
module = sys.modules["space"] = types.ModuleType("space")
shell = ipython_shell.IPythonShell(0, module, NoOutput(), CellEventLoop(), sys.argv[1])
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


# Widgets, which only a kernel's front end can draw, say what to do in their place.


VIEW = "application/vnd.jupyter.widget-view+json"


def test_a_shell_is_imported_after_an_import_that_failed_halfway() -> None:
    code = """
import sys
from nsactors.namespace.host import import_shell

class Fails:
    def find_spec(self, name, path=None, target=None):
        if name == "IPython.core.displaypub":
            raise KeyboardInterrupt

sys.meta_path.insert(0, finder := Fails())
try:
    import_shell()
except KeyboardInterrupt:
    sys.meta_path.remove(finder)
    print(import_shell().IPythonShell.__name__)
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("IPythonShell\n", "")


def test_a_widget_becomes_its_text_and_what_to_use_in_its_place() -> None:
    widget: dict[str, Any] = {"text/plain": "IntProgress(value=3)", VIEW: {"model_id": "1"}, "text/html": "<b>"}
    (mime,) = drawable(widget)
    assert mime == "text/plain"
    assert drawable(widget)[mime].startswith("IntProgress(value=3) (a widget on an engine has no connection")
    assert "display_id" in drawable(widget)[mime]


def test_everything_else_stays_as_it_is() -> None:
    figure = {"application/vnd.plotly.v1+json": {"data": []}, "text/html": "<div>"}
    assert drawable(figure) is figure
