"""Nodes of a Ray cluster, and placement of engines on them.

The functions at the top decide, and get all facts as arguments; :class:`EnginePlaces` asks Ray and applies them.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, TypeVar

from nsactors._frozen import frozen
from nsactors.controller import CannotStart
from nsactors.errors.formatting import amount_in_words
from nsactors.protocol.engine_info import EngineOptions, EngineSpec, has_labels
from nsactors.system.processes import command_lines

T = TypeVar("T")

NAME_S, NAME_AGAIN_S = 5.0, 0.02
_NODES_SHOWN = 8
_LEAST_WEIGHT = 1e-6  # a node of weight 0 gets engines if there is no other node


@frozen
class Node:
    """A machine of the cluster.

    Attributes:
        node_id: its id, which changes with a restart of the machine.
        names: its names for people: host, address and id.
        resources: all its resources, used or not; ``CPU``, ``GPU``, ``memory`` in bytes, and the cluster's own.
        labels: its labels.
    """

    node_id: str
    names: tuple[str, ...] = ()
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.names[0] if self.names else self.node_id


def least_loaded(nodes: Sequence[str], engines: Iterable[str], weights: Mapping[str, float] | None = None) -> str:
    """Return the node with the fewest engines in proportion to its weight; among equal nodes, the first.

    Args:
        nodes: the candidates in order of preference; at least one.
        engines: the node of each engine, including engines on other nodes.
        weights: the share of engines by node; 1 by default.

    Example:
        >>> least_loaded(["a", "b", "c"], ["a", "c", "gone"])
        'b'
        >>> least_loaded(["a", "b"], ["a", "b", "b"], {"a": 1, "b": 4})
        'b'
    """
    load, shares = Counter(engines), weights or {}
    return min(nodes, key=lambda node: (load[node] + 1) / max(shares.get(node, 1), _LEAST_WEIGHT))


def fits(options: EngineOptions, offer: Mapping[str, float]) -> bool:
    """Return whether an offer covers everything for which an engine asks."""
    return all(offer.get(name, 0) >= amount for name, amount in options.demands.items())


def suitable(nodes: Iterable[Node], options: EngineOptions) -> list[Node]:
    """Return the nodes that can have an engine once its resources are free.

    If the options do not name a node, these are the nodes with CPUs, if there are any, because a cluster keeps a node
    free of work by giving it no CPUs.
    """
    able = [
        node
        for node in nodes
        if options.node in (None, *node.names)
        and has_labels(node.labels, options.node_labels)
        and fits(options, node.resources)
    ]
    return able if options.node else [node for node in able if node.resources.get("CPU")] or able


def is_crowded_out(options: EngineOptions, nodes: Iterable[Node], others: Iterable[EngineOptions]) -> bool:
    """Return whether there is certainly no room for an engine beside other engines on the same nodes.

    All nodes count as one node. So if this returns False, each single node may still have too little room.
    """
    able, taken = list(nodes), [other.demands for other in others]
    return any(
        sum(node.resources.get(name, 0) for node in able) - sum(other.get(name, 0) for other in taken) < amount
        for name, amount in options.demands.items()
    )


def shortage(nodes: Sequence[Node], options: EngineOptions, free: Mapping[str, Mapping[str, float]]) -> str:
    """Return the reason why an engine has no place, for people.

    Args:
        nodes: the living nodes.
        options: the options of the engine, which asks for something.
        free: free resources by node id.

    Example:
        >>> shortage([Node("1", ("vm",), {"CPU": 2})], EngineOptions(num_gpus=1), {})
        'it asks for 1 GPU, and no node has that: vm has 0 GPU'
    """
    here = [node for node in nodes if options.node in (None, *node.names)]
    if not here:
        return f"there is no node {options.node}: there are {_listed([str(node) for node in nodes])}"
    wanted = options.demands
    labels = [f"{name}={condition}" for name, condition in options.node_labels.items()]
    asked = [amount_in_words(name, amount) for name, amount in wanted.items()] + [
        f"the label {label}" for label in labels
    ]
    taken = bool(suitable(here, options))
    has = [_has(node, wanted, options.node_labels, free.get(node.node_id, {}) if taken else None) for node in here]
    if len(has) > _NODES_SHOWN:
        has = [*has[:_NODES_SHOWN], f"and there are {len(has) - _NODES_SHOWN} more"]
    problem = "others use that" if taken else "no node has that"
    return f"it asks for {_listed(asked)}, and {problem}: {'; '.join(has)}"


def _has(node: Node, wanted: Mapping[str, float], labels: Mapping[str, str], free: Mapping[str, float] | None) -> str:
    """Describe a node's share of the wanted resources; of the free ones, if ``free`` is given."""
    things = []
    for name in wanted:
        total = node.resources.get(name, 0)
        things.append(
            amount_in_words(name, total)
            if free is None
            else f"{amount_in_words(name, free.get(name, 0))} free of {total:g}"
        )
    things += [f"{name}={node.labels[name]}" if name in node.labels else f"no {name}" for name in labels]
    return f"{node} has {_listed(things)}"


