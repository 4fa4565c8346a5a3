"""The nodes of a Ray cluster, and which of them the actors of a cluster are on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Container, Iterable, Mapping
from typing import Any

from nsactors.controller import CannotStart
from nsactors.core.cluster import EngineSpec
from nsactors.core.placement import Node, demands, fits, least_loaded, shortage, suitable

__all__ = ["EnginePlaces", "head_node", "head_place", "living_nodes", "place_on"]

LOOK_S = 0.5
PATIENCE_S = 5.0  # while what an engine asks for seems to be taken: perhaps it is itself that has just taken it

_HEAD = "node:__internal_head__"  # a resource that Ray gives to the head node alone


class EnginePlaces:
    """Spreads the engines of one cluster evenly over the nodes that are alive and have what they ask for.

    Those that ask for something countable are placed by Ray, which knows what others use. Ray's ``"SPREAD"`` is even
    for them, and not for actors that ask for nothing: those are placed here.
    """

    def __init__(self) -> None:
        self._nodes: dict[tuple[int, int], str] = {}
        self._last: dict[int, str] = {}
        self._progress = time.monotonic()

    def take(self, spec: EngineSpec) -> dict[str, Any]:
        """A place for a new engine, as options for its actor.

        One whose namespace is to be made again goes where it was: its journal is there.

        Raises:
            CannotStart: if it is to be on a node that there is not, or that does not have what it asks for.
        """
        options = spec.options
        nodes = _nodes_now()
        able = [node.node_id for node in suitable(nodes, options)]
        if options.node is not None and not able:
            raise CannotStart(shortage(nodes, options, {}))
        place: dict[str, Any] = {
            "num_cpus": options.num_cpus,
            "num_gpus": options.num_gpus,
            "memory": options.memory,
            "resources": dict(options.resources),
        }
        before = self._last.get(spec.engine_id) if spec.recovers is not None else None
        if before in able:
            node = before
        elif not able or (demands(options) and options.node is None):
            return {**place, "scheduling_strategy": "SPREAD", "label_selector": dict(options.labels)}
        else:
            node = least_loaded(able, self._nodes.values())
        self._note(spec, node)
        return {**place, "scheduling_strategy": place_on(node)}

    async def obstacles(self, spec: EngineSpec, address: Any) -> AsyncIterator[str]:
        """What keeps an engine from being started, as often as that changes; ends when it is, or when it is dead."""
        options, told, began = spec.options, "", time.monotonic()
        if not (demands(options) or options.labels):
            return  # it has its node
        while (state := _actor_state(address)) and state["State"] in ("PENDING_CREATION", "DEPENDENCIES_UNREADY"):
            if state["Pid"]:
                break
            nodes, free = _nodes_now(), _free_resources()
            able = suitable(nodes, options)
            has_room = any(fits(options, free.get(node.node_id, {})) for node in able)
            waited_s = time.monotonic() - max(began, self._progress)
            reason = shortage(nodes, options, free)
            if reason != told and (not able or (waited_s > PATIENCE_S and not has_room)):
                told = reason
                yield reason
            await asyncio.sleep(LOOK_S)
        if state and state["State"] != "DEAD":
            self._progress = time.monotonic()
            self._note(spec, state["Address"]["NodeID"])

    def host_of(self, spec: EngineSpec) -> str:
        """The machine that an engine is on; empty if that is not known."""
        import ray

        node_id = self._nodes.get((spec.engine_id, spec.incarnation))
        return next((str(node["NodeManagerHostname"]) for node in ray.nodes() if node["NodeID"] == node_id), "")

    def restore(self, hosts: Mapping[tuple[int, int], str], alive: Container[tuple[int, int]]) -> None:
        """Go on with engines that are on these hosts, or were before they died.

        Args:
            hosts: by id and incarnation of engines, the names of the machines.
            alive: the engines among them that have not died.
        """
        import ray

        nodes = {node["NodeManagerHostname"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}
        for (engine_id, incarnation), host in sorted(hosts.items()):
            if host in nodes:
                self._last[engine_id] = nodes[host]
                if (engine_id, incarnation) in alive:
                    self._nodes[engine_id, incarnation] = nodes[host]

    def leave(self, spec: EngineSpec) -> None:
        """The engine has gone."""
        self._nodes.pop((spec.engine_id, spec.incarnation), None)

    def _note(self, spec: EngineSpec, node_id: str) -> None:
        self._last[spec.engine_id] = self._nodes[spec.engine_id, spec.incarnation] = node_id


def living_nodes(nodes: Iterable[Mapping[str, Any]], *, first: str) -> list[Node]:
    """The nodes that are alive.

    Args:
        nodes: as ``ray.nodes()`` tells of them.
        first: the id of the node that comes first, if it is among them.
    """
    alive = [
        Node(
            node["NodeID"],
            (node["NodeManagerHostname"], node["NodeManagerAddress"], node["NodeID"]),
            node["Resources"],
            node["Labels"],
        )
        for node in nodes
        if node["Alive"]
    ]
    return sorted(alive, key=lambda node: node.node_id != first)


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


def _nodes_now() -> list[Node]:
    import ray

    return living_nodes(ray.nodes(), first=ray.get_runtime_context().get_node_id())


def _actor_state(actor: Any) -> dict[str, Any]:
    """What Ray knows of an actor; nothing if it does not say so.

    Private, and without a public equivalent that does not need Ray's dashboard: of an actor that has no process yet
    ``Pid`` is 0. If it is gone, people are not told why an engine does not start.
    """
    from ray._private import state

    return dict(getattr(state, "actors", lambda actor_id: {})(actor._actor_id.hex()) or {})


def _free_resources() -> dict[str, dict[str, float]]:
    """By node id, what nobody uses; private as :func:`_actor_state`."""
    from ray._private import state

    return dict(getattr(state, "available_resources_per_node", dict)())
