"""The scheduler's values: tasks, engines, events and effects.

A *task* is a call, or a map of ``size`` items. A map has one record, even if it is long. A *task range* (``span``) is a
run of a task's items. Batches are made of task ranges, so a chunk of a map and a single call travel in the same way.
Times are seconds on any clock that does not go backwards; the scheduler has no clock of its own.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import field
from typing import NamedTuple

from nsactors._frozen import frozen
from nsactors.errors.formatting import amount_in_words
from nsactors.protocol.engine_info import holds
from nsactors.protocol.tasks import RangeOutcome, TaskId, TaskRange


@frozen
class Engine:
    """An engine and its resources. It runs one task at a time, so a task may use all of them.

    Attributes:
        engine_id: its id.
        resources: the amount of each resource.
        labels: its labels.
        is_new: whether it has restarted with an empty namespace. It then gets one task, and no other until this task
            ends.
    """

    engine_id: int
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    is_new: bool = False


class Needs(NamedTuple):
    """The conditions on engines that may run a task; see :meth:`of`. Tasks of equal needs share a queue."""

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
        """Return needs from the forms in which users write them.

        Args:
            targets: ids of engines; None for any.
            resources: the least amount of each resource.
            labels: conditions on the labels of an engine, as :mod:`nsactors.protocol.engine_info` describes them.

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
        """Return whether an engine meets these needs."""
        return (
            (self.targets is None or engine.engine_id in self.targets)
            and all(engine.resources.get(name, 0) >= amount for name, amount in self.resources)
            and all(holds(engine.labels.get(name), condition) for name, condition in self.labels)
        )

    @property
    def only_target(self) -> int | None:
        """The id of the only engine that may meet these needs; None if there may be others."""
        return next(iter(self.targets)) if self.targets is not None and len(self.targets) == 1 else None

    @property
    def in_words(self) -> str:
        """The resources and labels that are needed: ``2 GPU, zone=b``."""
        amounts = [amount_in_words(name, amount) for name, amount in sorted(self.resources)]
        return ", ".join([*amounts, *(f"{name}={condition}" for name, condition in sorted(self.labels))])


ANYWHERE = Needs()


@frozen
class TaskDependency:
    """Other tasks, and the outcomes that count, as in ipyparallel's class ``Dependency``.

    A map counts as one task. It has succeeded if all its items have succeeded. It has run on each engine that ran any
    of its items.

    Args:
        task_ids: the tasks on which a task depends.
        all: whether all of these must end with an outcome that counts; otherwise one of them is enough.
        success: whether success counts.
        failure: whether failure counts. A task that is aborted, or can never run, has failed.

    Raises:
        ValueError: if neither success nor failure counts.
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
        task_id: its id, which is unique for ever.
        size: the number of items: 1 for a call, any for a map.
        kind: its kind. Tasks of one kind are expected to take about the same time per item, which decides the size of
            batches.
        needs: the conditions on engines that may run it.
        after: tasks that must have ended before it begins.
        follow: tasks that must have ended before it begins, and on whose engines it must run.
        retries: how often an item that failed is tried again.
        timeout_s: seconds from its submission within which it must go to an engine; None for no limit.
        priority: tasks of higher priority go first, and tasks of equal priority go in the order of submission.
        chunksize: a batch holds a multiple of this number of items; None if measured times decide the number.
        policy: the pickle of the user's policy; see ``SchedulingPolicy``.
        label: its name, for people and policies.
        max_losses: how many engines may be lost while they have an item; None for the limit of ``Policy``.
    """

    task_id: TaskId
    size: int = 1
    kind: Hashable = None
    needs: Needs = ANYWHERE
    after: TaskDependency | None = None
    follow: TaskDependency | None = None
    retries: int = 0
    timeout_s: float | None = None
    priority: float = 0
    chunksize: int | None = None
    policy: bytes | None = None
    label: str = ""
    max_losses: int | None = None


class TaskState(enum.Enum):
    """The state of a task. A scheduler itself knows only tasks that have not ended."""

    WAITING = "waiting for other tasks"
    READY = "ready"
    STRANDED = "ready, but no engine of the cluster may run it"
    ASSIGNED = "at an engine"
    SUCCEEDED = "ended"
    FAILED = "ended, and some of it failed"


class TaskStatus(NamedTuple):
    """A task that has not ended, or a detached task whose results are kept.

    Attributes:
        msg_id: its id, the same as in its result.
        label: its name for people.
        state: waiting for other tasks, ready, stranded (no engine of the cluster may run it), assigned to engines,
            succeeded or failed.
        engines: the ids of the engines that have some of its items; after its end, of the engines that ran it.
        items_left: how many of its items have not ended.
        submitted: the time of its submission, in seconds since the epoch.
        started: the earliest start of its items that have ended, on the clock of their engine; None if it is not
            known.
        ended: the time of its end; None if it has not ended.
        detached: whether it outlives its client.
        waits: in words, the other work of the engines for which the task waits; empty if there is none.
    """

    msg_id: str
    label: str
    state: TaskState
    engines: tuple[int, ...]
    items_left: int
    submitted: float
    started: float | None = None
    ended: float | None = None
    detached: bool = False
    waits: str = ""


