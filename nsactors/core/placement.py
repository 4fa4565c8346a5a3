"""On which node an engine starts, and what to say if there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nsactors.core.engines import EngineOptions
from nsactors.core.labels import has_labels
from nsactors.errors.sizes import amount_in_words

__all__ = ["Node", "fits", "is_crowded_out", "least_loaded", "shortage", "suitable"]

_NODES_SHOWN = 8
_LEAST_WEIGHT = 1e-6  # a node that is to have no engines has some if there is no other


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster.

    Attributes:
        node_id: unique, also over its restarts.
        names: what people may call it: its host's name and address, and its id.
        resources: what it has to offer, whether somebody uses it or not; ``CPU``, ``GPU``, ``memory`` in bytes, and
            those that the cluster names itself.
        labels: what it says of itself.
    """

    node_id: str
    names: tuple[str, ...] = ()
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.names[0] if self.names else self.node_id


def least_loaded(nodes: Sequence[str], engines: Iterable[str], weights: Mapping[str, float] | None = None) -> str:
    """The node with the fewest engines; of equals, the first.

    Args:
        nodes: those to choose from, in order of preference; at least one.
        engines: the node of each engine that there is, also of those on nodes that cannot be chosen.
        weights: by node, how many engines it is to have in proportion to others; 1 where nothing is said.

    Example:
        >>> least_loaded(["a", "b", "c"], ["a", "c", "gone"])
        'b'
        >>> least_loaded(["a", "b"], ["a", "b", "b"], {"a": 1, "b": 4})
        'b'
    """
    load, shares = Counter(engines), weights or {}
    return min(nodes, key=lambda node: (load[node] + 1) / max(shares.get(node, 1), _LEAST_WEIGHT))


def fits(options: EngineOptions, offer: Mapping[str, float]) -> bool:
    """Whether there is as much of everything as an engine takes."""
    return all(offer.get(name, 0) >= amount for name, amount in options.demands.items())


def suitable(nodes: Iterable[Node], options: EngineOptions) -> list[Node]:
    """The nodes where an engine can be, as soon as nobody else uses what it asks for.

    Without any wish it is on one that offers CPUs, unless none does: clusters keep nodes free of work like that.
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
    """Whether there is certainly no room for an engine beside others on the same nodes.

    All nodes are taken as one: what is left of them together may still be too little on each.
    """
    able, taken = list(nodes), [other.demands for other in others]
    return any(
        sum(node.resources.get(name, 0) for node in able) - sum(other.get(name, 0) for other in taken) < amount
        for name, amount in options.demands.items()
    )


def shortage(nodes: Sequence[Node], options: EngineOptions, free: Mapping[str, Mapping[str, float]]) -> str:
    """What an engine asks for and what the nodes have of that, for people.

    Args:
        nodes: those that are alive.
        options: what the engine was asked for with.
        free: by node id, what nobody uses.

    Returns:
        The reason, for an engine that asks for anything.

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
    """What a node has of what is wanted; of what is free, if that is the question."""
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
