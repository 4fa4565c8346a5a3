"""Run ipyparallel's own examples by alias: ``python -m benchmarks.studies.ipyparallel_examples CHECKOUT``.

Each example runs in a copy of its folder, with a cluster of four engines in the background. Scripts run as they are;
notebooks get a new first cell, which installs the alias. A table shows which examples ran, and how the others ended.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

EXAMPLES = Path("docs") / "source" / "examples"
CLUSTER = "ipyparallel-examples"
ENGINES = 4
LIMIT_S = 300

# Modules of other examples, and examples that need a person: these are not run.
PARTS = (
    "RectPartitioner.py",
    "communicator.py",
    "bintree.py",
    "pidigits.py",
    "rmtkernel.py",
    "task_mod.py",
    "wavesolver.py",
)

# Examples that fail, and the cause.
KNOWN = {
    "Parallel Magics.ipynb": "refused: %connect_info and %qtconsole, which are of a kernel",
    "Data Publication API.ipynb": "the example's: it plots what has not been published yet",
    "Monitoring an MPI Simulation - 1.ipynb": "the example's: since ipyparallel 9.0 its engines do not import NumPy",
    "Monitoring an MPI Simulation - 2.ipynb": "the example's: since ipyparallel 9.0 its engines do not import NumPy",
    "Cluster API.ipynb": "the example's: it waits for an MPI barrier that one rank never reaches",
    "interengine.py": "the example's: bytes(uuid) is Python 2",
    "dagdeps.py": "the example's: NetworkX knows no node_list",
    "nwmerge.py": "the example's: a generator that lets StopIteration out",
    "iopubwatcher.py": "not provided: it reads the sockets of ipyparallel's controller",
    "Broadcast view.ipynb": "it waits for 100 engines",
    "MPI Broadcast.ipynb": "it waits for 64 engines",
    "memmap Broadcast.ipynb": "the example's: broadcast_view() knows no coalescing, in ipyparallel neither",
    "parallelpi.py": "it loads files from the internet",
    "pwordfreq.py": "it loads a file from the internet",
    "parallelwave.py": "the example's: NumPy takes no floats for the shape of an array",
    "parallelwave-mpi.py": "the example's: NumPy takes no floats for the shape of an array",
    "rmt.ipynb": "the example's: NumPy takes no floats for the shape of an array",
    "visualizing-tasks.ipynb": "the example's: Matplotlib wants to know the axes of a colour bar",
}

NOTEBOOK = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
for cell in notebook.cells:
    if any(output.output_type == "error" for output in cell.get("outputs", [])):  # as the example intends
        cell.metadata.setdefault("tags", []).append("raises-exception")
notebook.cells.insert(0, nbformat.v4.new_code_cell("import nsactors.ipyparallel; nsactors.ipyparallel.install()"))
nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
"""


# A site for the example that crawls one; its pages link to each other.
PAGES = {"index.html": "a.html b.html", "a.html": "b.html", "b.html": "index.html"}


class Outcome(NamedTuple):
    """The outcome of an example; if it failed, with the last line that it wrote to stderr."""

    example: str
    ran: bool
    said: str


def examples(folder: Path) -> Iterator[Path]:
    """Yield the examples of a folder, in the order of their names."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".py", ".ipynb") and path.name not in PARTS:
            yield path


@contextlib.contextmanager
def site(folder: Path) -> Iterator[str]:
    """Serve a web site on this machine within the block; yield its address."""
    folder.mkdir()
    for name, links in PAGES.items():
        (folder / name).write_text("".join(f'<a href="{link}">{link}</a>' for link in links.split()))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=os.fspath(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def run(path: Path, address: str) -> Outcome:
    """Run one example.

    Args:
        path: the path of the copy.
        address: the address of the site for the example that crawls one.
    """
    arguments = [address] if path.name == "fetchparse.py" else []
    alias = [sys.executable, "-m", "nsactors.ipyparallel", path.name, *arguments]
    command = alias if path.suffix == ".py" else [sys.executable, "-c", NOTEBOOK, path.name]
    environment = {**os.environ, "MPLBACKEND": "Agg", "NSACTORS_CLUSTER": CLUSTER}
    try:
        done = subprocess.run(
            command, cwd=path.parent, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(path.name, False, f"did not end in {LIMIT_S} s")
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in done.stderr.splitlines()]
    errors = [line for line in lines if re.search(r"^\W*[A-Z]\w*(Error|Exception|Interrupt)\b", line)]
    told = errors or [line for line in lines if re.search(r"\w", line)]
    return Outcome(path.name, done.returncode == 0, "" if done.returncode == 0 or not told else told[-1])


def nsactors(*words: str) -> None:
    """Run a command of nsactors."""
    subprocess.run([sys.executable, "-c", "from nsactors.cli import main; main()", *words], check=True)


def main() -> int:
    """Run all examples and print the table; return 1 if an example failed that is not in ``KNOWN``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.ipyparallel_examples")
    parser.add_argument("checkout", type=Path, help="a checkout of ipyparallel")
    parser.add_argument("--only", default="", help="those whose name contains this")
    asked = parser.parse_args()
    source = asked.checkout / EXAMPLES
    if not source.is_dir():
        parser.error(f"there is no folder {source}")
    surprises = 0
    with tempfile.TemporaryDirectory() as copy, site(Path(copy) / "site") as address:
        shutil.copytree(source, copy, dirs_exist_ok=True)
        nsactors("start", "--name", CLUSTER, "-n", str(ENGINES))
        try:
            for path in examples(Path(copy)):
                if asked.only not in path.name:
                    continue
                outcome = run(path, address)
                known = KNOWN.get(outcome.example, "")
                surprises += not outcome.ran and not known
                print(f"{outcome.example:45} {'runs' if outcome.ran else known or outcome.said}", flush=True)
        finally:
            nsactors("stop", CLUSTER)
    return int(surprises > 0)


if __name__ == "__main__":
    sys.exit(main())