@frozen
class Policy:
    """The times that decide how work is cut and moved. The defaults suit messages that take a few milliseconds.

    If messages are found to take longer, ``batch_s`` and ``least_s`` grow with them.

    Attributes:
        batch_s: seconds that a batch should run.
        least_s: seconds that a batch of a long queue should run at least, so that messages do not outweigh the work.
        prefetch_below_s: if each task takes less than this, a second batch is sent to an engine in advance. This batch
            has only a few tasks: as many as begin within this time.
        patience_s: the age from which items of a batch are stolen if another engine has nothing to do.
        late_s: an engine that runs a batch for this time is asked for the results that it has so far.
        max_losses: how many engines may be lost while they have an item, unless its task has a limit of its own. At a
            further loss, the item fails if the engine ran nothing else, so that no other item can be the cause.
    """

    batch_s: float = 0.02
    least_s: float = 0.001
    prefetch_below_s: float = 0.1
    patience_s: float = 0.01
    late_s: float = 0.25
    max_losses: int = 5


# Events, with their times.


@frozen
class Submitted:
    """Tasks have been submitted. A task whose id is already known is ignored."""

    tasks: tuple[Task, ...]
    at: float


@frozen
class Replied:
    """An engine has replied to a batch. Items without an outcome have not begun and never will.

    The outcomes of one span are in the order of its items, beginning with the first and without gaps.

    If ``more`` is true, the batch still runs, and its reply will repeat these outcomes.
    """

    batch_id: int
    outcomes: tuple[RangeOutcome, ...]
    at: float
    more: bool = False


@frozen
class Stolen:
    """These task ranges of a batch have been stolen from an engine: they have not begun and never will.

    Each of them ends where a range of the batch ends. The reply to the batch arrives later.
    """

    batch_id: int
    spans: tuple[TaskRange, ...]
    at: float


@frozen
class AbortRequested:
    """A caller has asked to abort tasks. One event for many tasks is much cheaper than one event for each."""

    task_ids: frozenset[TaskId]
    at: float


@frozen
class EngineAdded:
    """An engine takes tasks. If an earlier process had its id, that process and its namespace are gone."""

    engine: Engine
    at: float


@frozen
class EngineClosing:
    """An engine is about to leave: it finishes its batches and takes no more."""

    engine_id: int
    at: float


@frozen
class EngineRemoved:
    """An engine's process is gone, or has not started yet; ``returns`` if a process with its id is being started."""

    engine_id: int
    at: float
    returns: bool = False


@frozen
class EngineBusy:
    """An engine has work that does not come from this scheduler, and gets no batches until it is free.

    Attributes:
        engine_id: the engine.
        work: the work, in words for people.
        at: when the work became known.
        before: whether the engine's batches that have not begun wait for that work.
    """

    engine_id: int
    work: str
    at: float
    before: bool = True


@frozen
class EngineProgressed:
    """Some of an engine's other work has ended, and more of it follows.

    As the engine is alive at this moment, a task for which no engine is free may join its queue. Otherwise, if other
    clients kept all engines busy for hours, tasks would never run.
    """

    engine_id: int
    at: float


@frozen
class EngineFree:
    """An engine has only work of this scheduler again. Its namespace may have changed."""

    engine_id: int
    at: float


@frozen
class Release:
    """No task will depend on these tasks any more. Tasks among them that have not ended go on."""

    task_ids: frozenset[TaskId]
    at: float


@frozen
class Tick:
    """The time of an alarm has come."""

    at: float


Event = (
    Submitted
    | Replied
    | Stolen
    | AbortRequested
    | EngineAdded
    | EngineClosing
    | EngineRemoved
    | EngineBusy
    | EngineProgressed
    | EngineFree
    | Release
    | Tick
)


# Effects: actions to carry out.


@frozen
class SendBatch:
    """Send a batch to an engine, which runs it in order after earlier batches, and replies once.

    When the batch has run for ``budget_s`` seconds, the engine should begin no more of its items, and reply.
    """

    engine_id: int
    batch_id: int
    spans: tuple[TaskRange, ...]
    budget_s: float


@frozen
class Steal:
    """Steal from an engine those items of these spans that have not begun."""

    engine_id: int
    batch_id: int
    spans: tuple[TaskRange, ...]


@frozen
class PeekBatch:
    """Ask an engine for the outcomes that a running batch has so far, because one of its items takes long."""

    engine_id: int
    batch_id: int


@frozen
class InterruptRanges:
    """Interrupt an engine if it is running one of these spans."""

    engine_id: int
    batch_id: int
    spans: tuple[TaskRange, ...]


@frozen
class Deliver:
    """Deliver final outcomes. Each item is in only one outcome, and then in no :class:`Fail`."""

    engine_id: int
    outcomes: tuple[RangeOutcome, ...]


class Why(enum.Enum):
    """The reason why items end without an outcome."""

    ABORTED = "aborted"
    IMPOSSIBLE = "its conditions cannot be met"
    TIMED_OUT = "timed out"
    ENGINES_LOST = "engines were lost under it"


@frozen
class Fail:
    """Fail items that have ended without an outcome; ``reason`` is for people."""

    span: TaskRange
    why: Why
    reason: str


@frozen
class Retry:
    """Record that items go to another engine, because they failed on this one (``outcome``) or it was lost (None)."""

    span: TaskRange
    engine_id: int
    outcome: RangeOutcome | None


@frozen
class PolicyFailed:
    """Tell the user that a policy has failed and is no longer asked."""

    reason: str


@frozen
class Alarm:
    """Send a :class:`Tick` at this time or soon after. An alarm for an earlier time may replace this one."""

    at: float


Effect = SendBatch | Steal | PeekBatch | InterruptRanges | Deliver | Fail | Retry | Alarm | PolicyFailed
