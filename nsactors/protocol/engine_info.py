"""Descriptions of engines: identity, labels, versions and memory.

`EngineOptions` are the options that a user sets, an `EngineSpec` is all that a new engine needs to start, and an
`EngineInfo` describes a running engine. The other values describe an engine to users: its memory, the versions in its
process, and the outcome of its recovery.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from nsactors._frozen import frozen
from nsactors.protocol.messages import RequestId, StreamText


def has_labels(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Return whether labels match a selector.

    Conditions are those of Ray's label selectors: ``"a"``, ``"!a"``, ``"in(a, b)"`` and ``"!in(a, b)"``. A missing
    label does not match ``"a"``.

    Example:
        >>> has_labels({"zone": "b"}, {"zone": "in(a, b)", "disk": "!slow"})
        True
    """
    return all(holds(labels.get(name), condition) for name, condition in selector.items())


def holds(value: str | None, condition: str) -> bool:
    """Return whether the value of one label, None if it is missing, meets a condition."""
    wanted, negated = condition.removeprefix("!").strip(), condition.startswith("!")
    if wanted.startswith("in(") and wanted.endswith(")"):
        values = [part.strip() for part in wanted[3:-1].split(",")]
    else:
        values = [wanted]
    return (value in values) is not negated


class Size(NamedTuple):
    """The size of a value in bytes.

    Attributes:
        own: in memory of its process.
        shared: in arrays that are views of a file, or of memory that the processes of a node share.
    """

    own: int = 0
    shared: int = 0

    @property
    def total(self) -> int:
        """The sum of both."""
        return self.own + self.shared


class NameMemory(NamedTuple):
    """The memory of one name in a namespace."""

    name: str
    type_name: str
    size: Size


class NamespaceMemory(NamedTuple):
    """The memory of a namespace.

    Attributes:
        names: the largest names, in order of size; a value with two names is counted twice.
        others: the number of other names.
        size: the size of all names, each value counted once.
    """

    names: tuple[NameMemory, ...]
    others: int
    size: Size


class ProcessMemory(NamedTuple):
    """The memory of a process in bytes: its own (USS), and all that it maps, shared or not (RSS)."""

    unique: int
    resident: int


class ProcessorTime(NamedTuple):
    """Seconds of processor time that a process had used at ``at_s`` on its monotonic clock."""

    used_s: float
    at_s: float


class StoreMemory(NamedTuple):
    """The object store of a node.

    Attributes:
        node: the host name of the node.
        node_id: the id of the node, unique in its cluster.
        capacity: its size in bytes.
        used: bytes that cannot be dropped; more than ``capacity`` if objects in use had to be put on disk.
        spilled: bytes of objects that were moved to disk.
    """

    node: str
    node_id: str
    capacity: int
    used: int
    spilled: int

    @property
    def free(self) -> int:
        """Bytes that can be put without spilling."""
        return max(0, self.capacity - self.used)

    @property
    def on_disk(self) -> int:
        """Bytes that were spilled, or that are used from disk because they did not fit."""
        return self.spilled + max(0, self.used - self.capacity)


@frozen
class EngineMemory:
    """The memory and time that an engine uses.

    Attributes:
        namespace: the memory of its names.
        process: the memory of its process; None if it shares a process with its client.
        store: the object store of its node; None if there is none.
        processor: the processor time of its process; None if it shares a process with its client.
    """

    namespace: NamespaceMemory
    process: ProcessMemory | None = None
    store: StoreMemory | None = None
    processor: ProcessorTime | None = None


class Comparison(NamedTuple):
    """The differences between the versions of two processes.

    Attributes:
        differences: the version here and the version there, by name.
        fatal: whether the two cannot work together.
    """

    differences: dict[str, tuple[str, str]]
    fatal: bool


