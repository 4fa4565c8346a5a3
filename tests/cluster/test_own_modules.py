"""A program's own modules on engines of a cluster in the background, which was started elsewhere."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import venv
import zipapp
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.background import CommandLine

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(900)]

SCRIPT = """
import json

import calc
from nsactors import Client

rc = Client("lab")
view, balanced = rc[:], rc.load_balanced_view()
found = {
    "call": view.apply_sync(calc.scaled, 10),
    "map": view.map_sync(calc.scaled, [1, 2]),
    "tasks": balanced.map_sync(calc.scaled, [1, 2, 3]),
    "by value": view.apply_sync(lambda: calc.scaled(3)),
}
view.execute("import calc", block=True)
found["cell"] = view["calc.scaled(4)"]
view.push({"kept": calc.Kept(2)}, block=True)
found["instance"] = view["kept.scaled()"]
found["class"] = all(type(kept) is calc.Kept for kept in view["kept"])
print(json.dumps(found))
rc.close()
"""
MODULES = {
    "calc.py": """
        from calc_parts import factor
        from calc_parts.numbers import FACTOR
        TABLE = [FACTOR * k for k in range(4)]
        def scaled(x):
            assert TABLE[1] == factor()
            return factor() * x
        class Kept:
            def __init__(self, x): self.x = x
            def scaled(self): return scaled(self.x)
        """,
    "calc_parts/__init__.py": """
        from .numbers import FACTOR
        def factor(): return FACTOR
        """,
}
_CLOCK = itertools.count(1_600_000_000, 10)


def write(folder: Path, factor: int) -> None:
    """Write the program, with this number in a submodule of it; Python compares times in seconds."""
    files = MODULES | {"calc_parts/numbers.py": f"FACTOR = {factor}\n", "script.py": SCRIPT, "__main__.py": SCRIPT}
    for name, source in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        at = next(_CLOCK)
        os.utime(path, (at, at))


def expected(factor: int) -> dict[str, Any]:
    return {
        "call": [10 * factor] * 2,
        "map": [factor, 2 * factor],
        "tasks": [factor, 2 * factor, 3 * factor],
        "by value": [3 * factor] * 2,
        "cell": [4 * factor] * 2,
        "instance": [2 * factor] * 2,
        "class": True,
    }


class Runner:
    """Runs programs from a folder that is not theirs."""

    def __init__(self, lab: CommandLine, elsewhere: Path) -> None:
        self._lab = lab
        self._elsewhere = elsewhere

    def __call__(
        self, *arguments: str | Path, cwd: Path | None = None, python: str | Path = sys.executable, **options: Any
    ) -> str:
        """Run Python to its end; what it wrote, all of it to stdout."""
        done = subprocess.run(
            [str(python), *map(str, arguments)],
            env=self._lab.environment,
            cwd=cwd or self._elsewhere,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            **options,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def run(lab: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(lab, tmp_path_factory.mktemp("elsewhere"))


def test_a_script_that_is_edited_is_right_each_time_however_it_is_run(run: Runner, tmp_path: Path) -> None:
    for factor in (1, 22):
        write(tmp_path, factor)
        assert json.loads(run(tmp_path / "script.py")) == expected(factor)
    write(tmp_path, 4444)
    assert json.loads(run(tmp_path)) == expected(4444)
    write(tmp_path, 5)
    zipapp.create_archive(tmp_path, tmp_path.with_suffix(".pyz"))
    assert json.loads(run(tmp_path.with_suffix(".pyz"))) == expected(5)


def test_under_pytest_tests_and_what_they_test_are_found(run: Runner, tmp_path: Path) -> None:
    write(tmp_path / "src", 7)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\npythonpath = ['src']\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_calc.py").write_text(
        textwrap.dedent("""
            import calc
            from nsactors import Client

            def of_this_test(x):
                return calc.scaled(x) + 1

            def test_it():
                with Client("lab") as rc:
                    assert rc[:].apply_sync(of_this_test, 2) == [15, 15]
            """)
    )
    assert "1 passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", cwd=tmp_path)


def test_scripts_that_the_command_runs_find_what_is_beside_them(lab: CommandLine, tmp_path: Path) -> None:
    write(tmp_path, 12)
    (tmp_path / "steps.py").write_text("import calc; print(calc.scaled(1))")
    for factor in (12, 1313):
        write(tmp_path, factor)
        printed = lab("run", str(tmp_path / "steps.py")).stdout
        assert {line.split()[-1] for line in printed.splitlines()} == {str(factor)}


def test_programs_without_a_file_find_what_is_in_their_folder(run: Runner, tmp_path: Path) -> None:
    write(tmp_path, 8)
    program = "import calc, json; from nsactors import Client; print(Client('lab')[:].apply_sync(calc.scaled, 1))"
    assert run("-", cwd=tmp_path, input=program) == "[8, 8]\n"


def test_what_a_client_reloads_its_engines_run_with_the_next_call(run: Runner, tmp_path: Path) -> None:
    write(tmp_path, 9)
    program = tmp_path / "reloads.py"
    program.write_text("""
