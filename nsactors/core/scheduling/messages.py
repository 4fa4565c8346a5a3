"""What a scheduler is told and what it answers: tasks, engines, events, effects. Plain values all.

A *task* is a call, or a map of ``size`` items with one record however long it is. A *span* is a run of a task's items;
it is what batches are made of, so a chunk of a map and a single call travel alike. Times are seconds on any clock that
does not go backwards; the scheduler has none of its own.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nsactors.core.labels import holds
from nsactors.errors.sizes import amount_in_words

__all__ = [
    "ANYWHERE",
    "AbortRequested",
    "Alarm",
    "Deliver",
    "Dependency",
    "Dispatch",
    "Effect",
    "Engine",
    "EngineAdded",
    "EngineClosing",
    "EngineRemoved",
    "Event",
    "Forgotten",
    "GiveUp",
    "Interrupt",
    "Needs",
    "Peek",
    "Policy",
    "Ran",
    "Replied",
    "Retry",
    "Span",
    "Status",
    "Submitted",
    "TakeBack",
    "TakenBack",
    "Task",
    "TaskId",
    "Tick",
    "Why",
]

TaskId = Hashable


class Span(NamedTuple):
    """Items ``start`` to ``stop - 1`` of a task; a call has one item, number 0."""

    task_id: TaskId
    start: int = 0
    stop: int = 1


@dataclass(frozen=True, slots=True)
class Engine:
    """What an engine offers. It runs one task at a time, so a task may use all of its resources."""

    engine_id: int
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


class Needs(NamedTuple):
    """Which engines may run a task (see :meth:`of`). Hashable: tasks of equal needs queue together."""

    targets: frozenset[int] | None = None
    resources: frozenset[tuple[str, float]] = frozenset()
    labels: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def of(
        cls,
        targets: Iterable[int] | None = None,
        resources: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Needs:
        """Needs from the forms that people write.

        Args:
            targets: ids of engines; None for any.
            resources: how much of each an engine must have at least.
            labels: what each of these labels of an engine must be, as :mod:`nsactors.core.labels` has it.

        Example:
            >>> Needs.of([0, 2], resources={"GPU": 1}).met_by(Engine(2, {"GPU": 2}))
            True
        """
        return cls(
            None if targets is None else frozenset(targets),
            frozenset((resources or {}).items()),
            frozenset((labels or {}).items()),
        )

    def met_by(self, engine: Engine) -> bool:
        """Whether ``engine`` may run it."""
        return (
            (self.targets is None or engine.engine_id in self.targets)
            and all(engine.resources.get(name, 0) >= amount for name, amount in self.resources)
            and all(holds(engine.labels.get(name), condition) for name, condition in self.labels)
        )

    @property
    def in_words(self) -> str:
        """What it asks for besides an id: ``2 GPU, zone=b``."""
        amounts = [amount_in_words(name, amount) for name, amount in sorted(self.resources)]
        return ", ".join([*amounts, *(f"{name}={condition}" for name, condition in sorted(self.labels))])


ANYWHERE = Needs()


@dataclass(frozen=True, slots=True)
class Dependency:
    """Other tasks, and which of their ends count; the meaning is that of ipyparallel's class of this name.

    A map counts as one task: it has succeeded if all its items have, and has run on each engine that ran some of them.

    Args:
        task_ids: the tasks depended on.
        all: whether each of them must end in a way that counts, or any one.
        success: whether a success counts.
        failure: whether a failure counts; to be aborted, or never to run, is one.

    Raises:
        ValueError: if nothing counts.
    """

    task_ids: frozenset[TaskId]
    all: bool = True
    success: bool = True
    failure: bool = False

    def __post_init__(self) -> None:
        if not (self.success or self.failure):
            raise ValueError("a dependency counts successes, failures or both: it can never be met otherwise")


class Task(NamedTuple):
    """A call, or a map, and the conditions under which it runs.

    Attributes:
        task_id: unique for ever.
        size: the number of items: 1 for a call, any for a map.
        kind: tasks of a kind are expected to take about as long an item; batches are sized by that.
        needs: which engines may run it.
        after: when it may run.
        follow: where it may run: where those tasks ran, which must have ended too.
        retries: how often an item that failed is tried again.
        timeout_s: seconds from its submission within which it must go to an engine.
        priority: higher goes first; equal ones in the order of submission.
        chunksize: batches hold multiples of that many items; chosen from measured times if None.
    """

    task_id: TaskId
    size: int = 1
    kind: Hashable = None
    needs: Needs = ANYWHERE
    after: Dependency | None = None
    follow: Dependency | None = None
    retries: int = 0
    timeout_s: float | None = None
    priority: float = 0
    chunksize: int | None = None


class Status(enum.Enum):
    """How an engine ended a span."""

    OK = "ok"
    FAILED = "failed"
    UNMET = "this engine does not meet a condition of the task: try another"


class Ran(NamedTuple):
    """What an engine says of a span: all its items ended with ``status``, after ``elapsed_s`` seconds in sum.

    ``value`` is the driver's own: the scheduler passes it on with the rest.
    """

    task_id: TaskId
    start: int
    stop: int
    status: Status
    elapsed_s: float
    value: Any = None


@dataclass(frozen=True, slots=True)
class Policy:
    """How work is cut and moved. The defaults suit engines within a few milliseconds.

    Where messages turn out to take longer, ``batch_s`` and ``least_s`` grow with them.

    Attributes:
        batch_s: how long a batch should run.
        least_s: a batch of a long queue is worth at least this, so that messages do not outweigh the work.
        prefetch_below_s: an engine is sent a second batch in advance if its tasks take less than this each; a few
            together then, as many as begin within this time.
        patience_s: a batch this old is taken back from if another engine has nothing to do.
        late_s: an engine that runs a batch for so long is asked for those of its results that are there.
        max_losses: how many engines may be lost under an item before it is held responsible and given up.
    """

    batch_s: float = 0.02
    least_s: float = 0.001
    prefetch_below_s: float = 0.1
    patience_s: float = 0.01
    late_s: float = 0.25
    max_losses: int = 5


# Events: what happened, and when.


@dataclass(frozen=True, slots=True)
class Submitted:
    """These tasks are to be run. One whose id is known already is ignored."""

    tasks: tuple[Task, ...]
    at: float


@dataclass(frozen=True, slots=True)
class Replied:
    """An engine is done with a batch: this is what it ran. What it leaves out it has not begun and never will.

    The results of one span come in the order of its items, from the first on, without gaps.

    If there are ``more`` to come, it is not done, and these are among the results of the reply that it will give then,
    as they are here.
    """

    batch_id: int
    results: tuple[Ran, ...]
    at: float
    more: bool = False


@dataclass(frozen=True, slots=True)
class TakenBack:
    """An engine gives these spans of a batch back: it has not begun them and never will.

    Each ends where a span of the batch ends. The batch's reply is still to come.
    """

    batch_id: int
    spans: tuple[Span, ...]
    at: float


@dataclass(frozen=True, slots=True)
class AbortRequested:
    """These tasks are no longer wanted. One event for many is much cheaper than one for each."""

    task_ids: frozenset[TaskId]
    at: float


@dataclass(frozen=True, slots=True)
class EngineAdded:
    """An engine takes work. If its id was there before, that process is gone, and its namespace with it."""

    engine: Engine
    at: float


@dataclass(frozen=True, slots=True)
class EngineClosing:
    """An engine does what it has been sent and takes no more: it is about to go."""

    engine_id: int
    at: float


@dataclass(frozen=True, slots=True)
class EngineRemoved:
    """An engine's process is gone, or there has been none yet; ``returns`` if one is being started under its id."""

    engine_id: int
    at: float
    returns: bool = False


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Nobody will name these tasks as dependencies any more. Those that have not ended go on."""

    task_ids: frozenset[TaskId]
    at: float


@dataclass(frozen=True, slots=True)
class Tick:
    """The time of an alarm has come."""

    at: float


Event = (
    Submitted | Replied | TakenBack | AbortRequested | EngineAdded | EngineClosing | EngineRemoved | Forgotten | Tick
)


# Effects: what is to be done.


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send a batch to an engine, which runs it in order after those it was sent before, and replies once.

    After ``budget_s`` seconds of running it, the engine should begin no more of it and reply.
    """

    engine_id: int
    batch_id: int
    spans: tuple[Span, ...]
    budget_s: float


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Ask an engine which of these spans, or tails of them, it has not begun; it is not to run them then."""

    engine_id: int
    batch_id: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Peek:
    """Ask an engine for the results so far of a batch that it runs: something in it takes long."""

    engine_id: int
    batch_id: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Interrupt an engine if it is running one of these spans."""

    engine_id: int
    batch_id: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Deliver:
    """These are final results: no item is in more than one, or in a :class:`GiveUp` too."""

    engine_id: int
    results: tuple[Ran, ...]


class Why(enum.Enum):
    """Why items end without a result."""

    ABORTED = "aborted"
    IMPOSSIBLE = "its conditions cannot be met"
    TIMED_OUT = "timed out"
    ENGINES_LOST = "engines were lost under it"


@dataclass(frozen=True, slots=True)
class GiveUp:
    """These items have ended without a result; ``reason`` says why in words."""

    span: Span
    why: Why
    reason: str


@dataclass(frozen=True, slots=True)
class Retry:
    """These items go to another engine: they failed on this one (``result``), or it was lost (None)."""

    span: Span
    engine_id: int
    result: Ran | None


@dataclass(frozen=True, slots=True)
class Alarm:
    """Send a :class:`Tick` at this time, or soon after. A later alarm may be forgotten when an earlier one comes."""

    at: float


Effect = Dispatch | TakeBack | Peek | Interrupt | Deliver | GiveUp | Retry | Alarm
