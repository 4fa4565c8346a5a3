"""Load balancing as a pure state machine: events in, effects out, time is an argument.

    messages      tasks, engines, events, effects         scheduler     the decisions
    records       what is remembered of a task            ledger        what waits, is ready, has ended
    dependencies  how far they have been met              lanes         the queue of what is ready
    fleet         engines and what each has been sent     batching      how much goes into a message
    backlog       the engine's side of a batch

Three things keep engines busy although work goes out in batches ahead of time. A batch is worth a few milliseconds by
what has been measured, and less as the queue runs out. An engine that takes longer than was thought begins no more of
it after its budget, and replies. And when an engine has nothing to do while another has work that it has not begun, it
is taken back: only what the engine then gives back, or leaves out of its reply, goes elsewhere, so that nothing runs
on two engines at a time. Results of a batch that takes long are asked for before its end.
"""

from nsactors.core.scheduling.backlog import Backlog
from nsactors.core.scheduling.messages import (
    ANYWHERE,
    AbortRequested,
    Alarm,
    Deliver,
    Dependency,
    Dispatch,
    Effect,
    Engine,
    EngineAdded,
    EngineClosing,
    EngineRemoved,
    Event,
    Forgotten,
    GiveUp,
    Interrupt,
    Needs,
    Peek,
    Policy,
    Ran,
    Replied,
    Retry,
    Span,
    Status,
    Submitted,
    TakeBack,
    TakenBack,
    Task,
    TaskId,
    Tick,
    Why,
)
from nsactors.core.scheduling.scheduler import Scheduler, TaskInfo, TaskState

__all__ = [
    "ANYWHERE",
    "AbortRequested",
    "Alarm",
    "Backlog",
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
    "Scheduler",
    "Span",
    "Status",
    "Submitted",
    "TakeBack",
    "TakenBack",
    "Task",
    "TaskId",
    "TaskInfo",
    "TaskState",
    "Tick",
    "Why",
]