import importlib, os, sys
import calc, calc_parts, calc_parts.numbers as numbers
from nsactors import Client
with Client("lab") as rc:
    rc[:].push({"kept": calc.Kept(1)}, block=True)
    print(rc[:].apply_sync(calc.scaled, 1))
    with open(numbers.__file__, "w") as file:
        file.write("FACTOR = 10101")
    print(rc[:].apply_sync(calc.scaled, 1))
    for module in (numbers, calc_parts, calc):
        importlib.reload(module)
    print(rc[:].apply_sync(calc.scaled, 1), rc[:]["kept.scaled()"])
with Client("lab", modules="off") as rc:
    print("calc" in sys.modules, rc[:].apply_sync(lambda: "/reloads" in str(__import__("sys").path)))
""")
    assert run(program) == "[9, 9]\n[9, 9]\n[10101, 10101] [10101, 10101]\nTrue [False, False]\n"


def test_detached_tasks_find_the_modules_of_who_submitted_them(run: Runner, tmp_path: Path) -> None:
    write(tmp_path, 11)
    program = tmp_path / "detached.py"
    program.write_text("""
import calc
from nsactors import Client
with Client("lab") as rc:
    view = rc.load_balanced_view(detached=True)
    print(view.apply_sync(calc.scaled, 1), view.map_sync(calc.Kept.scaled, [calc.Kept(2), calc.Kept(3)]))
""")
    assert run(program) == "11 [22, 33]\n"
    write(tmp_path, 1212)
    assert run(program) == "1212 [2424, 3636]\n"


# As setuptools writes it for a package that no entry of sys.path could stand for.
FINDER = """
import importlib.util, sys

MAPPING = {mapping!r}

class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in MAPPING:
            return importlib.util.spec_from_file_location(name, MAPPING[name])

sys.meta_path.append(Finder)
"""


def make_environment(folder: Path) -> tuple[Path, Path]:
    """Make a virtual environment with what this Python has; its Python and its folder of packages."""
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text("\n".join(entry for entry in sys.path if os.path.isdir(entry)))
    return folder / "bin/python", packages


@pytest.mark.parametrize("kind", ["path", "finder"])
def test_editable_installs_of_the_clients_environment_are_found(run: Runner, tmp_path: Path, kind: str) -> None:
    python, packages = make_environment(tmp_path / "env")
    write(tmp_path / "src", 14)
    if kind == "path":
        (packages / "__editable__.calc-1.0.pth").write_text(str(tmp_path / "src"))
    else:
        names = {"calc": "calc.py", "calc_parts": "calc_parts/__init__.py"}
        mapping = {name: str(tmp_path / "src" / file) for name, file in names.items()}
        (packages / "__editable___calc_1_0_finder.py").write_text(FINDER.format(mapping=mapping))
        (packages / "__editable__.calc-1.0.pth").write_text("import __editable___calc_1_0_finder")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/program.py").write_text(SCRIPT)
    assert json.loads(run(tmp_path / "bin/program.py", python=python)) == expected(14)
    write(tmp_path / "src", 1515)
    assert json.loads(run(tmp_path / "bin/program.py", python=python)) == expected(1515)


EXTENSION = """
#include <Python.h>
static PyObject *doubled(PyObject *self, PyObject *number) { return PyNumber_Add(number, number); }
static PyMethodDef methods[] = {{"doubled", doubled, METH_O, ""}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "fast", "", -1, methods};
PyMODINIT_FUNC PyInit_fast(void) { return PyModule_Create(&module); }
"""


@pytest.mark.skipif(
    not shutil.which("cc") or not os.path.exists(f"{sysconfig.get_path('include')}/Python.h"),
    reason="needs a C compiler and Python's headers",
)
def test_an_extension_module_beside_the_script_is_found(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "fast.c").write_text(EXTENSION)
    built = tmp_path / f"fast{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = f"-I{sysconfig.get_path('include')}"
    subprocess.run(["cc", "-shared", "-fPIC", include, str(tmp_path / "fast.c"), "-o", str(built)], check=True)
    (tmp_path / "script.py").write_text("""
import fast
from nsactors import Client
with Client("lab") as rc:
    print(rc[:].apply_sync(fast.doubled, 21), rc.load_balanced_view().map_sync(lambda x: fast.doubled(x), [1, 2]))
""")
    assert run(tmp_path / "script.py") == "[42, 42] [2, 4]\n"
