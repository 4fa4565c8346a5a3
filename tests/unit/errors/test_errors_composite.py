"""Failures of several engines, raised as one."""

import copy
import pickle

import pytest

from nsactors.errors import CompositeError, EngineLost, RemoteError
from tests.unit.errors.raising import remote


@pytest.fixture
def composite() -> CompositeError:
    zero = [remote("1 / 0", engine_id=i, cell=3) for i in (0, 1, 2, 3, 7)]
    key = remote("{}['k']", engine_id=5, cell=3)
    lost = EngineLost(6, "execute", "killed by signal 9 (SIGKILL)")
    return CompositeError("execute failed on 7 of 8 engines", [*zero, key, lost])


def test_the_text_has_one_line_per_group(composite: CompositeError) -> None:
    assert str(composite).splitlines() == [
        "execute failed on 7 of 8 engines",
        "ZeroDivisionError: division by zero  [engines 0-3, 7]  <cell 3>, line 1: 1 / 0",
        "KeyError: 'k'  [engine 5]  <cell 3>, line 1: {}['k']",
        "EngineLost: engine 6 died while running execute: killed by signal 9 (SIGKILL)  [engine 6]",
    ]


def test_the_text_of_very_different_failures_is_bounded() -> None:
    error = CompositeError("", [ValueError(n) for n in range(100)])
    assert len(str(error).splitlines()) == 11
    assert str(error).endswith("90 more kinds of failure, in .groups")


def test_except_star_picks_by_class(composite: CompositeError) -> None:
    engine_ids: list[int] = []
    rest: list[Exception] = []
    try:
        raise composite
    except* ZeroDivisionError as group:
        engine_ids += [error.engine_id for error in group.exceptions]  # type: ignore[attr-defined]
    except* Exception as group:
        rest += group.exceptions
    assert engine_ids == [0, 1, 2, 3, 7]
    assert [type(error).__name__ for error in rest] == ["KeyError", "EngineLost"]


def test_it_is_caught_as_an_exception_group(composite: CompositeError) -> None:
    with pytest.raises(ExceptionGroup):
        raise composite


def test_split_gives_composites_again(composite: CompositeError) -> None:
    remote_ones, others = composite.split(RemoteError)
    assert isinstance(remote_ones, CompositeError)
    assert isinstance(others, CompositeError)
    assert len(remote_ones.exceptions) == 6


@pytest.mark.parametrize(
    "clone",
    [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)
def test_it_survives_being_cloned(composite: CompositeError, clone: object) -> None:
    twin = clone(composite)  # type: ignore[operator]
    assert type(twin) is CompositeError
    assert str(twin) == str(composite)
    assert isinstance(twin.exceptions[0], ZeroDivisionError)


def test_elist_has_the_entries_ipyparallel_users_know(composite: CompositeError) -> None:
    ename, evalue, text, engine_info = composite.elist[5]
    assert (ename, evalue) == ("KeyError", "'k'")
    assert text.endswith("KeyError: 'k'")
    assert engine_info["engine_id"] == 5
    assert composite.elist[6][3] == {"engine_id": 6, "method": "execute"}


def test_one_failure_can_be_raised_alone(composite: CompositeError) -> None:
    with pytest.raises(KeyError):
        composite.raise_exception(5)


@pytest.mark.parametrize("excid", [7, -1])
def test_raising_a_failure_that_is_not_there_is_an_index_error(composite: CompositeError, excid: int) -> None:
    with pytest.raises(IndexError, match="below 7"):
        composite.raise_exception(excid)


def test_print_traceback_shows_each_group_once(composite: CompositeError, capsys: pytest.CaptureFixture[str]) -> None:
    composite.print_traceback()
    assert capsys.readouterr().out.count("ZeroDivisionError: division by zero") == 2  # its line, and its panel


def test_print_traceback_of_one_failure_shows_it_alone(
    composite: CompositeError, capsys: pytest.CaptureFixture[str]
) -> None:
    composite.print_traceback(5)
    printed = capsys.readouterr().out
    assert "KeyError" in printed
    assert "ZeroDivisionError" not in printed


def test_the_repr_names_the_failures() -> None:
    assert repr(CompositeError("both", [ValueError(1)])) == "CompositeError('both', [ValueError(1)])"
