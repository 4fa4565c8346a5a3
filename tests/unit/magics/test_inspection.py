"""The line of %pxpeek, and the file for the profile of a cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.error import UsageError

from nsactors.magics.inspection import profiled, split_peek
from nsactors.magics.options import Options


@pytest.mark.parametrize(
    ("line", "engines", "expression"),
    [
        ("len(x)", [], "len(x)"),
        ("0,2 len(x)", ["0,2"], "len(x)"),
        ("all x", ["all"], "x"),
        ("-1 x", ["-1"], "x"),
        ("::2 x", ["::2"], "x"),
        ("0 (a, b)", ["0"], "(a, b)"),
        ("0 'text'", ["0"], "'text'"),
        ("0 not x", ["0"], "not x"),
        ("5", [], "5"),
        ("5 + x", [], "5 + x"),
        ("5 in x", [], "5 in x"),
        ("5 not in x", [], "5 not in x"),
        ("5 if x else y", [], "5 if x else y"),
        ("[0] + x", [], "[0] + x"),
        ("all(x)", [], "all(x)"),
    ],
)
def test_engines_may_stand_before_the_expression(line: str, engines: list[str], expression: str) -> None:
    assert split_peek(f" {line} ") == (engines, expression)


def test_without_an_expression_the_use_is_told() -> None:
    with pytest.raises(UsageError, match="takes an expression"):
        split_peek(" ")


def measuring(save: Callable[[str], object]) -> Any:
    """A view whose profiles are saved by a function."""

    @contextmanager
    def block(how: str) -> Iterator[Any]:
        yield SimpleNamespace(save=save)

    return SimpleNamespace(profiled=block)


def test_a_file_that_cannot_be_written_is_refused_before_the_cell_runs(tmp_path: Path) -> None:
    options = Options(block=True, profile_out=str(tmp_path / "missing" / "x.svg"))
    ran = False
    with pytest.raises(UsageError, match=r"cannot write .*x\.svg.*: No such file"), profiled(measuring(abs), options):
        ran = True
    assert not ran


def test_a_profile_is_saved_and_nothing_is_left_of_the_check_before_it(tmp_path: Path) -> None:
    file = tmp_path / "x.svg"
    with profiled(measuring(lambda name: Path(name).write_text("saved")), Options(block=True, profile_out=str(file))):
        assert not file.exists()
    assert file.read_text() == "saved"


def test_a_profile_that_cannot_be_saved_does_not_hide_the_error_of_the_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(name: str) -> None:
        raise OSError("no space left")

    options = Options(block=True, profile_out=str(tmp_path / "x.svg"))
    with pytest.raises(ZeroDivisionError), profiled(measuring(fail), options):
        raise ZeroDivisionError
    assert "The profile could not be saved: no space left" in capsys.readouterr().err
