"""The flags of views, and the checks of their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, fields, replace
from functools import partial
from typing import Any, Self

from nsactors._frozen import frozen
from nsactors.errors import UnknownFlag, WrongType
from nsactors.protocol import arguments as arg
from nsactors.protocol.targets import Targets
from nsactors.results import OUTPUTS

Check = Callable[[Any], arg.Unfit | None]
"""Returns why a flag cannot have a value; None if it can."""


def _check_policy(value: object) -> arg.Unfit | None:
    decides = any(callable(getattr(type(value), method, None)) for method in ("priority", "choose_engine"))
    return (
        None
        if value is None or decides
        else arg.Unfit(value, "an object with a method priority() or choose_engine(), or None", WrongType)
    )


def _flag(default: Any, check: Check | None) -> Any:
    """Declare a flag.

    Args:
        default: its default.
        check: the check of its value; None if the view checks it, because the value alone does not tell.
    """
    return field(default=default, metadata={"check": check})


_OUTPUT = partial(arg.choice, choices=OUTPUTS, or_none=True)
_LABEL = partial(arg.text, or_none=True)


class _FlagSet:
    """The base of the dataclasses of flags, each of whose fields is declared by :func:`_flag`."""

    __slots__ = ()

    def replaced(self, call: str = "set_flags", /, **flags: Any) -> Self:
        """Return these flags with some replaced.

        Args:
            call: the name of the function that the flags are given to.
            flags: the new values, by name.

        Raises:
            UnknownFlag: if a flag does not exist.
            InvalidArgument: if a flag cannot have the given value.
        """
        declared = fields(self)  # type: ignore[arg-type]
        checks: dict[str, Check | None] = {flag.name: flag.metadata["check"] for flag in declared}
        for name in flags:
            if name not in checks:
                raise UnknownFlag(name, list(checks))
        checked = {name: check for name in flags if (check := checks[name]) is not None}
        arg.check(call, **{name: check(flags[name]) for name, check in checked.items()})
        flags |= {name: arg.plain(flags[name]) for name in checked}
        return replace(self, **flags)  # type: ignore[type-var]


@frozen
class Flags(_FlagSet):
    """The flags of a view.

    Attributes:
        targets: the engines: an id, a list of ids, or ``"all"``.
        block: whether calls wait for their result and return it.
        label: the name of this view's calls in the history, in place of the name of their function.
        copy: if true, arrays of any size arrive as writable copies, on engines and at the client. If false, arrays of
            more than 1 MiB arrive as read-only views of shared memory; all engines of a machine share one copy.
        timeout: seconds after which a call is interrupted and fails with ``TimeLimitExceeded``; None: never.
        stop_on_error: whether a failed call cancels the calls of this client that wait behind it on the same engine;
            getting their results raises ``TaskAborted``.
        journal: whether a recovery of an engine's namespace runs these calls again; set False for calls that have
            effects outside the namespace, such as on files.
        breakpoints: whether the engines stop at breakpoints in these calls, for the debugger; False to ignore them.
        output: ``"show"``: the output of calls appears while they are waited for; ``"keep"``: it is only in their
            results; None: the choice of ``Client.output`` applies, which is ``"show"`` at first.
        track: has no effect, because arguments are always copied before a call returns; accepted for scripts written
            for ipyparallel.
    """

    targets: Targets = _flag("all", None)
    block: bool = _flag(False, arg.flag)
    label: str | None = _flag(None, _LABEL)
    copy: bool = _flag(False, arg.flag)
    timeout: float | None = _flag(None, arg.seconds)
    stop_on_error: bool = _flag(False, arg.flag)
    journal: bool = _flag(True, arg.flag)
    breakpoints: bool = _flag(True, arg.flag)
    output: str | None = _flag(None, _OUTPUT)
    track: bool = _flag(False, arg.flag)


@frozen
class TaskFlags(_FlagSet):
    """The flags of a load-balanced view.

    A task fails with ``ImpossibleDependency`` at once if no engine suits it, not even one that is being started.

    Attributes:
        targets: the engines that its tasks may run on: a list of ids, or ``"all"`` for all engines, including those
            that join later.
        labels: the labels that an engine must have for its tasks, such as ``{"zone": "b"}``, ``{"zone": "!b"}`` or
            ``{"zone": "in(b, c)"}``; an engine has the labels that it was started with, and those of its machine.
        resources: the least resources with which an engine must have been started to run this view's tasks, such as
            ``{"GPU": 1}``. An engine runs one task at a time, so tasks do not use up its resources.
        block: whether calls wait for their result and return it.
        label: the name of its tasks, in place of the name of their function.
        copy: as for other views.
        after: tasks that must have ended before these tasks begin: a result, a ``msg_id``, a list of these, or a
            ``Dependency``.
        follow: as ``after``, but these tasks run only on engines that ran the given ones.
        retries: the number of times that a failed task is tried again, on other engines as long as there are any.
        max_losses: the number of engines that may die while they have the task; the default, None, means five. When the
            next one dies, the task fails with ``TaskLost``. If an engine dies while it has several short tasks, each of
            them counts the death, but none fails: each runs alone next, so that the cause can be found.
        timeout: seconds within which an engine must take a task after its submission; otherwise, the task fails with
            ``TaskTimeout``.
        time_limit: seconds after which a running task is interrupted, and fails with ``TimeLimitExceeded``; in a map,
            the limit is for each item.
        priority: tasks of higher priority go first; those of equal priority go in the order of submission.
        policy: an object that decides, in place of ``priority``, which task goes first and which engine takes it; it is
            pickled. See :class:`nsactors.SchedulingPolicy`.
        detached: whether tasks outlive the client: a process of the cluster schedules them and stores their results,
            which any client gets by ``rc.get_result(msg_id)``. A call returns when that process has stored its tasks.
        output: as for other views; but executors and joblib show output only if this is ``"show"``.
        track: has no effect; accepted for scripts written for ipyparallel.
    """

    targets: Targets = _flag("all", None)
    labels: Mapping[str, str] | None = _flag(None, None)
    resources: Mapping[str, float] | None = _flag(None, None)
    block: bool = _flag(False, arg.flag)
    label: str | None = _flag(None, _LABEL)
    copy: bool = _flag(False, arg.flag)
    after: Any = _flag(None, None)
    follow: Any = _flag(None, None)
    retries: int = _flag(0, partial(arg.whole, at_least=0))
    max_losses: int | None = _flag(None, partial(arg.whole, at_least=0, or_none=True))
    timeout: float | None = _flag(None, arg.seconds)
    time_limit: float | None = _flag(None, arg.seconds)
    priority: float = _flag(0, arg.number)
    policy: Any = _flag(None, _check_policy)
    detached: bool = _flag(False, arg.flag)
    output: str | None = _flag(None, _OUTPUT)
    track: bool = _flag(False, arg.flag)
