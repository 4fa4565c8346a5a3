"""Run a notebook of the documentation again and keep its outputs: ``python -m docs.tools.run_notebook FILE``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbclient
import nbformat

__all__ = ["run"]

CELL_LIMIT_S = 300
_ROOT = Path(__file__).parents[2]


def run(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with new outputs; the file stays as it is.

    Args:
        path: the notebook.
        folder: the working folder of its kernel.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails that is not tagged ``raises-exception``.
    """
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=CELL_LIMIT_S,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env={**os.environ, "PYTHONPATH": str(_ROOT)})
    # These name the machine's Python, which is no part of what the notebook says.
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


if __name__ == "__main__":
    for name in sys.argv[1:]:
        nbformat.write(run(Path(name), Path.cwd()), name)
