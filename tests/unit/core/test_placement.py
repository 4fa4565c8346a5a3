from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.core.placement import least_loaded

NODES = st.lists(st.sampled_from("abcdef"), min_size=1, unique=True)


@given(nodes=NODES, count=st.integers(0, 40))
def test_engines_that_start_one_after_the_other_are_spread_evenly(nodes: list[str], count: int) -> None:
    engines: list[str] = []
    for _ in range(count):
        engines.append(least_loaded(nodes, engines))
    loads = [engines.count(node) for node in nodes]
    assert max(loads) - min(loads) <= 1


@given(nodes=NODES, engines=st.lists(st.sampled_from("abcdefgh")))
def test_no_node_has_fewer_engines_than_the_one_that_is_chosen(nodes: list[str], engines: list[str]) -> None:
    load = Counter(engines)
    assert load[least_loaded(nodes, engines)] == min(load[node] for node in nodes)


@pytest.mark.parametrize("engines", [[], ["b", "a"], ["b", "a", "c"]])
def test_of_equally_loaded_nodes_the_first_is_taken(engines: list[str]) -> None:
    assert least_loaded(["b", "a"], engines) == "b"


def test_a_node_that_has_come_back_empty_is_filled_up_first() -> None:
    assert least_loaded(["a", "b"], ["a", "a"]) == "b"
