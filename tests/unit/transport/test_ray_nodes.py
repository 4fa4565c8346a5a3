from typing import Any

from nsactors.transport.ray_nodes import living_nodes


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


def test_the_preferred_node_comes_first() -> None:
    assert [n.node_id for n in living_nodes([node("1"), node("2"), node("3")], first="3")] == ["3", "1", "2"]


def test_a_node_has_three_names() -> None:
    (one,) = living_nodes([node("1")], first="1")
    assert (str(one), one.names) == ("host-1", ("host-1", "10.0.0.1", "1"))
