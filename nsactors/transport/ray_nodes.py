"""The nodes of a Ray cluster, and which of them the actors of a cluster are on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nsactors.core.cluster import EngineSpec
from nsactors.core.placement import least_loaded

__all__ = ["EnginePlaces", "engine_nodes", "head_place"]

_HEAD = "node:__internal_head__"  # a resource that Ray gives to the head node alone


class EnginePlaces:
    """Spreads the engines of one cluster evenly over the nodes that are alive.

    Ray's own ``"SPREAD"`` does not do that with actors that ask for no CPU.
    """

    def __init__(self) -> None:
        self._nodes: dict[tuple[int, int], str] = {}

    def take(self, spec: EngineSpec) -> Any:
        """A place for a new engine, as a scheduling strategy of Ray."""
        import ray

        nodes = engine_nodes(ray.nodes(), first=ray.get_runtime_context().get_node_id())
        node = least_loaded(nodes, self._nodes.values())
        self._nodes[spec.engine_id, spec.incarnation] = node
        return _place_on(node)

    def leave(self, spec: EngineSpec) -> None:
        """The engine has gone."""
        self._nodes.pop((spec.engine_id, spec.incarnation), None)


def engine_nodes(nodes: Iterable[Mapping[str, Any]], *, first: str) -> list[str]:
    """Ids of the nodes that take engines: those alive, without those that offer no CPU unless none does.

    Clusters say so of a head node that is to be kept free of work.

    Args:
        nodes: as ``ray.nodes()`` tells of them.
        first: the id of the node that comes first, if it is among them.
    """
    alive = [node for node in nodes if node["Alive"]]
    working = [node for node in alive if node["Resources"].get("CPU")] or alive
    return sorted((node["NodeID"] for node in working), key=lambda node_id: node_id != first)


def head_place() -> Any:
    """The cluster's head node, as a scheduling strategy of Ray: what is there lives as long as the cluster."""
    import ray

    head = next(node["NodeID"] for node in ray.nodes() if node["Alive"] and _HEAD in node["Resources"])
    return _place_on(head)


def _place_on(node_id: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Of an actor that asks for no CPU, a soft one leaves Ray free: 18 of them went anywhere, 10 of 18 to another node.
    return NodeAffinitySchedulingStrategy(node_id, soft=False)
