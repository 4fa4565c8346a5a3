"""The debugger in a notebook: its prompt is the kernel's standard input."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from nsactors.testing import TIMEOUT_S

pytestmark = pytest.mark.timeout(240)


class Notebook:
    """A kernel with two engines; ``run`` runs a cell, and answers its prompts."""

    def __init__(self, folder: Path) -> None:
        path = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": path, "IPYTHONDIR": str(folder)}
        self.manager, self.client = start_new_kernel(kernel_name="python3", env=environment, cwd=str(folder))
        self.run("from nsactors import Cluster")
        self.run("cluster = Cluster(n=2, backend='local'); rc = cluster.start_and_connect_sync()")
        self.run("%load_ext nsactors")

    def run(self, code: str, *answers: str, asks: bool = True) -> str:
        """Run a cell; return what it printed, and the name of its error."""
        left, shown = list(answers), []

        def answer(message: Any) -> None:
            self.client.input(left.pop(0) if left else "q")

        def show(message: Any) -> None:
            content = message["content"]
            shown.append(content.get("text") or content.get("ename") or "")

        hook = answer if asks else None
        self.client.execute_interactive(code, allow_stdin=asks, stdin_hook=hook, output_hook=show, timeout=TIMEOUT_S)
        assert left == []
        return "".join(shown)

    def close(self) -> None:
        """End the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    notebook = Notebook(tmp_path_factory.mktemp("notebook"))
    yield notebook
    notebook.close()


def test_the_frames_of_a_failure_open_in_the_next_cell(notebook: Notebook) -> None:
    notebook.run("%px def halve(x): part = x + 1; return part / 0")
    assert "CompositeError" in notebook.run("%px halve(4)")
    shown = notebook.run("%debug", "all part", "engine 1", "up", "q")
    assert "halve() <cell " in shown
    assert "[engines 0-1] 5" in shown
    assert "halve(4)" in shown


def test_functions_of_the_notebook_are_shown_with_the_number_of_their_cell(notebook: Notebook) -> None:
    notebook.run("def halve(x):\n    return x / 0")
    shown = notebook.run("try:\n    rc[:].apply_sync(halve, 4)\nexcept ExceptionGroup as error:\n    print(error)")
    assert re.search(r"<In\[\d+\]>, line 2: return x / 0", shown)
    notebook.run("rc[:].apply_sync(halve, 4)")
    shown += notebook.run("%debug", "where", "q")
    assert re.search(r"halve\(\) <In\[\d+\]>:2", shown)
    assert re.search(r"> halve\(\) <In\[\d+\]>:2", shown)
    shown += notebook.run("rc.load_balanced_view().apply(halve, 4).exception()")
    assert "ipykernel_" not in shown


def test_a_cell_stops_at_a_breakpoint_and_goes_on(notebook: Notebook) -> None:
    shown = notebook.run("%pn 0 x = 5; print(x + 36); breakpoint(); print(x + 37)", "x + 300", "c")
    assert shown.index("41") < shown.index("305") < shown.index("42")


def test_a_cell_passes_its_breakpoints_if_it_says_so(notebook: Notebook) -> None:
    cell = "print(x + 36); breakpoint(); print(x + 37)"
    assert notebook.run(f"%px --no-break x = 5; {cell}").replace("[0-1]", "").split() == ["41", "42"]
    notebook.run("%pxconfig --no-break")
    assert "42" in notebook.run(f"%px {cell}")
    assert "305" in notebook.run(f"%px --break --targets 0 {cell}", "x + 300", "c")
    notebook.run("%pxconfig --break")


def test_a_program_that_runs_the_notebook_is_not_asked(notebook: Notebook) -> None:
    assert "was skipped: its client has no prompt" in notebook.run("%px breakpoint(); y = 1", asks=False)
