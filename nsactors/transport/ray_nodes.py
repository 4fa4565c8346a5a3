"""The nodes of a Ray cluster, and which of them the actors of a cluster are on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Container, Iterable, Iterator, Mapping
from typing import Any

from nsactors.controller import CannotStart
from nsactors.core.cluster import EngineOptions, EngineSpec
from nsactors.core.placement import Node, fits, is_crowded_out, least_loaded, shortage, suitable

__all__ = [
    "ENGINES",
    "EnginePlaces",
    "engines_wanted",
    "head_node",
    "head_place",
    "labels_here",
    "living_nodes",
    "place_on",
]

LOOK_S = 0.5
CROWDED_S = 2.0  # while others of the cluster's engines have what one asks for: one of them may be about to go
TAKEN_S = 15.0  # while strangers seem to have it: perhaps the engine itself has it, and its process is slow to start

ENGINES = "nsactors-engines"  # a label of nodes that were started for so many engines; others count as 1
_HEAD = "node:__internal_head__"  # a resource that Ray gives to the head node alone


class EnginePlaces:
    """Spreads the engines of one cluster evenly over the nodes that are alive and have what they ask for.

    Those that ask for something countable are placed by Ray, which knows what others use. Ray's ``"SPREAD"`` is even
    for them, and not for actors that ask for nothing: those are placed here.
    """

    def __init__(self) -> None:
        self._nodes: dict[tuple[int, int], str] = {}
        self._last: dict[int, str] = {}
        self._counted: dict[tuple[int, int], EngineOptions] = {}
        self._placed: set[tuple[int, int]] = set()  # of those that are counted
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
        elif not able or (options.demands and options.node is None):
            return {**place, "scheduling_strategy": "SPREAD", "label_selector": dict(options.node_labels)}
        else:
            weights = {node.node_id: float(node.labels[ENGINES]) for node in nodes if ENGINES in node.labels}
            node = least_loaded(able, self._nodes.values(), weights)
        self._note(spec, node)
        return {**place, "scheduling_strategy": place_on(node)}

    async def obstacles(self, spec: EngineSpec, address: Any) -> AsyncIterator[str]:
        """What keeps an engine from being started, as often as that changes; ends when it is, or when it is dead."""
        if not (spec.options.demands or spec.options.node_labels):
            return  # it has its node
        process, told, began = (spec.engine_id, spec.incarnation), "", time.monotonic()
        self._counted[process] = spec.options
        while (state := _actor_state(address)) and state["State"] in ("PENDING_CREATION", "DEPENDENCIES_UNREADY"):
            if state["Pid"]:
                break
            reason = self._obstacle(spec, time.monotonic() - max(began, self._progress))
            if reason and reason != told:
                told = reason
                yield reason
            await asyncio.sleep(LOOK_S)
        if state and state["State"] != "DEAD":
            self._progress = time.monotonic()
            self._placed.add(process)
            self._note(spec, state["Address"]["NodeID"])

    def _obstacle(self, spec: EngineSpec, waited_s: float) -> str:
        """What keeps an engine from being started that has no process; nothing if it may be that this takes time."""
        nodes, free = _nodes_now(), _free_resources()
        able = suitable(nodes, spec.options)
        if not able:
            patience_s = 0.0
        elif is_crowded_out(spec.options, able, self._ahead_of(spec, able)):
            patience_s = CROWDED_S
        elif any(fits(spec.options, free.get(node.node_id, {})) for node in able):
            return ""
        else:
            patience_s = TAKEN_S
        return shortage(nodes, spec.options, free) if waited_s >= patience_s else ""

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

        named = [(node["NodeManagerHostname"], node["NodeID"]) for node in ray.nodes() if node["Alive"]]
        count = Counter(name for name, _ in named)  # a machine with several nodes does not say which it was
        nodes = {name: node_id for name, node_id in named if count[name] == 1}
        for (engine_id, incarnation), host in sorted(hosts.items()):
            if host in nodes:
                self._last[engine_id] = nodes[host]
                if (engine_id, incarnation) in alive:
                    self._nodes[engine_id, incarnation] = nodes[host]

    def leave(self, spec: EngineSpec) -> None:
        """The engine has gone."""
        process = spec.engine_id, spec.incarnation
        self._nodes.pop(process, None)
        self._counted.pop(process, None)
        self._placed.discard(process)

    def _ahead_of(self, spec: EngineSpec, nodes: Iterable[Node]) -> Iterator[EngineOptions]:
        """What is taken of these nodes by engines that are there, and by older ones that will be there before."""
        own, ids = (spec.engine_id, spec.incarnation), {node.node_id for node in nodes}
        for process, options in self._counted.items():
            if process in self._placed:
                is_ahead = self._nodes.get(process) in ids
            else:
                is_ahead = process < own and options == spec.options
            if is_ahead:
                yield options

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


def engines_wanted(nodes: Iterable[Mapping[str, Any]]) -> int:
    """For how many engines the nodes that are alive have been started.

    Args:
        nodes: as ``ray.nodes()`` tells of them.
    """
    return sum(int(node["Labels"].get(ENGINES, 0)) for node in nodes if node["Alive"])


def head_node() -> str:
    """The id of the cluster's head node: what is there lives as long as the cluster."""
    import ray

    return next(str(node["NodeID"]) for node in ray.nodes() if node["Alive"] and _HEAD in node["Resources"])


def head_place() -> Any:
    """The cluster's head node, as a scheduling strategy of Ray."""
    return place_on(head_node())


def labels_here() -> dict[str, str]:
    """What the node that this process is on says of itself."""
    import ray

    labels: Any = ray.get_runtime_context().get_node_labels()  # text, whatever its annotation says
    return dict(labels)


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
