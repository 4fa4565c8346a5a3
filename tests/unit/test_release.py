"""The files of a release, as they are built from this checkout."""

import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

import nsactors
from nsactors.cluster.own_wheel import own_wheel, wheel_name
from nsactors.system.resources import ray_was_tried
from tests.matrix import PROJECT, PYTHONS, oldest_ray

ROOT = Path(__file__).parents[2]
PREFIX = f"nsactors-{nsactors.__version__}"
GENERATED = f"{PREFIX}.dist-info/"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the source distribution and of the wheel made from it, without another environment."""
    folder = tmp_path_factory.mktemp("release")
    build = [sys.executable, "-m", "hatchling", "build", "--directory"]
    subprocess.run([*build, str(folder), "--target", "sdist"], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(folder / f"{PREFIX}.tar.gz") as sdist:
        sdist.extractall(folder / "unpacked", filter="data")
    subprocess.run([*build, str(folder), "--target", "wheel"], cwd=sources(folder), check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(release: Path) -> dict[str, bytes]:
    """The files of the wheel by their paths."""
    with zipfile.ZipFile(release / wheel_name()) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist()}


def sources(release: Path) -> Path:
    """Return the folder of the unpacked source distribution."""
    return release / "unpacked" / PREFIX


def test_the_source_distribution_holds_what_the_tests_and_the_documentation_need(release: Path) -> None:
    names = {path.name for path in sources(release).iterdir()}
    assert {"benchmarks", "docs", "examples", "nsactors", "tests"} <= names
    assert {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "mkdocs.yml"} <= names


def test_the_wheel_holds_the_files_that_hosts_receive_from_a_client(wheel: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "own.whl").write_bytes(own_wheel())
    with zipfile.ZipFile(tmp_path / "own.whl") as own:
        sent = {name: own.read(name) for name in own.namelist() if not name.startswith(GENERATED)}
    assert {name: content for name, content in wheel.items() if not name.startswith(GENERATED)} == sent


def test_the_metadata_name_the_licence_the_requirements_and_the_command(wheel: dict[str, bytes]) -> None:
    metadata = HeaderParser().parsestr(wheel[f"{GENERATED}METADATA"].decode())
    assert (metadata["Name"], metadata["Version"]) == ("nsactors", nsactors.__version__)
    assert (metadata["License-Expression"], metadata["License-File"]) == ("BSD-3-Clause", "LICENSE")
    assert wheel[f"{GENERATED}licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert metadata["Requires-Python"] == ">=3.11"
    assert any(needed.startswith("ray") for needed in metadata.get_all("Requires-Dist"))
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert b"nsactors = nsactors.cli:main" in wheel[f"{GENERATED}entry_points.txt"]


def test_versions_are_named_on_which_the_suite_runs(wheel: dict[str, bytes]) -> None:
    metadata = HeaderParser().parsestr(wheel[f"{GENERATED}METADATA"].decode())
    language = "Programming Language :: Python :: 3."
    named = [text for text in metadata.get_all("Classifier") or () if text.startswith(language)]
    assert named == [f"{language}{version.removeprefix('3.')}" for version in PYTHONS]
    assert ray_was_tried(oldest_ray(PROJECT["dependencies"]))