def _listed(things: Sequence[str]) -> str:
    return " and ".join([", ".join(things[:-1]), things[-1]] if len(things) > 1 else things)


LOOK_S = 0.5
CROWDED_S = 2.0  # the wait while the cluster's own engines have the resources: one of them may be ending
TAKEN_S = 15.0  # the wait while others seem to have them: it may be this engine itself, whose process starts slowly
NODE_COMES_S = 300.0  # the wait for a machine of a cloud, from its order to its place in the cluster

ENGINES = "nsactors-engines"  # a label with the number of engines for which a node was started; 1 by default
_HEAD = "node:__internal_head__"  # a resource that only the head node has
_CONFIGURATION = "--autoscaling-config="
_MAY_ADD = "Ray may add a node"


class EnginePlaces:
    """Spread the engines of a cluster evenly over living nodes that have the resources for which the engines ask.

    Ray places engines that ask for countable resources, since Ray knows who else uses these. Its ``"SPREAD"`` is even
    for such engines. It is not even for actors that ask for nothing, so this class places them.
    """

    def __init__(self) -> None:
        self._nodes: dict[tuple[int, int], str] = {}
        self._last: dict[int, str] = {}
        self._counted: dict[tuple[int, int], EngineOptions] = {}
        self._placed: set[tuple[int, int]] = set()  # the processes in _counted that have a place
        self._progress = time.monotonic()

    @functools.cached_property
    def _cluster_file(self) -> str:
        import ray

        return cluster_file(ray.get_runtime_context().gcs_address, command_lines())

    @functools.cached_property
    def adds_nodes(self) -> bool:
        """Return whether Ray adds nodes to this cluster when engines need them. This process is on the head node."""
        import ray

        return is_autoscaled(ray.get_runtime_context().gcs_address, command_lines(), os.environ)

    def take(self, spec: EngineSpec) -> dict[str, Any]:
        """Return a place for a new engine, as options for its actor.

        An engine that recovers its namespace goes to its former node, which has its journal.

        Raises:
            CannotStart: if the node on which it must be does not exist, or lacks the resources.
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
        """Yield the reason why an engine has not started, whenever it changes, until the engine starts or dies."""
        if not (spec.options.demands or spec.options.node_labels):
            return  # it has a node already
        process, reported, began = (spec.engine_id, spec.incarnation), "", time.monotonic()
        self._counted[process] = spec.options
        while (state := _actor_state(address)) and state["State"] in ("PENDING_CREATION", "DEPENDENCIES_UNREADY"):
            if state["Pid"]:
                break
            waited_s = time.monotonic() - max(began, self._progress)
            if reason := self._obstacle(spec, waited_s):
                prospect = self._prospect(spec.options)
                text = f"{reason}. {prospect}" if prospect else reason
                # Each node that comes changes the reason, and there is nothing new to report.
                is_early = prospect == _MAY_ADD and reported and waited_s < NODE_COMES_S
                if text != reported and not is_early:
                    reported = text
                    yield text
            await asyncio.sleep(LOOK_S)
        if state and state["State"] != "DEAD":
            self._progress = time.monotonic()
            self._placed.add(process)
            self._note(spec, state["Address"]["NodeID"])

    def _obstacle(self, spec: EngineSpec, waited_s: float) -> str:
        """Return the reason why an engine has no process; empty while the start may just take time."""
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

    def _prospect(self, options: EngineOptions) -> str:
        """Return whether Ray adds a node for an engine, for people; empty if Ray adds none to this cluster."""
        if not self.adds_nodes:
            return ""
        workers = [node for node in _nodes_now() if _HEAD not in node.resources]
        return limit_of_nodes(_configuration(self._cluster_file), options.demands, workers) or _MAY_ADD

    def host_of(self, spec: EngineSpec) -> str:
        """Return the machine of an engine; empty if it is not known."""
        import ray

        node_id = self._nodes.get((spec.engine_id, spec.incarnation))
        return next((str(node["NodeManagerHostname"]) for node in ray.nodes() if node["NodeID"] == node_id), "")

    def restore(self, hosts: Mapping[tuple[int, int], str], alive: Container[tuple[int, int]]) -> None:
        """Continue with engines on these hosts, including dead engines.

        Args:
            hosts: machine names by engine id and incarnation.
            alive: the engines among them that have not died.
        """
        import ray

        named = [(node["NodeManagerHostname"], node["NodeID"]) for node in ray.nodes() if node["Alive"]]
        count = Counter(name for name, _ in named)  # if a machine has several nodes, the right node is unknown
        nodes = {name: node_id for name, node_id in named if count[name] == 1}
        for (engine_id, incarnation), host in sorted(hosts.items()):
            if host in nodes:
                self._last[engine_id] = nodes[host]
                if (engine_id, incarnation) in alive:
                    self._nodes[engine_id, incarnation] = nodes[host]

    def leave(self, spec: EngineSpec) -> None:
        """Forget an engine that has left."""
        process = spec.engine_id, spec.incarnation
        self._nodes.pop(process, None)
        self._counted.pop(process, None)
        self._placed.discard(process)

    def _ahead_of(self, spec: EngineSpec, nodes: Iterable[Node]) -> Iterator[EngineOptions]:
        """Yield the options of engines that have these nodes' resources, or will get them first."""
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


