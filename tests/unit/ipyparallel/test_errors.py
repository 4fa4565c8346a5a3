"""Errors are those of both libraries."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import pytest

import nsactors
import nsactors.ipyparallel as ipp
from nsactors import errors
from nsactors.ipyparallel.error import NotProvided, RemoteError, collect_exceptions, unwrap_exception, wrap_exception
from nsactors.ipyparallel.translation import translated

ENTRY = ("ValueError", "no", "the traceback", {"engine_id": 3, "method": "apply"})


def test_a_remote_error_is_made_and_shown_as_in_ipyparallel() -> None:
    error = RemoteError(*ENTRY)
    assert (error.ename, error.evalue, error.traceback) == ("ValueError", "no", "the traceback")
    assert str(error) == "[3:apply] ValueError: no"
    assert repr(error) == "<RemoteError[3]:ValueError(no)>"
    assert error.render_traceback() == ["[3:apply]", "the traceback"]


def test_a_composite_error_is_made_of_entries_or_exceptions() -> None:
    error = ipp.CompositeError("f", [ENTRY, ValueError("x")])
    assert isinstance(error, ipp.RemoteError)
    assert isinstance(error, nsactors.CompositeError)
    assert error.msg == "f"
    assert error.args == ("ValueError", "ValueError")
    assert error.elist[0] == ENTRY
    assert [entry[0] for entry in error.elist] == ["ValueError", "ValueError"]
    with pytest.raises(ipp.RemoteError, match="3:apply"):
        error.raise_exception(0)
    with pytest.raises(IndexError):
        error.raise_exception(2)


def test_an_error_about_engines_says_what_to_do() -> None:
    assert "wait_for_engines" in str(ipp.NoEnginesRegistered())
    assert str(ipp.NoEnginesRegistered("none")) == "none"


def test_a_composite_error_shows_the_first_few() -> None:
    error = ipp.CompositeError("f", [ENTRY] * 6)
    assert str(error).splitlines() == ["f", *["[3:apply]ValueError: no"] * 4, ".... 2 more exceptions ..."]
    assert repr(error) == "CompositeError(6)"
    assert error.render_traceback(5) == ["[3:apply]:", "the traceback", ""]
    with pytest.raises(IndexError):
        error.print_traceback(6)


@pytest.mark.parametrize(
    "error",
    [
        RemoteError(*ENTRY),
        ipp.CompositeError("f", [ENTRY]),
        ipp.AlreadyDisplayedError(ipp.CompositeError("f", [ENTRY])),
        NotProvided("this", "use that"),
    ],
)
def test_an_error_survives_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)


@pytest.mark.parametrize(
    ("ours", "theirs", "ename"),
    [
        (errors.TaskAborted(1, "f"), ipp.TaskAborted, None),
        (errors.NoEngines(), ipp.NoEnginesRegistered, None),
        (errors.ImpossibleDependency("f", "x"), ipp.ImpossibleDependency, "ImpossibleDependency"),
        (errors.TaskTimeout("f", "x"), ipp.TaskTimeout, "TaskTimeout"),
        (errors.ResultUnavailable("1", "x"), KeyError, None),
    ],
)
def test_an_error_of_ours_is_one_of_theirs_as_well(ours: Any, theirs: type[Exception], ename: str | None) -> None:
    kind, text = type(ours), str(ours)
    error = translated(ours)
    assert error is ours
    assert isinstance(error, theirs)
    assert isinstance(error, kind)
    assert str(error) == text
    assert isinstance(pickle.loads(pickle.dumps(error)), theirs)
    if ename is not None:
        assert isinstance(error, ipp.RemoteError)
        assert error.ename == ename


def test_translating_twice_is_translating_once() -> None:
    error = translated(errors.TaskAborted(1, "f"))
    kind = type(error)
    assert type(translated(error)) is kind


def test_other_values_stay_as_they_are() -> None:
    error = ValueError("x")
    assert translated(error) is error
    assert translated(5) == 5


def test_errors_among_results_are_raised_together() -> None:
    assert collect_exceptions([1, 2]) == [1, 2]
    with pytest.raises(ipp.CompositeError, match="raised in: f") as info:
        collect_exceptions({0: 1, 1: RemoteError(*ENTRY), 2: ipp.CompositeError("g", [ENTRY, ENTRY])}, "f")
    assert len(info.value.elist) == 3


def test_an_exception_is_wrapped_and_unwrapped() -> None:
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        error = unwrap_exception(wrap_exception({"engine_id": 1, "method": "apply"}))
    assert error.ename == "ZeroDivisionError"
    assert error.engine_info["engine_id"] == 1


def test_only_an_engine_becomes_a_kernel() -> None:
    with pytest.raises(errors.CapabilityError, match=r"give a view of one, such as rc\[3\]"):
        ipp.bind_kernel()


def test_dask_is_asked_for_where_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with ipp.Cluster(n=1, backend="local") as rc:
        with pytest.raises(errors.PackageMissing, match="pip install distributed"):
            rc.become_dask()
        with pytest.raises(NotProvided, match="nanny"):
            rc.become_dask(nanny=True)


@pytest.mark.parametrize("timeout", [None, "5"])
def test_a_client_refuses_a_limit_that_is_no_number(timeout: Any) -> None:
    with pytest.raises(errors.WrongType, match="timeout"):
        ipp.Client("lab", timeout=timeout)
