"""What an engine is asked for with, what it is told about itself, and where it lives."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nsactors.core.recovery import RecoveryReport

__all__ = ["EngineInfo", "EngineOptions", "EngineSpec", "Recovery", "with_labels"]


class Recovery(enum.StrEnum):
    """What becomes of an engine that dies."""

    NONE = "none"
    """It is gone."""
    RESTART = "restart"
    """A new process takes its id, with an empty namespace."""
    REPLAY = "replay"
    """A new process takes its id, and its namespace is made again from its journal."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What an engine is asked for with; it holds for all its incarnations.

    Attributes:
        recovery: what becomes of it if it dies.
        ships_journal: before a request is answered, its journal is on another machine than the engine's.
        num_cpus: cores that the engine counts for; 0 takes part in no count, whatever it uses.
        num_gpus: the same for GPUs; it sees no others.
        memory: the same for memory, in bytes.
        resources: the same for resources that a cluster names itself.
        labels: by which tasks find it, besides those of its node.
        node_labels: of the node it is to be on, as Ray's label selectors say them.
        node: the name, the address or the id of the node it is to be on.
        environment: set before the engine imports anything, besides what the cluster sets.
    """

    recovery: Recovery = Recovery.RESTART
    ships_journal: bool = False
    num_cpus: float = 0
    num_gpus: float = 0
    memory: int | None = None
    resources: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    node_labels: dict[str, str] = field(default_factory=dict)
    node: str | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def demands(self) -> dict[str, float]:
        """What it takes of its node's resources, by the names that Ray gives them."""
        named = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": self.memory or 0, **self.resources}
        return {name: amount for name, amount in named.items() if amount}


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What a new engine is told about itself.

    Attributes:
        engine_id: its id.
        incarnation: which process of that id it is.
        cluster: the cluster's name.
        environment: set before the engine imports anything numerical.
        startup: a cell that it runs first.
        options: what it was asked for with.
        recovers: the incarnation whose namespace it makes again before it takes requests.
    """

    engine_id: int
    incarnation: int
    cluster: str
    environment: dict[str, str] = field(default_factory=dict)
    startup: str = ""
    options: EngineOptions = EngineOptions()
    recovers: int | None = None


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Where one incarnation of an engine lives.

    Attributes:
        engine_id: its id.
        incarnation: which process of that id it is.
        pid: its process.
        host: the machine's name.
        address: the transport's own handle.
        output_path: of the files with what it prints.
        recovery: what becomes of it if it dies.
        recovered: what became of the namespace of the incarnation before it; None for an engine without one.
        resources: what it has for tasks, by the names that Ray gives them.
        labels: by which tasks find it.
    """

    engine_id: int
    incarnation: int
    pid: int
    host: str
    address: Any = field(compare=False, repr=False)
    output_path: str | None = None
    recovery: Recovery = Recovery.NONE
    recovered: RecoveryReport | None = field(default=None, compare=False)
    resources: Mapping[str, float] = field(default_factory=dict, compare=False)
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)

    @classmethod
    def of(
        cls, spec: EngineSpec, pid: int, host: str, output_path: str | None, recovered: RecoveryReport | None
    ) -> EngineInfo:
        """Where the engine with this description lives; its transport adds the handle."""
        options = spec.options
        return cls(
            spec.engine_id,
            spec.incarnation,
            pid,
            host,
            None,
            output_path,
            options.recovery,
            recovered,
            options.demands,
            options.labels,
        )


def with_labels(spec: EngineSpec, labels: Mapping[str, str]) -> EngineSpec:
    """An engine that has these labels too, where it was not asked for with others of the same names."""
    return replace(spec, options=replace(spec.options, labels={**labels, **spec.options.labels}))
