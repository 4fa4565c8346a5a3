import sys
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.protocol.engine_info import EngineOptions
from nsactors.transport.ray.nodes import (
    Node,
    _actor_state,
    _free_resources,
    fits,
    has_had_actors,
    is_autoscaled,
    is_crowded_out,
    least_loaded,
    limit_of_nodes,
    living_nodes,
    shortage,
    suitable,
)


def node(node_id: str, *, alive: bool = True) -> dict[str, Any]:
    return {
        "NodeID": node_id,
        "NodeManagerHostname": f"host-{node_id}",
        "NodeManagerAddress": f"10.0.0.{node_id}",
        "Alive": alive,
        "Resources": {"CPU": 2.0},
        "Labels": {"zone": "a"},
    }


def test_only_nodes_that_are_alive_count() -> None:
    assert [n.node_id for n in living_nodes([node("1"), node("2", alive=False), node("3")], first="1")] == ["1", "3"]


MONITOR = ["python", "-u", "/lib/ray/autoscaler/v2/monitor.py", "--gcs-address=10.0.0.1:6379"]
CONFIGURED = [*MONITOR, "--autoscaling-config=/root/ray_bootstrap_config.yaml"]
KUBERAY = "ray start --head --no-monitor --num-cpus=0"


@pytest.mark.parametrize(
    ("commands", "started_by", "adds"),
    [
        ([["bash"], CONFIGURED], "", True),
        ([MONITOR], "", False),
        ([[*MONITOR, "--autoscaling-config="]], "", False),
        ([[*CONFIGURED[:3], "--gcs-address=10.0.0.1:6380", CONFIGURED[-1]]], "", False),  # of another Ray
        ([], KUBERAY, True),
        ([], KUBERAY.replace("--no-monitor ", ""), False),
    ],
)
def test_a_cluster_adds_nodes_if_its_monitor_has_a_configuration(
    commands: list[list[str]], started_by: str, adds: bool
) -> None:
    assert is_autoscaled("10.0.0.1:6379", commands, {"KUBERAY_GEN_RAY_START_CMD": started_by}) is adds


def test_a_reason_that_ray_adds_no_node_is_the_limit_of_nodes_or_that_no_node_would_do() -> None:
    small, large = Node("1", (), {"CPU": 2}), Node("2", (), {"CPU": 8, "memory": 1e9})
    kinds = {
        "small": {"resources": {"CPU": 2}, "max_workers": 2},
        "large": {"resources": {"CPU": 8}, "max_workers": 1},
        "head": {"resources": {"CPU": 0}, "max_workers": 0},
    }
    some = {"max_workers": 3, "available_node_types": kinds}
    limit = "Ray adds no node: max_workers of the cluster file limits their number to {}"
    assert limit_of_nodes(some, {"CPU": 1}, [small, large]) == ""
    assert limit_of_nodes(some, {"CPU": 1}, [small, small, large]) == limit.format(3)
    assert limit_of_nodes(some, {"CPU": 4}, [small]) == ""
    assert limit_of_nodes(some, {"CPU": 4}, [large]) == limit.format(1) + " for this kind of node"
    assert limit_of_nodes(some, {"memory": 1e8}, [large]) == ""
    assert limit_of_nodes(some, {"GPU": 1}, []).endswith("none that the cluster file describes has that")
    own = {"max_workers": 1, "available_node_types": {"local.cluster.node": {"resources": {}, "max_workers": 1}}}
    assert limit_of_nodes(own, {"GPU": 1}, []) == ""
    assert limit_of_nodes(own, {"GPU": 1}, [small]) == limit.format(1)


@pytest.mark.parametrize(
    "configuration", [{}, {"max_workers": 1}, {"max_workers": "@limit", "available_node_types": {}}]
)
def test_without_a_known_limit_a_node_may_come(configuration: dict[str, object]) -> None:
    assert limit_of_nodes(configuration, {"CPU": 1}, [Node("1", (), {"CPU": 1})]) == ""


DEAD = {"a1": {"Name": "engine-0.1", "State": "DEAD"}, "a2": {"Name": "", "State": "ALIVE"}}


@pytest.mark.parametrize(
    ("tables", "name", "had"),
    [
        ({"actors": lambda: DEAD}, "engine-0.1", True),
        ({"actors": lambda: DEAD}, "engine-0.2", False),  # of the job that this one continues
        ({"actors": dict}, "engine-0.1", False),
        ({}, "engine-0.1", True),  # a Ray that does not tell
    ],
)
def test_engines_of_another_ray_are_told_apart(
    tables: dict[str, Any], name: str, had: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray._private", SimpleNamespace(state=SimpleNamespace(**tables)))
    assert has_had_actors({name}) is had


@pytest.mark.parametrize("private", [{}, {"state": SimpleNamespace()}], ids=["no-module", "empty-module"])
def test_a_ray_without_private_tables_tells_nothing(private: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray._private", SimpleNamespace(**private))
    monkeypatch.delitem(sys.modules, "ray._private.state", raising=False)
    assert (_actor_state(SimpleNamespace()), has_had_actors({"engine-0.1"}), _free_resources()) == ({}, True, {})


def test_the_preferred_node_comes_first() -> None:
    assert [n.node_id for n in living_nodes([node("1"), node("2"), node("3")], first="3")] == ["3", "1", "2"]


def test_a_node_has_three_names() -> None:
    (one,) = living_nodes([node("1")], first="1")
    assert (str(one), one.names) == ("host-1", ("host-1", "10.0.0.1", "1"))


NODES = st.lists(st.sampled_from("abcdef"), min_size=1, unique=True)

HEAD = Node("1", ("head", "10.0.0.1", "1"), {"memory": 8e9})
SMALL = Node("2", ("small", "10.0.0.2", "2"), {"CPU": 2, "memory": 4e9}, {"zone": "a"})
LARGE = Node("3", ("large", "10.0.0.3", "3"), {"CPU": 8, "GPU": 2, "memory": 64e9, "license": 1}, {"zone": "b"})
ALL = [HEAD, SMALL, LARGE]


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


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), min_size=1))
def test_nodes_for_so_many_engines_each_have_so_many_when_all_are_there(weights: dict[str, float]) -> None:
    engines: list[str] = []
    for _ in range(int(sum(weights.values()))):
        engines.append(least_loaded(list(weights), engines, weights))
    assert Counter(engines) == weights