def compare(here: Mapping[str, str], there: Mapping[str, str]) -> Comparison:
    """Compare versions by name, ignoring names that only one of them has.

    Functions travel as bytecode, which differs between minor versions of Python: such a difference is fatal. A
    difference of protocol is also fatal, since classes of nsactors travel by name. Other differences only cause a
    warning.
    """
    if "protocol" in here:
        there = {"protocol": "1", **there}  # a cluster that reports no protocol has the first one
    differences = {name: (here[name], there[name]) for name in here if name in there and here[name] != there[name]}
    other_python = "python" in differences and _minor(*differences["python"])
    return Comparison(differences, other_python or "protocol" in differences)


def _minor(here: str, there: str) -> bool:
    return here.split(".")[:2] != there.split(".")[:2]


_SHOWN = 10


class NotReplayed(NamedTuple):
    """A request that was not replayed, and why. Its effects are lost; it can be sent again."""

    request: RequestId
    label: str
    reason: str


class Divergence(NamedTuple):
    """A request whose replay ended differently: the classes of the exceptions that it raised; empty for success."""

    request: RequestId
    label: str
    error_then: str
    error_now: str

    def __str__(self) -> str:
        return f"{self.label}: {_ended(self.error_then)} then, {_ended(self.error_now)} now"


class MayDiffer(NamedTuple):
    """A replayed request that uses sources which differ each time, so that it may have left other values."""

    request: RequestId
    label: str
    sources: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.label} (uses {', '.join(self.sources)})"


@frozen
class RecoveryReport:
    """The outcome of an engine's recovery: which names are restored, and which differences are known.

    Attributes:
        engine_id: the engine.
        restored: names whose values come from the snapshot.
        remade: names that no snapshot can hold, recreated by replaying the requests that created them. They have their
            first values: changes by later requests were not replayed.
        replayed: the number of requests that were replayed on top of the snapshot.
        not_replayed: requests that were not replayed.
        diverged: requests whose replay ended differently, including those that recreated ``remade``.
        lost: names that could not be restored, with the reason.
        may_differ: replayed requests that use the clock, files, or other sources that the journal does not record, or
            whose variables may have been changed in the debugger.
        not_kept: state of the process, apart from its names, that was not restored, with the reason.
        shipped_only: whether the journal comes from its replica, because the engine's machine is lost: entries that
            were not replicated are missing.
        saved_at: if the cluster continues a job, the time at which that job saved the journal, in seconds since the
            epoch: requests that ran there later are missing. Otherwise None.
        took_s: the duration of the recovery in seconds.
    """

    engine_id: int
    restored: tuple[str, ...] = ()
    remade: tuple[str, ...] = ()
    replayed: int = 0
    not_replayed: tuple[NotReplayed, ...] = ()
    diverged: tuple[Divergence, ...] = ()
    lost: tuple[tuple[str, str], ...] = ()
    may_differ: tuple[MayDiffer, ...] = ()
    not_kept: tuple[tuple[str, str], ...] = ()
    shipped_only: bool = False
    saved_at: float | None = None
    took_s: float = 0.0

    @property
    def is_complete(self) -> bool:
        """True if no difference is known between the namespace and its state at the engine's last reply."""
        told = (self.remade, self.not_replayed, self.diverged, self.lost, self.may_differ, self.not_kept)
        return not (any(told) or self.shipped_only)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Print the report at IPython's prompt."""
        printer.text(str(self))

    def __str__(self) -> str:
        done = [
            _count(len(self.restored), "name", " restored from the snapshot"),
            _count(len(self.remade), "name", " recreated"),
            _count(self.replayed, "request", " replayed"),
        ]
        lines = [f"engine {self.engine_id} is recovered: {', '.join(filter(None, done)) or 'its namespace was empty'}"]
        if self.shipped_only:
            lines.append("  its machine is lost: requests that were not yet replicated to another machine are missing")
        if self.saved_at is not None:
            then = datetime.fromtimestamp(self.saved_at, UTC).astimezone()
            lines.append(f"  as it was when the previous job saved it, at {then:%Y-%m-%d %H:%M:%S}")
        lines += _listed("recreated with their first values", self.remade)
        lines += _listed("not repeated", (f"{label} ({reason})" for _, label, reason in self.not_replayed))
        lines += _listed("ended differently", map(str, self.diverged))
        lines += _listed("may have left other values", map(str, self.may_differ))
        lines += _listed("lost", (f"{name} ({reason})" for name, reason in self.lost))
        lines += _listed("process state not restored", (f"{name} ({reason})" for name, reason in self.not_kept))
        return "\n".join(lines)


