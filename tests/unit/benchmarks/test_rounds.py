"""Who is measured when, and where the timings go."""

from dataclasses import dataclass, field

import pytest

from benchmarks.operations.catalogue import GROUPS, OPERATIONS, WORKLOADS, Operation, find
from benchmarks.operations.rounds import Cell, Results, measure_in_rounds
from benchmarks.operations.turns import Turn
from benchmarks.operations.workload import workload

QUICK = Operation("quick", "something small", burst=3, share=1.0, most_engines=None)
SLOW = Operation("slow", "something large", share=0.25, most_engines=8)


@dataclass
class FakeDriver:
    """Writes down what it is asked, in a diary that drivers share."""

    name: str
    diary: list[tuple[str, str, int]]
    lacks: frozenset[str] = field(default_factory=frozenset)

    def measure(self, operation: str, engines: int, runs: int) -> Turn | None:
        self.diary.append((self.name, operation, engines))
        return None if operation in self.lacks else Turn([1.0] * runs, 0.5)


@pytest.fixture
def diary() -> list[tuple[str, str, int]]:
    return []


def test_the_one_who_goes_first_changes_from_round_to_round(diary: list[tuple[str, str, int]]) -> None:
    drivers = {name: FakeDriver(name, diary) for name in "abc"}
    measure_in_rounds(drivers, [QUICK], (1,), 3, Results())
    assert [name for name, _, _ in diary] == [*"abc", *"bca", *"cab"]


def test_every_system_has_its_turn_before_the_next_number_of_engines(diary: list[tuple[str, str, int]]) -> None:
    drivers = {name: FakeDriver(name, diary) for name in "ab"}
    measure_in_rounds(drivers, [QUICK], (1, 4), 1, Results())
    assert diary == [("a", "quick", 1), ("b", "quick", 1), ("a", "quick", 4), ("b", "quick", 4)]


def test_a_long_operation_takes_part_in_fewer_rounds_and_not_on_many_engines(diary: list[tuple[str, str, int]]) -> None:
    measure_in_rounds({"a": FakeDriver("a", diary)}, [QUICK, SLOW], (1, 4, 64), 8, Results())
    assert [engines for _, operation, engines in diary if operation == "slow"] == [1, 4, 1, 4]


def test_an_operation_runs_on_the_fewest_engines_where_all_numbers_are_too_many_for_it() -> None:
    assert SLOW.engine_counts((16, 64)) == (16,)


def test_turns_are_kept(diary: list[tuple[str, str, int]]) -> None:
    results = Results()
    measure_in_rounds({"a": FakeDriver("a", diary)}, [QUICK], (1,), 2, results)
    assert results.turns == {Cell("quick", 1, "a"): [Turn([1.0] * 3, 0.5), Turn([1.0] * 3, 0.5)]}


def test_a_system_that_lacks_an_operation_has_no_timings_of_it(diary: list[tuple[str, str, int]]) -> None:
    results = Results()
    drivers = {"a": FakeDriver("a", diary), "b": FakeDriver("b", diary, frozenset({"quick"}))}
    measure_in_rounds(drivers, [QUICK], (1,), 2, results)
    assert {cell.system for cell in results.turns} == {"a"}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_operation_takes_part_even_in_a_single_round(operation: Operation) -> None:
    assert operation.rounds(1) == 1


def test_operations_are_found_by_name_in_the_order_of_the_table() -> None:
    assert [operation.name for operation in find(("map", "apply"))] == ["apply", "map"]


def test_a_group_stands_for_its_operations() -> None:
    assert {operation.name for operation in find(("balance", "halo"))} == {*GROUPS["balance"], "halo"}


def test_groups_consist_of_operations() -> None:
    assert {name for group in GROUPS.values() for name in group} <= {operation.name for operation in OPERATIONS}


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_work_is_done(name: str) -> None:
    function, items = workload(name)
    function(items[0])


def test_without_names_all_operations_are_found() -> None:
    assert find(()) == OPERATIONS


def test_an_unknown_operation_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(ValueError, match=r"no operation 'aply': choose among .*apply, push"):
        find(("aply",))
