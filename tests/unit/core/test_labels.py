"""Conditions on labels."""

import pytest

from nsactors.core.labels import has_labels

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
