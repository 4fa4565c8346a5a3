"""The nodes of a Ray cluster, and which of them the actors of a cluster are on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nsactors.core.cluster import EngineSpec
from nsactors.core.placement import least_loaded

__all__ = ["EnginePlaces", "engine_nodes", "head_node", "head_place", "place_on"]

_HEAD = "node:__internal_head__"  # a resource that Ray gives to the head node alone


class EnginePlaces:
    """Spreads the engines of one cluster evenly over the nodes that are alive.

    Ray's own ``"SPREAD"`` does not do that with actors that ask for no CPU.
    """

    def __init__(self) -> None:
        self._nodes: dict[tuple[int, int], str] = {}
        self._last: dict[int, str] = {}

    def take(self, spec: EngineSpec) -> Any:
        """A place for a new engine, as a scheduling strategy of Ray.

        One whose namespace is to be made again goes where it was: its journal is there.
        """
        import ray

        nodes = engine_nodes(ray.nodes(), first=ray.get_runtime_context().get_node_id())
        before = self._last.get(spec.engine_id) if spec.recovers is not None else None
        node = before if before in nodes else least_loaded(nodes, self._nodes.values())
        self._last[spec.engine_id] = node
        self._nodes[spec.engine_id, spec.incarnation] = node
        return place_on(node)

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


def head_node() -> str:
    """The id of the cluster's head node: what is there lives as long as the cluster."""
    import ray

    return next(str(node["NodeID"]) for node in ray.nodes() if node["Alive"] and _HEAD in node["Resources"])


def head_place() -> Any:
    """The cluster's head node, as a scheduling strategy of Ray."""
    return place_on(head_node())


def place_on(node_id: str) -> Any:
    """A node, as a scheduling strategy of Ray."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Softly, Ray does not keep to it for an actor that asks for no CPU: of 18, 13 went to another of three nodes.
    return NodeAffinitySchedulingStrategy(node_id, soft=False)