def is_autoscaled(address: str, commands: Iterable[Sequence[str]], environment: Mapping[str, str]) -> bool:
    """Return whether Ray adds nodes to a cluster.

    Ray does not report this: its monitor gives the same answers if it has no configuration for adding nodes.

    Args:
        address: the address of the cluster.
        commands: the command lines of processes on the head node, as words; Ray's monitor is one of them.
        environment: the environment of a process on the head node; KubeRay writes into it how it has started Ray.

    Example:
        >>> monitor = ["python", "/lib/ray/autoscaler/v2/monitor.py", "--gcs-address=10.0.0.1:6379"]
        >>> is_autoscaled("10.0.0.1:6379", [[*monitor, "--autoscaling-config=/root/ray_bootstrap_config.yaml"]], {})
        True
        >>> is_autoscaled("10.0.0.1:6379", [monitor], {})
        False
    """
    if "--no-monitor" in environment.get("KUBERAY_GEN_RAY_START_CMD", "").split():
        return True  # the monitor is in another container
    return bool(cluster_file(address, commands))


def cluster_file(address: str, commands: Iterable[Sequence[str]]) -> str:
    """Return the path of the configuration by which Ray adds nodes to a cluster; empty if Ray adds none.

    Args:
        address: the address of the cluster.
        commands: the command lines of processes on the head node, as words.
    """
    for words in commands:
        if f"--gcs-address={address}" in words:
            for word in words:
                if word.startswith(_CONFIGURATION):
                    return os.path.expanduser(word.removeprefix(_CONFIGURATION))
    return ""


def limit_of_nodes(configuration: Mapping[str, Any], demands: Mapping[str, float], workers: Sequence[Node]) -> str:
    """Return the reason why Ray adds no node for an engine, for people; empty if Ray may add one.

    Args:
        configuration: the configuration by which Ray adds nodes, complete, as Ray's launcher writes it on the head
            node; empty if it is not known.
        demands: the resources that the engine asks for.
        workers: the living nodes without the head.

    Example:
        >>> types = {"small": {"resources": {"CPU": 2}, "max_workers": 1}}
        >>> limit_of_nodes({"max_workers": 8, "available_node_types": types}, {"CPU": 1}, [Node("1", (), {"CPU": 2})])
        'Ray adds no node: max_workers of the cluster file limits their number to 1 for this kind of node'
        >>> limit_of_nodes({"max_workers": 8, "available_node_types": types}, {"GPU": 1}, [])
        'Ray adds no node: none that the cluster file describes has that'
    """
    most, types = configuration.get("max_workers"), configuration.get("available_node_types")
    if not isinstance(most, int) or not isinstance(types, Mapping):
        return ""
    able = [kind for kind in types.values() if _may_have(kind.get("resources") or {}, demands)]
    if not able:
        return "Ray adds no node: none that the cluster file describes has that"
    limit = "Ray adds no node: max_workers of the cluster file limits their number to {}"
    if len(workers) >= most:
        return limit.format(most)
    most_able = sum(int(kind.get("max_workers", most)) for kind in able)
    if sum(_may_have(node.resources, demands) for node in workers) >= most_able:
        return limit.format(most_able) + " for this kind of node"
    return ""


