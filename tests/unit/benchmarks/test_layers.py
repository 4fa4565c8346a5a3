"""Clocks on functions, and how a call's timeline is cut into layers."""

import contextlib
from collections.abc import Iterator

import pytest

from benchmarks.studies import tracing
from benchmarks.studies.layers import CLIENT, ENGINE, ORDER, Profile, as_markdown, cut
from benchmarks.studies.tracing import Span
from nsactors.protocol import targets

RESOLVE = "nsactors.protocol.targets:resolve"


@pytest.fixture
def clocked() -> Iterator[None]:
    assert tracing.install([RESOLVE]) == []
    yield
    tracing.uninstall()
    tracing.reset()


@pytest.mark.usefixtures("clocked")
def test_a_function_is_on_the_clock_wherever_it_has_been_imported() -> None:
    assert targets.resolve("all", [3, 4]) == targets.resolve(None, [3, 4]) == [3, 4]
    assert [span.name for span in tracing.collect()] == [RESOLVE, RESOLVE]


@pytest.mark.usefixtures("clocked")
def test_what_raises_is_recorded_too() -> None:
    with contextlib.suppress(Exception):
        targets.resolve("nonsense", [])
    assert len(tracing.collect()) == 1


@pytest.mark.usefixtures("clocked")
def test_a_function_can_be_repeated_with_arguments_that_it_was_seen_with() -> None:
    targets.resolve([0], [0, 1])
    assert 0 < tracing.hot_seconds([RESOLVE])[RESOLVE] < 0.01


@pytest.mark.usefixtures("clocked")
def test_a_function_that_was_not_called_is_not_repeated() -> None:
    assert tracing.hot_seconds([RESOLVE]) == {}


def test_clocks_can_be_taken_away() -> None:
    before = targets.resolve
    tracing.install([RESOLVE])
    tracing.uninstall()
    assert targets.resolve is targets.resolve is before


def test_functions_that_do_not_exist_are_named() -> None:
    unknown = ["nsactors.nowhere:f", "nsactors.protocol.targets:f", "nsactors.protocol.sequencing:SendWindow.f"]
    assert tracing.install(unknown) == unknown


def test_the_time_that_a_span_spends_in_others_is_not_its_own() -> None:
    spans = [Span("inner", 1, 2.0, 3.0), Span("inner", 1, 4.0, 6.0), Span("outer", 1, 1.0, 9.0)]
    assert [own for _, own in tracing.own_seconds(spans)] == [1.0, 2.0, 5.0]


def test_threads_run_side_by_side() -> None:
    spans = [Span("a", 1, 2.0, 3.0), Span("b", 2, 1.0, 9.0)]
    assert [own for _, own in tracing.own_seconds(spans)] == [1.0, 8.0]


PACK, HAND_OVER, DECODE = CLIENT[1], CLIENT[3], CLIENT[4]
TAKE, RUN = ENGINE[0], ENGINE[5]


@pytest.fixture
def one_call() -> dict[tuple[str, str], float]:
    here = [
        Span(PACK.names[0], 1, 1.0, 3.0),
        Span(HAND_OVER.names[0], 1, 4.0, 9.0),
        Span(DECODE.names[0], 1, 40.0, 42.0),
        Span(PACK.names[0], 1, 90.0, 91.0),  # belongs to another call
    ]
    there = [Span(TAKE.names[0], 7, 12.0, 13.0), Span(RUN.names[0], 7, 14.0, 30.0)]
    (parts,) = cut([(0.0, 50.0)], here, there)
    return parts


def test_the_parts_of_a_call_add_up_to_the_whole(one_call: dict[tuple[str, str], float]) -> None:
    assert sum(one_call.values()) == 50.0


def test_a_call_is_cut_where_it_changes_hands(one_call: dict[tuple[str, str], float]) -> None:
    assert one_call == {
        ("client", PACK.title): 2.0,
        ("client", HAND_OVER.title): 5.0,
        ("client", "book-keeping before"): 2.0,
        ("Ray", "to the engine"): 3.0,
        ("engine", TAKE.title): 1.0,
        ("engine", RUN.title): 16.0,
        ("engine", "book-keeping"): 1.0,
        ("Ray", "back to the client"): 10.0,
        ("client", DECODE.title): 2.0,
        ("client", "book-keeping after"): 8.0,
    }


def test_an_engine_may_begin_before_ray_has_returned_to_the_client() -> None:
    here = [Span(HAND_OVER.names[0], 1, 1.0, 5.0)]
    there = [Span(RUN.names[0], 7, 4.0, 6.0)]
    (parts,) = cut([(0.0, 9.0)], here, there)
    assert parts["Ray", "to the engine"] == 0.0
    assert sum(parts.values()) == 9.0


def test_every_part_has_its_place_in_the_table(one_call: dict[tuple[str, str], float]) -> None:
    assert set(one_call) <= set(ORDER)


def test_a_typical_call_is_neither_among_the_fastest_nor_the_slowest_quarter() -> None:
    key = ("client", PACK.title)
    profile = Profile([{key: seconds} for seconds in (1.0, 2.0, 4.0, 100.0)])
    assert profile.typical() == {key: 3.0}


def test_operations_stand_side_by_side_in_the_documentation() -> None:
    key = ("client", PACK.title)
    profiles = {
        "apply": Profile([{key: 20e-6}], {key: 3e-6}, [18e-6], [9e-6], [4e-6]),
        "pull": Profile([{("Ray", "to the engine"): 50e-6}], {}, [45e-6], [40e-6], [30e-6]),
    }
    assert as_markdown(profiles).splitlines() == [
        "| where | layer | apply | pull | hot |",
        "| --- | --- | --: | --: | --: |",
        f"| client | {PACK.title} | 20.0 |  | 3.0 |",
        "| Ray | to the engine |  | 50.0 |  |",
        "|  | the whole | 20 | 50 |  |",
        "|  | without clocks | 18 | 45 |  |",
        "|  | bare Ray | 9 | 40 |  |",
        "|  | of which to hand over | 4 | 30 |  |",
    ]
