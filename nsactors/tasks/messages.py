"""The scheduler's values: tasks, engines, events and effects.

A *task* is a call, or a map of ``size`` items with one record however long it is. A *task range* (``span``) is a run of
a task's items; batches are made of task ranges, so a chunk of a map and a single call travel alike. Times are seconds
on any clock that does not go backwards; the scheduler has none of its own.
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
        resources: the amount of each.
        labels: its labels.
        is_new: it has restarted with an empty namespace: until one task has ended on it, it gets no other.
    """

    engine_id: int
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    is_new: bool = False


class Needs(NamedTuple):
    """The conditions on engines that may run a task (see :meth:`of`). Hashable: tasks of equal needs queue together."""

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
        """Return needs from the forms that people write.

        Args:
            targets: ids of engines; None for any.
            resources: the least amount of each.
            labels: conditions on labels of an engine, as :mod:`nsactors.protocol.engine_info` has them.

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
        """Return whether an engine may run it."""
        return (
            (self.targets is None or engine.engine_id in self.targets)
            and all(engine.resources.get(name, 0) >= amount for name, amount in self.resources)
            and all(holds(engine.labels.get(name), condition) for name, condition in self.labels)
        )

    @property
    def only_target(self) -> int | None:
        """The id of the only engine that will do; None if there may be others."""
        return next(iter(self.targets)) if self.targets is not None and len(self.targets) == 1 else None

    @property
    def in_words(self) -> str:
        """The resources and labels that it asks for: ``2 GPU, zone=b``."""
        amounts = [amount_in_words(name, amount) for name, amount in sorted(self.resources)]
        return ", ".join([*amounts, *(f"{name}={condition}" for name, condition in sorted(self.labels))])


ANYWHERE = Needs()


@frozen
class TaskDependency:
    """Other tasks, and which of their ends count, as in ipyparallel's class of this name.

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
        policy: the pickle of a policy of the user's; see ``SchedulingPolicy``.
        label: its name for people; policies are told.
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


class TaskState(enum.Enum):
    """The state of a task; a scheduler knows of those that have not ended."""

    WAITING = "waiting for other tasks"
    READY = "ready"
    STRANDED = "ready, but no engine there is may run it"
    ASSIGNED = "at an engine"
    SUCCEEDED = "ended"
    FAILED = "ended, and some of it failed"


class TaskStatus(NamedTuple):
    """A task that has not ended, or a detached one of which results are kept.

    Attributes:
        msg_id: its id, as its result has it.
        label: its name for people.
        state: waiting for other tasks, ready, stranded (no engine that there is may run it), assigned to engines,
            succeeded or failed.
        engines: the ids of those that have some of it; when it has ended, of those that ran it.
        items_left: how many of its items have not ended.
        submitted: when, in seconds since the epoch.
        started: when the first of its items began that have ended, on the clock of its engine; None if that is not
            known.
        ended: when it ended; None if it has not.
        detached: whether it outlives its client.
        waits: that it waits for an engine which is busy with other work, and with which; empty if it does not.
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
    """The times by which work is cut and moved. The defaults suit engines within a few milliseconds.

    Where messages turn out to take longer, ``batch_s`` and ``least_s`` grow with them.

    Attributes:
        batch_s: seconds that a batch should run.
        least_s: a batch of a long queue is worth at least this, so that messages do not outweigh the work.
        prefetch_below_s: an engine is sent a second batch in advance if its tasks take less than this each; a few
            together then, as many as begin within this time.
        patience_s: the age of a batch from which items are stolen if another engine has nothing to do.
        late_s: an engine that runs a batch for so long is asked for those of its results that are there.
        max_losses: how many engines may be lost under an item before it is held responsible and given up.
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
    """Tasks have been submitted. One with a known id is ignored."""

    tasks: tuple[Task, ...]
    at: float


@frozen
class Replied:
    """An engine has replied to a batch. Items without an outcome have not begun and never will.

    The outcomes of one span come in the order of its items, from the first on, without gaps.

    If there are ``more`` to come, the batch still runs, and its reply will repeat these outcomes.
    """

    batch_id: int
    outcomes: tuple[RangeOutcome, ...]
    at: float
    more: bool = False


@frozen
class Stolen:
    """These task ranges of a batch have been stolen from an engine: they have not begun and never will.

    Each ends where a range of the batch ends. The batch's reply is still to come.
    """

    batch_id: int
    spans: tuple[TaskRange, ...]
    at: float


@frozen
class AbortRequested:
    """Tasks are to be aborted. One event for many is much cheaper than one for each."""

    task_ids: frozenset[TaskId]
    at: float


@frozen
class EngineAdded:
    """An engine takes tasks. If its id was there before, that process is gone, and its namespace with it."""

    engine: Engine
    at: float


@frozen
class EngineClosing:
    """An engine finishes its batches and takes no more: it is about to leave."""

    engine_id: int
    at: float


@frozen
class EngineRemoved:
    """An engine's process is gone, or there has been none yet; ``returns`` if one is being started under its id."""

    engine_id: int
    at: float
    returns: bool = False


@frozen
class EngineBusy:
    """An engine has work that is not this scheduler's, and gets none until it is free.

    Attributes:
        engine_id: the engine.
        work: the work, for people.
        at: when that became known.
        before: its batches wait for that work, as far as they have not begun.
    """

    engine_id: int
    work: str
    at: float
    before: bool = True


@frozen
class EngineProgressed:
    """Some of an engine's other work has ended, and more of it follows.

    It is alive at this moment, so a task that has no engine that is free may take its place in the line there. Without
    that, other clients that keep all engines busy for hours would leave no place for tasks.
    """

    engine_id: int
    at: float


@frozen
class EngineFree:
    """An engine has no work but this scheduler's any more. Its namespace may be another than before."""

    engine_id: int
    at: float


@frozen
class Release:
    """No task will depend on these tasks any more. Those that have not ended go on."""

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
    """Send a batch to an engine, which runs it in order after those it was sent before, and replies once.

    After ``budget_s`` seconds of running it, the engine should begin no more of it and reply.
    """

    engine_id: int
    batch_id: int
    spans: tuple[TaskRange, ...]
    budget_s: float


@frozen
class Steal:
    """Steal these spans, or tails of them, from an engine, as far as they have not begun."""

    engine_id: int
    batch_id: int
    spans: tuple[TaskRange, ...]


@frozen
class Peek:
    """Ask an engine for the outcomes so far of a batch that it runs: an item in it takes long."""

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
    """Deliver final outcomes: no item is in more than one, or in a :class:`Fail` too."""

    engine_id: int
    outcomes: tuple[RangeOutcome, ...]


class Why(enum.Enum):
    """The reason for which items end without an outcome."""

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
    """Note that items go to another engine: they failed on this one (``outcome``), or it was lost (None)."""

    span: TaskRange
    engine_id: int
    outcome: RangeOutcome | None


@frozen
class PolicyFailed:
    """Tell people that a policy of theirs has failed, and is asked no more."""

    reason: str


@frozen
class Alarm:
    """Send a :class:`Tick` at this time, or soon after. A later alarm may be forgotten when an earlier one comes."""

    at: float


Effect = SendBatch | Steal | Peek | InterruptRanges | Deliver | Fail | Retry | Alarm | PolicyFailed
