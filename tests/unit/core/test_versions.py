"""Which differences of versions are told, and which prevent a client from joining."""

import pytest

from nsactors.core.versions import compare

THERE = {"python": "3.11.7", "numpy": "2.1.0", "ray": "2.60.0"}


def test_equal_versions_are_no_difference() -> None:
    assert compare(THERE, THERE) == ({}, False)


def test_another_minor_version_of_python_is_fatal() -> None:
    assert compare({**THERE, "python": "3.12.7"}, THERE) == ({"python": ("3.12.7", "3.11.7")}, True)


@pytest.mark.parametrize(("name", "version"), [("python", "3.11.2"), ("numpy", "1.26.0"), ("ray", "2.61.0")])
def test_any_other_difference_is_told(name: str, version: str) -> None:
    assert compare({**THERE, name: version}, THERE) == ({name: (version, THERE[name])}, False)


def test_what_only_one_of_them_has_is_no_difference() -> None:
    assert compare({"python": "3.11.7", "pandas": "3.0"}, THERE) == ({}, False)
    assert compare(THERE, {}) == ({}, False)


def test_minor_versions_are_numbers_not_beginnings() -> None:
    assert compare({"python": "3.1.9"}, {"python": "3.11.9"}).fatal