def _ended(error: str) -> str:
    return f"raised {error}" if error else "completed"


def _count(number: int, noun: str, rest: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}{rest}" if number else ""


def _listed(title: str, items: Iterable[str]) -> list[str]:
    texts = list(items)
    if not texts:
        return []
    more = [f"and {len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else []
    return [f"  {title}: {'; '.join(texts[:_SHOWN] + more)}"]


class Recovery(enum.StrEnum):
    """The cluster's reaction to the death of an engine."""

    NONE = "none"
    """The engine leaves the cluster."""
    RESTART = "restart"
    """A new process takes its id, with an empty namespace."""
    REPLAY = "replay"
    """A new process takes its id, and restores its namespace from its journal."""


@frozen
class EngineOptions:
    """The options of an engine; they apply to all its incarnations.

    Attributes:
        recovery: the reaction to its death.
        ships_journal: whether each journal entry is replicated to another machine before its request is answered.
        num_cpus: cores that it reserves; 0 reserves none, even if it uses some.
        num_gpus: GPUs that it reserves; it sees no others.
        memory: memory that it reserves, in bytes.
        resources: amounts that it reserves of resources that the cluster defines.
        labels: labels by which tasks select it, besides those of its node.
        node_labels: label selectors for its node, as in Ray.
        node: the name, address or id of its node.
        environment: variables set before the engine imports anything, besides those of the cluster.
        on_error: a pickled function that is called with exceptions raised on the engine.
        breakpoints: whether its requests stop at breakpoints.
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
    on_error: bytes | None = None
    breakpoints: bool = True

    @property
    def demands(self) -> dict[str, float]:
        """Resources that it reserves on its node, by the names that Ray gives them."""
        named = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": self.memory or 0, **self.resources}
        return {name: amount for name, amount in named.items() if amount}


@frozen
class EngineSpec:
    """The description that a new engine gets of itself.

    Attributes:
        engine_id: its id.
        incarnation: its incarnation.
        cluster: the cluster's name.
        environment: variables set before the engine imports numerical libraries.
        startup: a cell that it runs first.
        options: its options.
        recovers: the incarnation whose namespace it restores before it accepts requests.
    """

    engine_id: int
    incarnation: int
    cluster: str
    environment: dict[str, str] = field(default_factory=dict)
    startup: str = ""
    options: EngineOptions = EngineOptions()
    recovers: int | None = None


@frozen
class EngineInfo:
    """The address and properties of one incarnation of an engine.

    Attributes:
        engine_id: its id.
        incarnation: its incarnation.
        pid: the id of its process.
        host: the name of its machine.
        address: the handle by which the transport reaches it.
        output_path: the path of the files with its output.
        recovery: the reaction to its death.
        recovered: the report on its namespace, if it replaces another incarnation.
        resources: resources that it has for tasks, by the names that Ray gives them.
        labels: labels by which tasks select it.
        startup_output: the end of the output of its start-up code.
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
    startup_output: tuple[StreamText, ...] = field(default=(), compare=False)

    @classmethod
    def of(
        cls, spec: EngineSpec, pid: int, host: str, output_path: str | None, recovered: RecoveryReport | None
    ) -> EngineInfo:
        """Return the address and properties of an engine made from ``spec``; the transport adds its handle."""
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
    """Return ``spec`` with further labels; labels that the engine was requested with take precedence."""
    return replace(spec, options=replace(spec.options, labels={**labels, **spec.options.labels}))
