"""``import ipyparallel`` that means this package."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

import nsactors.ipyparallel as ipp
from nsactors.ipyparallel.__main__ import main


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in sys.modules if name.partition(".")[0] == "ipyparallel"]:
        monkeypatch.delitem(sys.modules, name)
    ipp.install()
    yield
    ipp.uninstall()


@pytest.mark.usefixtures("installed")
def test_both_names_give_the_same_module_and_classes() -> None:
    import ipyparallel
    from ipyparallel import Client, error
    from ipyparallel.client.view import DirectView

    assert ipyparallel is ipp
    assert Client is ipp.Client
    assert error is ipp.error
    assert DirectView is ipp.DirectView
    assert ipp.__spec__ is not None
    assert ipp.__spec__.name == "nsactors.ipyparallel"


@pytest.mark.usefixtures("installed")
def test_a_module_that_is_not_provided_says_where_to_look() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"nsactors does not provide ipyparallel\.cluster"):
        import ipyparallel.cluster.launcher  # noqa: F401


@pytest.mark.usefixtures("installed")
def test_installing_twice_is_installing_once() -> None:
    before = list(sys.meta_path)
    ipp.install()
    assert sys.meta_path == before


def test_ipyparallel_itself_is_left_alone_once_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipyparallel", type(sys)("ipyparallel"))
    with pytest.raises(RuntimeError, match="ipyparallel itself has been imported"):
        ipp.install()


def test_a_script_runs_with_the_alias_and_its_arguments(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", list(sys.path))
    script = tmp_path / "script.py"
    script.write_text("import sys, ipyparallel\nprint(__name__, sys.argv[1:], ipyparallel.__version__)")
    try:
        main([str(script), "-n", "2"])
    finally:
        ipp.uninstall()
    assert capsys.readouterr().out == "__main__ ['-n', '2'] 9.2.0\n"


def test_importing_the_package_leaves_heavy_libraries_out() -> None:
    code = "import sys, nsactors.ipyparallel as ipp; ipp.install(); import ipyparallel; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"ray", "IPython", "numpy", "zmq"}.isdisjoint(loaded)
