"""Growth is distinguished from the ups and downs of processes that come and go."""

from __future__ import annotations

import os

from tests.chaos.readings import Growth, Reading, Size, growth, read

WARM_UP_S = 60.0


def reading(at_s: float, memory: float, *, engines: int = 2) -> Reading:
    return Reading(at_s, {"engine": Size(engines, 50.0, memory), "Ray's raylet": Size(1, 90.0, memory)})


def test_growth_is_between_the_medians_of_the_first_and_the_last_third_after_the_warm_up() -> None:
    memory = [10, 500, 100, 110, 90, 70, 70, 70, 120, 130, 400]
    grown = growth([reading(30.0 * k, value) for k, value in enumerate(memory)], WARM_UP_S)
    found = {(one.kind, one.what): (one.before, one.after) for one in grown}
    assert found["engine", "memory"] == (100, 130)
    assert found["all", "processes"] == (3, 3)


def test_more_than_a_twentieth_is_too_much_for_our_own_processes() -> None:
    grown = growth([reading(60.0, 100), reading(90.0, 100), reading(120.0, 106)], WARM_UP_S)
    assert [(one.kind, one.what) for one in grown if one.is_too_much] == [("engine", "memory")]


def test_processes_that_are_missing_for_a_moment_are_no_growth() -> None:
    grown = growth([reading(60.0 + k, 100, engines=1 if k == 4 else 2) for k in range(9)], WARM_UP_S)
    assert not any(one.is_too_much for one in grown)


def test_a_few_files_more_are_no_growth() -> None:
    few, many = Growth("controller", "files", 60.0, 66.0), Growth("controller", "files", 60.0, 67.0)
    assert (few.is_too_much, many.is_too_much) == (False, True)


def test_an_engine_that_is_spared_is_judged_by_itself() -> None:
    assert read(0.0, {os.getpid()}).sizes.keys() >= {"spared engine"}
    assert Growth("spared engine", "memory", 100.0, 106.0).is_too_much


def test_a_run_that_ends_with_the_warm_up_says_nothing_of_growth() -> None:
    assert growth([reading(30.0, 100), reading(59.0, 200)], WARM_UP_S) == []


def test_this_process_is_the_client() -> None:
    size = read(0.0).sizes["client"]
    assert size.processes == 1
    assert size.files >= len(os.listdir("/proc/self/fd")) - 2
    assert size.memory > 1_000_000
