"""Run the suite on several versions of Python and Ray, and print what holds: ``python -m tests.matrix``.

Each combination has an environment of its own, in ``.venv/matrix``, which later runs use again. A version whose
interpreter is not on this machine, or whose packages the index does not have, is named, and fails nothing. Where the
newest Ray is the oldest that nsactors takes, it is run once. What pytest prints is in a file for each part in
``.venv/matrix``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ("3.11", "3.12", "3.13")
RAYS = ("newest", "oldest")

# What runs on each combination: the quick half, the contract on Ray, and an example of everything else. The files are
# dealt out to two processes, as by `make test`.
PROCESSES = ["--numprocesses=2", "--dist=loadfile"]
ON_RAY = ["-m", "(ray or cluster) and not serial", *PROCESSES, "--no-loadscope-reorder", "-o", "timeout_method=thread"]
EXAMPLES = (
    "cluster/test_background.py",
    "cluster/test_demo.py",
    "cluster/test_forked_workers.py",
    "notebooks/test_prompt.py",
)
PARTS = {
    "quick": ["--without-ray", "-m", "not ray and not cluster", *PROCESSES],
    "contract": [*ON_RAY, "tests/contract"],
    "smoke": [*ON_RAY, *(f"tests/{name}" for name in EXAMPLES)],
}


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a part on a combination."""

    python: str
    ray: str
    part: str
    outcome: str
    took_s: float

    def __str__(self) -> str:
        """Return a line of the table."""
        return f"Python {self.python:5} Ray {self.ray:8} {self.part:12} {self.took_s:5.0f} s  {self.outcome}"


def oldest_ray(requirements: Iterable[str]) -> str:
    """Return the oldest Ray that a list of requirements takes, such as ``2.60.0`` for ``ray>=2.60,<3``."""
    (found,) = (match[1] for text in requirements if (match := re.match(r"ray>=([\d.]+)", text)))
    return found + ".0" * (2 - found.count("."))


def interpreter(version: str) -> str | None:
    """Return the path of an interpreter of this minor version; None if there is none."""
    candidates = [Path(found)] if (found := shutil.which(f"python{version}")) else []
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    candidates += sorted(pyenv.glob(f"versions/{version}.*/bin/python"))
    for candidate in candidates:
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:  # a shim may refuse to run
            return str(candidate)
    return None


def environment(python: str, version: str, ray: str, extra: str) -> Path:
    """Make or update the environment of a combination, and return its folder.

    Raises:
        subprocess.CalledProcessError: if the packages cannot be installed; its output has the reason.
    """
    folder = ROOT / ".venv" / "matrix" / f"{version}-{ray}"
    if not folder.exists():
        subprocess.run([python, "-m", "venv", folder], check=True, capture_output=True, text=True)
    which = f"ray=={oldest_ray(PROJECT['dependencies'])}" if ray == "oldest" else "ray"
    options = [
        "--quiet",
        "--upgrade",
        "--upgrade-strategy=only-if-needed",
    ]  # other packages may keep their versions
    install = [folder / "bin" / "pip", "install", *options, which, "--editable", f"{ROOT}[{extra}]"]
    subprocess.run(install, check=True, capture_output=True, text=True)
    return folder


def version_in(folder: Path, package: str) -> str:
    """Return the version of a package in an environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run(
        [folder / "bin" / "python", "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def combine(
    version: str, ray: str, parts: list[str], arguments: list[str], tried: set[tuple[str, str]]
) -> Iterator[Result]:
    """Run parts on a combination that has not been tried, and yield their results."""
    python = interpreter(version)
    if python is None:
        yield Result(version, ray, "-", "no interpreter on this machine", 0.0)
        return
    began = time.monotonic()
    try:
        folder = environment(python, version, ray, "test")
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or "").strip().rpartition("\n")[2]
        yield Result(version, ray, "packages", f"not to be had: {reason}", time.monotonic() - began)
        return
    installed = version_in(folder, "ray")
    if (version, installed) in tried:
        yield Result(version, installed, "-", "is the oldest and the newest", time.monotonic() - began)
        return
    tried.add((version, installed))
    for part in parts:
        began = time.monotonic()
        command = [folder / "bin" / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *PARTS[part], *arguments]
        report = folder.with_name(f"{version}-{installed}-{part}.log")
        with report.open("w") as printed:
            done = subprocess.run(command, cwd=ROOT, stdout=printed, stderr=subprocess.STDOUT, check=False)
        lines = report.read_text().strip().splitlines() or [f"status {done.returncode}"]
        for line in lines:
            if line.startswith(("FAILED", "ERROR")):
                print(line, flush=True)
        outcome = "passes: " if done.returncode == 0 else f"FAILS, see {report.relative_to(ROOT)}: "
        yield Result(version, installed, part, outcome + lines[-1].strip("= "), time.monotonic() - began)


def main() -> int:
    """Run the matrix; return 1 if a part fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=",".join(PYTHONS), help="minor versions, such as 3.12,3.13")
    parser.add_argument("--ray", default=",".join(RAYS), help="newest, oldest or both")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("arguments", nargs="*", help="for pytest, behind --")
    given = parser.parse_args()
    results = []
    tried: set[tuple[str, str]] = set()
    for version in given.python.split(","):
        for ray in given.ray.split(","):
            for result in combine(version, ray, given.parts.split(","), given.arguments, tried):
                print(result, flush=True)
                results.append(result)
    print("\n".join(["", *map(str, results)]))
    return int(any(result.outcome.startswith("FAILS") for result in results))


if __name__ == "__main__":
    sys.exit(main())
