"""Warnings: what they say, and where."""

import builtins
import pickle
import warnings

import pytest

from nsactors.errors import (
    EngineStartError,
    EngineStartWarning,
    LargeCaptureWarning,
    NsactorsWarning,
    SpillWarning,
    VersionWarning,
    warn_caller,
)

WARNINGS = [
    LargeCaptureWarning("simulate", "the global `table`", 80_000_000, "push it once"),
    SpillWarning(60_000_000, 40_000_000, 200_000_000),
    EngineStartWarning(EngineStartError(3, "it has no place yet")),
    VersionWarning({"numpy": ("2.4.6", "1.26.0")}),
]


@pytest.mark.parametrize("warning", WARNINGS, ids=lambda warning: type(warning).__name__)
def test_a_warning_is_a_user_warning_and_survives_pickle(warning: NsactorsWarning) -> None:
    twin = pickle.loads(pickle.dumps(warning))
    assert isinstance(twin, UserWarning)
    assert (str(twin), vars(twin)) == (str(warning), vars(warning))


def test_a_large_capture_names_the_variable_its_size_and_what_to_do() -> None:
    assert str(WARNINGS[0]) == "`simulate` carries the global `table` (80 MB) to the engines: push it once"


def test_a_spill_says_how_much_is_free_and_what_to_do() -> None:
    text = str(WARNINGS[1])
    assert "60 MB go into the object store of this machine, where 40 MB of 200 MB are free" in text
    assert "rc.memory()" in text
    assert "object_store_memory" in text


def test_other_versions_stand_in_a_table() -> None:
    assert "           here   cluster\n    numpy  2.4.6  1.26.0\n" in str(WARNINGS[3])


def test_a_warning_points_at_the_users_line_however_deep_the_package_is() -> None:
    source = "def outer(f): return inner(f)\ndef inner(f): return f()"
    package = {"__name__": "nsactors.views.deep", "__builtins__": builtins}
    exec(source, package)
    with pytest.warns(SpillWarning) as caught:
        package["outer"](lambda: warn_caller(SpillWarning(1, 2, 3)))  # type: ignore[operator]
    assert caught[0].filename == __file__


def test_a_warning_can_be_turned_into_an_error() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", NsactorsWarning)
        with pytest.raises(SpillWarning):
            warn_caller(SpillWarning(1, 2, 3))
