import os
import subprocess
import sys
from pathlib import Path

import pytest

import tests

CONFTEST = """
from tests.repeats import Repeats

def pytest_addoption(parser):
    parser.addoption("--repeat-failed", type=int, default=0)

def pytest_configure(config):
    config.addinivalue_line("markers", "ray: needs Ray")
    if limit := config.getoption("--repeat-failed"):
        config.pluginmanager.register(Repeats(limit))
"""

UNSTEADY = """
import pathlib, pytest

on_ray = getattr(pytest.mark, "ray")

@on_ray
def test_unsteady():
    ran = pathlib.Path("ran")
    with ran.open("a") as file:
        file.write("x")
    assert ran.read_text() != "x"
"""

FAILING = """
@on_ray
def test_failing():
    assert False
"""

WITHOUT_RAY = """
def test_without_ray():
    ran = pathlib.Path("ran without ray")
    assert ran.exists() or ran.write_text("")
"""

LEAVING = """
@pytest.fixture
def clean():
    yield
    left = pathlib.Path("left")
    assert left.exists() or left.write_text("")

@on_ray
def test_leaving(clean):
    pass
"""


def run(folder: Path, program: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a program in an empty folder."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_program.py").write_text(program)
    (folder / "pytest.ini").write_text("[pytest]")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(tests.__path__[0]).parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_one_that_passes_when_repeated_is_named_and_does_not_fail_the_session(tmp_path: Path) -> None:
    done = run(tmp_path, UNSTEADY, "--repeat-failed=1")
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "ran").read_text() == "xxxx"
    _, _, told = done.stdout.partition("unsteady: failed once, and passed 3 times when repeated")
    assert "test_program.py::test_unsteady" in told
    assert "def test_unsteady" in done.stdout  # its first failure


@pytest.mark.parametrize(
    ("program", "limit"),
    [
        (UNSTEADY, 0),
        (UNSTEADY + FAILING, 1),
        (UNSTEADY + FAILING, 2),
        (UNSTEADY + WITHOUT_RAY, 2),
        (UNSTEADY + LEAVING, 2),
    ],
    ids=["not asked for", "too many", "fails again", "needs no Ray", "at the end of a test"],
)
def test_other_failures_fail_the_session(tmp_path: Path, program: str, limit: int) -> None:
    done = run(tmp_path, program, f"--repeat-failed={limit}")
    assert done.returncode == 1, done.stdout
    assert "unsteady:" not in done.stdout