def _may_have(resources: Mapping[str, float], demands: Mapping[str, float]) -> bool:
    """Return whether a node has what an engine asks for, as far as the configuration lists its resources."""
    # A type without resources is one of the user's own machines. Memory is seldom listed.
    listed = {name: amount for name, amount in demands.items() if name in resources or name != "memory"}
    return not resources or all(resources.get(name, 0) >= amount for name, amount in listed.items())


def _configuration(path: str) -> Mapping[str, Any]:
    """Return the configuration by which Ray adds nodes; empty if it cannot be read."""
    try:
        return _read_configuration(path, os.stat(path).st_mtime_ns)
    except OSError:
        return {}


@functools.lru_cache(maxsize=1)
def _read_configuration(path: str, changed_ns: int) -> Mapping[str, Any]:
    import yaml  # type: ignore[import-untyped]  # Ray requires it

    try:
        found = yaml.safe_load(Path(path).read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, Mapping) else {}


def living_nodes(nodes: Iterable[Mapping[str, Any]], *, first: str) -> list[Node]:
    """Return the living nodes.

    Args:
        nodes: the nodes, in the form of ``ray.nodes()``.
        first: the id of the node to put first, if it is among them.
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
    """Return the number of engines for which the living nodes have been started.

    Args:
        nodes: the nodes, in the form of ``ray.nodes()``.
    """
    return sum(int(node["Labels"].get(ENGINES, 0)) for node in nodes if node["Alive"])


def head_node() -> str:
    """Return the id of the head node, which lives as long as the cluster."""
    import ray

    return next(str(node["NodeID"]) for node in ray.nodes() if node["Alive"] and _HEAD in node["Resources"])


def head_place() -> Any:
    """Return the head node as a scheduling strategy of Ray."""
    return place_on(head_node())


def labels_here() -> dict[str, str]:
    """Return the labels of the node of this process."""
    import ray

    labels: Any = ray.get_runtime_context().get_node_labels()  # texts, despite the annotation
    return dict(labels)


def place_on(node_id: str) -> Any:
    """Return a node as a scheduling strategy of Ray."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # With soft=True Ray ignores the node for actors that ask for no CPU: 13 of 18 went to another of three nodes.
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def on_head_node(actor_class: Any, name: str, namespace: str, **options: Any) -> Any:
    """Return an actor class whose only actor of this name is on the head node, and lives as long as the cluster."""
    return actor_class.options(
        name=name,
        namespace=namespace,
        get_if_exists=True,
        lifetime="detached",
        num_cpus=0,
        scheduling_strategy=head_place(),
        enable_task_events=False,  # for Ray's dashboard; the GCS would keep 3 kB for each call, up to 300 MB
        **options,
    )


def once_name_is_free(start: Callable[[], T], dead: type[Exception] = ValueError) -> T:
    """Start a named actor; try again for a while, since a dead actor keeps its name for some milliseconds.

    Args:
        start: starts the actor.
        dead: the error, besides ValueError, that is raised for an actor that has just died.
    """
    give_up, pause = time.monotonic() + NAME_S, threading.Event()
    while True:
        try:
            return start()
        except (ValueError, dead):
            if time.monotonic() > give_up:
                raise
            pause.wait(NAME_AGAIN_S)


def _nodes_now() -> list[Node]:
    import ray

    return living_nodes(ray.nodes(), first=ray.get_runtime_context().get_node_id())


def _actor_state(actor: Any) -> dict[str, Any]:
    """Return Ray's record of an actor; empty if Ray has none.

    Ray's function is private, and the only one that works without Ray's dashboard; ``Pid`` is 0 for an actor without a
    process. If Ray removes the function, users are not told why an engine does not start.
    """
    actors, actor_id = getattr(_state(), "actors", None), getattr(actor, "_actor_id", None)
    return {} if actors is None or actor_id is None else dict(actors(actor_id.hex()) or {})


def has_had_actors(names: Container[str]) -> bool:
    """Return whether this Ray has or had an actor with one of these names; True also if Ray does not report it."""
    actors = getattr(_state(), "actors", None)
    return actors is None or any(actor.get("Name") in names for actor in actors().values())


def _free_resources() -> dict[str, dict[str, float]]:
    """Return the free resources by node id. This uses a private function of Ray, as :func:`_actor_state` does."""
    return dict(getattr(_state(), "available_resources_per_node", dict)())


def _state() -> Any:
    """Return Ray's module that reads its tables, which is private; None if this version of Ray has none."""
    try:
        from ray._private import state
    except ImportError:
        return None
    return state
