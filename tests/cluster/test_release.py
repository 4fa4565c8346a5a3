"""A release, from its source distribution to an environment of its own in which the demo runs; it takes minutes.

The folder of an existing release is tested with ``NSACTORS_DIST=dist``; without, a release is built.
"""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import nsactors

ROOT = Path(__file__).parents[2]
PREFIX = f"nsactors-{nsactors.__version__}"

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.full_size, pytest.mark.timeout(900)]


def run(*command: str | Path, **environment: str) -> str:
    """Run a command without this checkout in Python's path, and return its output."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, command)), cwd="/", env={**kept, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the release."""
    if built := os.environ.get("NSACTORS_DIST"):
        return Path(built).absolute()
    pytest.importorskip("build", reason="needs the extra `release`")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)  # the wheel is made from the source distribution
    return folder


@pytest.fixture(scope="module")
def fresh(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a new environment, into which the wheel has been installed with what it requires."""
    folder = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", folder)
    run(folder / "bin" / "pip", "install", "--quiet", dist / f"{PREFIX}-py3-none-any.whl")
    return folder / "bin"


def test_the_index_would_take_both_files(dist: Path) -> None:
    pytest.importorskip("twine", reason="needs the extra `release`")
    assert {path.name for path in dist.iterdir()} == {f"{PREFIX}-py3-none-any.whl", f"{PREFIX}.tar.gz"}
    run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir())


def test_the_changelog_has_a_dated_section_for_the_version() -> None:
    heading = rf"^## \[{re.escape(nsactors.__version__)}\] - \d{{4}}-\d\d-\d\d$"
    assert re.search(heading, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_demo_runs_in_a_fresh_environment(fresh: Path, tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipython")}
    assert run(fresh / "nsactors", "--version") == f"nsactors, version {nsactors.__version__}\n"
    location = run(fresh / "python", "-c", "import nsactors; print(nsactors.__file__)")
    assert Path(location).is_relative_to(fresh.parent)
    run(fresh / "nsactors", "demo", **environment)


def test_the_tests_of_the_source_distribution_can_be_collected(dist: Path, tmp_path: Path) -> None:
    with tarfile.open(dist / f"{PREFIX}.tar.gz") as sdist:
        sdist.extractall(tmp_path, filter="data")
    said = run(
        sys.executable, "-m", "pytest", "--collect-only", "-q", f"--rootdir={tmp_path / PREFIX}", tmp_path / PREFIX
    )
    assert "error" not in said.splitlines()[-1]
