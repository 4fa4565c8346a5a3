"""Modules imported when they are first used, and Ray's scripts run that way."""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsactors.transport.ray.scripts import run_script, start_node
from nsactors.transport.ray.scripts.run_script import imported_on_use


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that modules are imported from; what was imported from it is forgotten afterwards."""
    (tmp_path / "slow_one").mkdir()
    (tmp_path / "slow_one" / "__init__.py").write_text("answer = 42\n")
    (tmp_path / "slow_one" / "inner.py").write_text("depth = 2\n")
    (tmp_path / "wants_all.py").write_text("import slow_one\n")
    (tmp_path / "wants_name.py").write_text("from slow_one import answer\n")
    (tmp_path / "wants_inner.py").write_text("import slow_one.inner\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.usefixtures("folder")
def test_a_module_is_imported_when_it_is_first_used() -> None:
    with imported_on_use("slow_one"):
        user = importlib.import_module("wants_all")
    assert "slow_one" not in sys.modules
    assert user.slow_one.answer == 42
    assert "slow_one" in sys.modules


@pytest.mark.usefixtures("folder")
def test_whoever_imports_it_afterwards_gets_the_module_itself() -> None:
    with imported_on_use("slow_one"):
        user = importlib.import_module("wants_all")
    itself = importlib.import_module("slow_one")
    assert itself.__file__ is not None
    assert user.slow_one.answer is itself.answer


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("user", "value"), [("wants_name.answer", 42), ("wants_inner.slow_one.inner.depth", 2)])
def test_a_name_or_a_submodule_wanted_at_once_is_there_at_once(user: str, value: int) -> None:
    module, _, path = user.partition(".")
    with imported_on_use("slow_one"):
        found = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
        assert found == value


@pytest.mark.usefixtures("folder")
def test_what_has_been_imported_already_stays() -> None:
    itself = importlib.import_module("slow_one")
    with imported_on_use("slow_one"):
        assert importlib.import_module("slow_one") is itself
    assert sys.modules["slow_one"] is itself


@pytest.mark.usefixtures("folder")
def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with imported_on_use("slow_one"):
        user = importlib.import_module("wants_all")
    with pytest.raises(AttributeError, match="slow_one"):
        _ = user.slow_one.question


def test_a_script_finds_itself_run_by_name_with_its_own_arguments(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("import jsonschema\n")
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "worker.py"
    script.write_text(
        "import sys\n"
        "print(__name__, __file__, sys.argv, sys.path[0], 'jsonschema' in sys.modules, 'ray' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, run_script.__file__, str(script), "--one", "two"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    arguments = [str(script), "--one", "two"]
    assert done.stdout == f"__main__ {script} {arguments} {script.parent} False True\n"


def test_ray_is_imported_with_what_it_imports_when_it_connects(tmp_path: Path) -> None:
    (tmp_path / "ray" / "_common" / "usage").mkdir(parents=True)
    (tmp_path / "ray" / "__init__.py").write_text("")
    (tmp_path / "ray" / "_common" / "usage" / "usage_lib.py").write_text("import requests\n")
    script = tmp_path / "worker.py"
    script.write_text("import sys; print('requests' in sys.modules, 'ray._common.usage.usage_lib' in sys.modules)\n")
    done = subprocess.run(
        [sys.executable, run_script.__file__, str(script)],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == "False True\n"


def test_a_node_starts_without_what_is_seldom_used(tmp_path: Path) -> None:
    (tmp_path / "ray" / "scripts").mkdir(parents=True)
    (tmp_path / "ray" / "__init__.py").write_text("import jsonschema\n__version__ = '0'\n")
    (tmp_path / "ray" / "scripts" / "scripts.py").write_text(
        "import sys\ndef main(): print(sys.argv, 'jsonschema' in sys.modules)\n"
    )
    (tmp_path / "node").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", start_node.__name__, str(tmp_path / "node"), str(os.getpid()), "--head"],
        env={"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])])},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == "['ray', 'start', '--block', '--head'] False\n"
    assert not (tmp_path / "node").exists()


@pytest.mark.ray
def test_what_a_worker_cannot_write_to_its_log_is_dropped(tmp_path: Path) -> None:
    """On a full disk Ray would have a living actor without an instance, which answers nothing for ever."""
    script, errors = tmp_path / "worker.py", tmp_path / "errors"
    script.write_text(
        "import sys\n"
        "from ray._private.utils import open_log\n"
        "sys.stdout = open_log(sys.stdout.fileno(), unbuffered=True, closefd=False)\n"
        "print(':actor_name:RayEngine')\n"
        "sys.stdout.writelines(['a', 'b'])\n"
        "sys.stdout.flush()\n"
        "print(sys.stdout.fileno(), file=sys.stderr)\n"
    )
    with open("/dev/full", "w") as full, errors.open("w") as told:
        done = subprocess.run(
            [sys.executable, run_script.__file__, str(script)], stdout=full, stderr=told, check=False, timeout=60
        )
    assert (done.returncode, errors.read_text()) == (0, "1\n")
