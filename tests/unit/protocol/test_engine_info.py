"""Conditions on labels."""

import pytest

from nsactors.protocol.engine_info import compare, has_labels

LABELS = [{}, {"zone": "a"}, {"zone": "b", "disk": "fast"}]


@pytest.mark.parametrize(
    ("condition", "having"),
    [
        ("a", [1]),
        ("!a", [0, 2]),
        ("in(a, b)", [1, 2]),
        ("in(b)", [2]),
        ("!in(a,b)", [0]),
    ],
)
def test_conditions_mean_what_they_mean_to_ray(condition: str, having: list[int]) -> None:
    assert [number for number, labels in enumerate(LABELS) if has_labels(labels, {"zone": condition})] == having


def test_every_condition_must_hold() -> None:
    selector = {"zone": "in(a, b)", "disk": "fast"}
    assert [labels for labels in LABELS if has_labels(labels, selector)] == [LABELS[2]]


def test_without_conditions_everything_will_do() -> None:
    assert all(has_labels(labels, {}) for labels in LABELS)


# Which differences of versions are reported, and which prevent a client from joining.


THERE = {"python": "3.11.7", "numpy": "2.1.0", "ray": "2.60.0"}


def test_equal_versions_are_no_difference() -> None:
    assert compare(THERE, THERE) == ({}, False)


def test_another_minor_version_of_python_is_fatal() -> None:
    assert compare({**THERE, "python": "3.12.7"}, THERE) == ({"python": ("3.12.7", "3.11.7")}, True)


@pytest.mark.parametrize(("name", "version"), [("python", "3.11.2"), ("numpy", "1.26.0"), ("ray", "2.61.0")])
def test_any_other_difference_is_told(name: str, version: str) -> None:
    assert compare({**THERE, name: version}, THERE) == ({name: (version, THERE[name])}, False)


def test_another_protocol_is_fatal_also_where_it_has_no_number_yet() -> None:
    assert compare({"protocol": "3"}, {"protocol": "2"}) == ({"protocol": ("3", "2")}, True)
    assert compare({"protocol": "2"}, {}) == ({"protocol": ("2", "1")}, True)
    assert compare({"protocol": "2"}, {"protocol": "2"}) == ({}, False)


def test_what_only_one_of_them_has_is_no_difference() -> None:
    assert compare({"python": "3.11.7", "pandas": "3.0"}, THERE) == ({}, False)
    assert compare(THERE, {}) == ({}, False)


def test_minor_versions_are_numbers_not_beginnings() -> None:
    assert compare({"python": "3.1.9"}, {"python": "3.11.9"}).fatal
