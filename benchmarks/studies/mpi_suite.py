"""mpi4py's own tests, in a world of engines and under ``mpiexec``: ``make mpi-suite``, some ten minutes.

Both run the same tests of the same source distribution with the same library, one after the other. ``--only REGEX``
chooses modules, such as ``cco|p2p``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

RANKS = 3
LIMIT_S = 1800.0


def run_tests(folder: str, arguments: list[str]) -> dict[str, Any]:
    """Run the tests in ``folder`` on this rank, in step with the other ranks; return their outcome."""
    import contextlib
    import importlib
    import os
    import sys

    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    program = importlib.import_module("main").main

    class Program(program):  # type: ignore[misc, valid-type]
        def runTests(self) -> None:
            with contextlib.suppress(SystemExit):  # its status says whether all tests have passed
                super().runTests()

    result = Program(module=None, argv=["main.py", "--quiet", *arguments]).result
    failed = {getattr(test, "test_case", test).id() for test, _ in (*result.failures, *result.errors)}
    passed = result.testsRun - len(failed) - len(result.skipped)
    return {"run": result.testsRun, "passed": passed, "skipped": len(result.skipped), "failed": sorted(failed)}


def source_tests(folder: Path) -> Path:
    """Download and unpack the sources of the installed mpi4py; return the folder of its tests."""
    release = f"mpi4py=={version('mpi4py')}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "mpi4py"]
    subprocess.run([*command, "--dest", folder, release], check=True)
    (archive,) = folder.glob("mpi4py-*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(folder, filter="data")
    (tests,) = folder.glob("mpi4py-*/test")
    return tests


def on_engines(tests: Path, arguments: list[str]) -> list[dict[str, Any]]:
    """Return the outcome of the tests on each rank of a world of engines."""
    from nsactors import Cluster

    with Cluster(n=RANKS) as rc:
        world = rc[:].mpi()
        found: list[dict[str, Any]] = world.view.apply_async(run_tests, str(tests), arguments).get(LIMIT_S)
    return found


def under_mpiexec(tests: Path, arguments: list[str]) -> list[dict[str, Any]]:
    """Return the outcome of the tests on each rank that ``mpiexec`` has started."""
    with tempfile.TemporaryDirectory() as folder:
        mpiexec = Path(sys.executable).with_name("mpiexec")
        command = [sys.executable, __file__, "--rank", folder, str(tests), *arguments]
        subprocess.run([mpiexec, "-n", str(RANKS), *command], check=True, timeout=LIMIT_S, stderr=subprocess.DEVNULL)
        return [json.loads(path.read_text()) for path in sorted(Path(folder).iterdir())]


def as_rank(folder: str, tests: str, arguments: list[str]) -> None:
    """Run the tests as a process of ``mpiexec``."""
    found = run_tests(tests, arguments)
    Path(folder, os.environ["PMI_RANK"]).write_text(json.dumps(found))


def main() -> int:
    """Run both and compare; return 1 if fewer tests pass on engines."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="a regular expression that names of test modules match")
    parser.add_argument("--tests", type=Path, help="the folder with the tests; the default is to download them")
    options = parser.parse_args()
    arguments = ["-i", options.only] if options.only else []
    with tempfile.TemporaryDirectory() as folder:
        tests = options.tests or source_tests(Path(folder))
        counts = {}
        for name, run in (("a world of engines", on_engines), ("mpiexec", under_mpiexec)):
            found = run(tests, arguments)
            counts[name] = min(rank["passed"] for rank in found)
            failed = sorted(set().union(*(rank["failed"] for rank in found)))
            skipped = max(rank["skipped"] for rank in found)
            print(f"{name}: of {found[0]['run']} tests {counts[name]} pass on every rank, {skipped} are skipped")
            print("".join(f"    failed: {test}\n" for test in failed), end="", flush=True)
    return int(counts["a world of engines"] < counts["mpiexec"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        as_rank(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        sys.exit(main())
