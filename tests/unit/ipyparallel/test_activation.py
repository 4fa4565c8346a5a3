"""The magics of this package take the place of those that its first client has added to an IPython session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import nsactors
import nsactors.ipyparallel as ipp

IPython = pytest.importorskip("IPython")


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    yield shell
    shell.extension_manager.unload_extension("nsactors")
    shell.history_manager.end_session()


def home(shell: Any) -> str:
    """Return the module of ``%px``; nothing if there is none."""
    function = shell.magics_manager.magics["line"].get("px")
    return "" if function is None else str(function.__module__)


def test_the_first_client_has_magics_of_this_package_until_they_are_removed(shell: Any) -> None:
    with ipp.Cluster(n=1, backend="local") as rc:
        assert home(shell) == "nsactors.ipyparallel.client.magics"
        first = shell.magics_manager.magics["line"]["px"]
        with ipp.Client(rc.cluster.core.connect_client_sync()):
            assert shell.magics_manager.magics["line"]["px"] is first
        shell.run_line_magic("px", "x = 5")
        assert rc[0]["x"] == 5
        shell.extension_manager.unload_extension("nsactors")
        with rc.cluster.connect_client_sync():
            assert home(shell) == ""


def test_the_output_of_a_single_engine_has_its_number_if_it_is_streamed(
    shell: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ipp.Cluster(n=1, backend="local") as rc:
        for options, shown in (("", "[stdout:0] \nhi\n"), ("--no-stream", "hi\n"), ("--group-outputs=type", "hi\n")):
            rc[0].activate()
            capsys.readouterr()
            shell.run_cell_magic("px", f"--block {options}", "print('hi')")
            assert capsys.readouterr().out == shown
        monkeypatch.setenv("IPP_NONINTERACTIVE", "1")
        rc[0].activate()
        shell.run_cell_magic("px", "--block", "print('hi')")
        assert capsys.readouterr().out == "hi\n"


def test_a_value_has_the_number_of_its_engine_if_output_is_grouped_by_engines(
    shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with ipp.Cluster(n=2, backend="local") as rc:
        result = rc[:].execute("1 + 1", silent=False, block=True)
        for groups, number in (("engine", 2), ("type", 0)):
            result.display_outputs(groups)
            assert capsys.readouterr().out.count("[output:") == number


def test_magics_of_the_user_stay(shell: Any) -> None:
    shell.register_magic_function(print, "line", "px")
    with ipp.Cluster(n=1, backend="local"):
        assert shell.magics_manager.magics["line"]["px"] is print


def test_magics_of_an_earlier_client_of_nsactors_stay(shell: Any) -> None:
    with nsactors.Cluster(n=1, backend="local"), ipp.Cluster(n=1, backend="local"):
        assert home(shell) == "nsactors.magics.extension"