def test_a_node_for_no_engines_has_some_only_if_there_is_no_other() -> None:
    assert least_loaded(["a", "b"], ["b"] * 20, {"a": 0, "b": 1}) == "b"
    assert least_loaded(["a"], [], {"a": 0}) == "a"


def test_a_node_without_cpus_is_kept_free() -> None:
    assert suitable(ALL, EngineOptions()) == [SMALL, LARGE]


def test_where_no_node_has_cpus_all_take_engines() -> None:
    assert suitable([HEAD], EngineOptions()) == [HEAD]


@pytest.mark.parametrize("name", ["head", "10.0.0.1", "1"])
def test_a_node_is_found_by_name_address_and_id_even_if_it_is_kept_free_otherwise(name: str) -> None:
    assert suitable(ALL, EngineOptions(node=name)) == [HEAD]


@pytest.mark.parametrize(
    ("options", "nodes"),
    [
        (EngineOptions(num_cpus=2), [SMALL, LARGE]),
        (EngineOptions(num_cpus=4), [LARGE]),
        (EngineOptions(num_gpus=0.5), [LARGE]),
        (EngineOptions(memory=32_000_000_000), [LARGE]),
        (EngineOptions(resources={"license": 1}), [LARGE]),
        (EngineOptions(num_gpus=4), []),
        (EngineOptions(num_gpus=1, node="small"), []),
        (EngineOptions(num_cpus=1, node_labels={"zone": "a"}), [SMALL]),
        (EngineOptions(node_labels={"zone": "c"}), []),
    ],
)
def test_an_engine_can_be_where_there_is_what_it_asks_for(options: EngineOptions, nodes: list[Node]) -> None:
    assert suitable(ALL, options) == nodes


def test_what_is_not_asked_for_need_not_be_there() -> None:
    assert fits(EngineOptions(), {})
    assert not fits(EngineOptions(num_cpus=1), {"CPU": 0.5})


@pytest.mark.parametrize(
    ("asked", "others", "crowded_out"),
    [
        (EngineOptions(num_cpus=1), [], False),
        (EngineOptions(num_cpus=1), [EngineOptions(num_cpus=5)] * 2, True),
        (EngineOptions(num_cpus=1), [EngineOptions(num_cpus=4), EngineOptions(num_cpus=5)], False),
        (EngineOptions(num_gpus=1), [EngineOptions(num_cpus=5)] * 2, False),
        (EngineOptions(), [EngineOptions(num_cpus=5)] * 2, False),
    ],
)
def test_an_engine_is_crowded_out_if_others_leave_too_little(
    asked: EngineOptions, others: list[EngineOptions], crowded_out: bool
) -> None:
    assert is_crowded_out(asked, [SMALL, LARGE], others) is crowded_out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (EngineOptions(num_gpus=4), "it asks for 4 GPU, and no node has that: head has 0 GPU; small has 0 GPU; large"),
        (EngineOptions(num_gpus=1, node="small"), "it asks for 1 GPU, and no node has that: small has 0 GPU"),
        (EngineOptions(node="smal"), "there is no node smal: there are head, small and large"),
        (
            EngineOptions(node_labels={"zone": "c"}),
            "it asks for the label zone=c, and no node has that: head has no zone; ",
        ),
        (EngineOptions(node_labels={"zone": "c"}), "small has zone=a; large has zone=b"),
        (
            EngineOptions(num_cpus=9, memory=10**9, node_labels={"zone": "b"}),
            "it asks for 9 CPU, 1.0 GB of memory and the label zone=b, and no node has that: ",
        ),
        (
            EngineOptions(num_cpus=9, memory=10**9, node_labels={"zone": "b"}),
            "large has 8 CPU, 64 GB of memory and zone=b",
        ),
    ],
)
def test_what_no_node_has_is_told_with_what_they_have(options: EngineOptions, text: str) -> None:
    assert text in shortage(ALL, options, {})


def test_what_others_use_is_told_with_what_they_leave() -> None:
    assert (
        shortage([SMALL], EngineOptions(num_cpus=2), {"2": {"CPU": 0.5}})
        == "it asks for 2 CPU, and others use that: small has 0.5 CPU free of 2"
    )


def test_of_many_nodes_a_few_are_told() -> None:
    nodes = [Node(str(number), (f"n{number}",)) for number in range(100)]
    text = shortage(nodes, EngineOptions(num_gpus=1), {})
    assert text.endswith("; n7 has 0 GPU; and there are 92 more")
