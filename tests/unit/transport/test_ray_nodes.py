from typing import Any

from nsactors.transport.ray_nodes import engine_nodes


def node(node_id: str, *, alive: bool = True, cpus: float = 2) -> dict[str, Any]:
    # Ray leaves out a resource of which there is none.
    return {"NodeID": node_id, "Alive": alive, "Resources": {"CPU": cpus, "memory": 1e9} if cpus else {"memory": 1e9}}


def test_engines_are_placed_on_nodes_that_are_alive() -> None:
    assert engine_nodes([node("a"), node("b", alive=False), node("c")], first="a") == ["a", "c"]


def test_the_preferred_node_comes_first() -> None:
    assert engine_nodes([node("a"), node("b"), node("c")], first="c") == ["c", "a", "b"]


def test_a_node_without_cpus_is_kept_free() -> None:
    assert engine_nodes([node("head", cpus=0), node("b")], first="head") == ["b"]


def test_where_no_node_has_cpus_all_take_engines() -> None:
    assert engine_nodes([node("a", cpus=0), node("b", cpus=0)], first="b") == ["b", "a"]
