"""``python -m nsactors.ipyparallel SCRIPT``: run a script for which ``import ipyparallel`` is this package."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from nsactors.ipyparallel.alias import install
from nsactors.ipyparallel.commands import PROGRAMS, run
from nsactors.ipyparallel.reading import Reader

USAGE = """usage: python -m nsactors.ipyparallel SCRIPT [ARGUMENTS]
       python -m nsactors.ipyparallel -m MODULE [ARGUMENTS]
       python -m nsactors.ipyparallel ipcluster COMMAND
       python -m nsactors.ipyparallel doctor FILE_OR_FOLDER"""


def main(arguments: list[str]) -> None:
    """Run a script, or with ``-m`` a module, as Python would.

    Args:
        arguments: the script and its arguments.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        raise SystemExit(0 if arguments else 2)
    if arguments[0] in PROGRAMS:
        raise SystemExit(run(arguments[0], arguments[1:]))
    if arguments[0] == "doctor" and len(arguments) > 1:
        raise SystemExit(_tell_findings(arguments[1:]))
    install()
    if arguments[0] == "-m" and len(arguments) > 1:
        sys.argv = arguments[1:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    sys.argv = arguments
    sys.path.insert(0, os.path.dirname(os.path.abspath(arguments[0])))
    runpy.run_path(arguments[0], run_name="__main__")


def _tell_findings(paths: list[str]) -> int:
    """Print the lines of programs and notebooks that may need a change; return the exit status."""
    reader = Reader()
    for path in map(Path, paths):
        if not path.exists():
            print(f"there is no {path}", file=sys.stderr)
            return 2
        for place, finding in reader.read(path):
            print(f"{place}: {finding.text}")
    print(reader.summary())
    return 0


if __name__ == "__main__":
    main(sys.argv[1:])
