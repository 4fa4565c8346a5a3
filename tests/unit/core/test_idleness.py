"""A cluster ends by itself when nobody has used it for long enough, and not before."""

import pytest

from nsactors.core.idleness import Idleness

LIMIT_S = 60.0
NOTHING = {"clients": 0, "running": 0, "completed": 0}


def test_it_is_over_when_nothing_has_happened_for_the_limit() -> None:
    idleness = Idleness(LIMIT_S, at=0)
    assert not idleness.is_over(**NOTHING, at=59)
    assert idleness.is_over(**NOTHING, at=60)


@pytest.mark.parametrize("use", [{"clients": 1}, {"running": 1}, {"completed": 1}])
def test_whoever_uses_it_begins_the_limit_anew(use: dict[str, int]) -> None:
    idleness = Idleness(LIMIT_S, at=0)
    assert not idleness.is_over(**{**NOTHING, **use}, at=100)
    after = {**NOTHING, "completed": use.get("completed", 0)}
    assert not idleness.is_over(**after, at=159)
    assert idleness.is_over(**after, at=160)


def test_work_that_came_and_went_between_two_looks_counts() -> None:
    idleness = Idleness(LIMIT_S, at=0)
    idleness.is_over(**NOTHING, at=50)
    assert not idleness.is_over(clients=0, running=0, completed=3, at=70)
