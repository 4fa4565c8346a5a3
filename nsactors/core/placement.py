"""On which node an engine starts, and what to say if there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nsactors.core.cluster import EngineOptions
from nsactors.errors import bytes_in_words

__all__ = ["Node", "demands", "fits", "has_labels", "is_crowded_out", "least_loaded", "shortage", "suitable"]

_NODES_SHOWN = 8


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


def least_loaded(nodes: Sequence[str], engines: Iterable[str]) -> str:
    """The node with the fewest engines; of equals, the first.

    Args:
        nodes: those to choose from, in order of preference; at least one.
        engines: the node of each engine that there is, also of those on nodes that cannot be chosen.

    Example:
        >>> least_loaded(["a", "b", "c"], ["a", "c", "gone"])
        'b'
    """
    load = Counter(engines)
    return min(nodes, key=load.__getitem__)


def demands(options: EngineOptions) -> dict[str, float]:
    """What an engine takes of its node's resources, by the names that Ray gives them."""
    named = {"CPU": options.num_cpus, "GPU": options.num_gpus, "memory": options.memory or 0, **options.resources}
    return {name: amount for name, amount in named.items() if amount}


def fits(options: EngineOptions, offer: Mapping[str, float]) -> bool:
    """Whether there is as much of everything as an engine takes."""
    return all(offer.get(name, 0) >= amount for name, amount in demands(options).items())


def has_labels(node: Node, selector: Mapping[str, str]) -> bool:
    """Whether a node's labels are as asked for.

    Conditions are those of Ray's label selectors: ``"a"``, ``"!a"``, ``"in(a, b)"`` and ``"!in(a, b)"``. A label that a
    node does not have is not ``"a"``.
    """
    return all(_holds(node.labels.get(name), condition) for name, condition in selector.items())


def suitable(nodes: Iterable[Node], options: EngineOptions) -> list[Node]:
    """The nodes where an engine can be, as soon as nobody else uses what it asks for.

    Without any wish it is on one that offers CPUs, unless none does: clusters keep nodes free of work like that.
    """
    able = [
        node
        for node in nodes
        if options.node in (None, *node.names) and has_labels(node, options.labels) and fits(options, node.resources)
    ]
    return able if options.node else [node for node in able if node.resources.get("CPU")] or able


def is_crowded_out(options: EngineOptions, nodes: Iterable[Node], others: Iterable[EngineOptions]) -> bool:
    """Whether there is certainly no room for an engine beside others on the same nodes.

    All nodes are taken as one: what is left of them together may still be too little on each.
    """
    able, taken = list(nodes), [demands(other) for other in others]
    return any(
        sum(node.resources.get(name, 0) for node in able) - sum(other.get(name, 0) for other in taken) < amount
        for name, amount in demands(options).items()
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
    wanted = demands(options)
    labels = [f"{name}={condition}" for name, condition in options.labels.items()]
    asked = [_amount(name, amount) for name, amount in wanted.items()] + [f"the label {label}" for label in labels]
    taken = bool(suitable(here, options))
    has = [_has(node, wanted, options.labels, free.get(node.node_id, {}) if taken else None) for node in here]
    if len(has) > _NODES_SHOWN:
        has = [*has[:_NODES_SHOWN], f"and there are {len(has) - _NODES_SHOWN} more"]
    problem = "others use that" if taken else "no node has that"
    return f"it asks for {_listed(asked)}, and {problem}: {'; '.join(has)}"


def _holds(value: str | None, condition: str) -> bool:
    wanted, negated = condition.removeprefix("!").strip(), condition.startswith("!")
    if wanted.startswith("in(") and wanted.endswith(")"):
        values = [part.strip() for part in wanted[3:-1].split(",")]
    else:
        values = [wanted]
    return (value in values) is not negated


def _has(node: Node, wanted: Mapping[str, float], labels: Mapping[str, str], free: Mapping[str, float] | None) -> str:
    """What a node has of what is wanted; of what is free, if that is the question."""
    things = []
    for name in wanted:
        total = node.resources.get(name, 0)
        things.append(_amount(name, total) if free is None else f"{_amount(name, free.get(name, 0))} free of {total:g}")
    things += [f"{name}={node.labels[name]}" if name in node.labels else f"no {name}" for name in labels]
    return f"{node} has {_listed(things)}"


def _amount(name: str, amount: float) -> str:
    return f"{bytes_in_words(int(amount))} of memory" if name == "memory" else f"{amount:g} {name}"


def _listed(things: Sequence[str]) -> str:
    return " and ".join([", ".join(things[:-1]), things[-1]] if len(things) > 1 else things)
