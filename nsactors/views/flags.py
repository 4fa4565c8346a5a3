"""What a view can be set to."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

from nsactors.core.targets import Targets
from nsactors.errors import UnknownFlag

__all__ = ["Flags"]


@dataclass(frozen=True, slots=True)
class Flags:
    """The flags of a view.

    Attributes:
        targets: the engines: an id, a list of ids, or ``"all"``.
        block: whether calls wait for their result and return it.
        label: what this view's calls are called in the history, in place of their function's name.
        copy: arrays arrive as copies that can be written to, on engines and at the client; otherwise they are read-only
            views of shared memory, one copy for all engines of a machine.
        timeout: seconds after which a call is interrupted and fails with ``TimeLimitExceeded``; None: never.
        stop_on_error: a call that fails on an engine takes what this client has queued behind it there with it: that is
            not run, and its results are ``TaskAborted``.
        journal: whether a recovery of an engine's namespace runs these calls again; False for what has effects outside.
        track: nothing; kept for scripts written for ipyparallel. Arguments are copied before a call returns.
    """

    targets: Targets = "all"
    block: bool = False
    label: str | None = None
    copy: bool = False
    timeout: float | None = None
    stop_on_error: bool = False
    journal: bool = True
    track: bool = False

    def changed(self, **changes: Any) -> Self:
        """These flags with some changed.

        Raises:
            UnknownFlag: if one does not exist; nothing is changed then.
        """
        known = [field.name for field in fields(self)]
        for name in changes:
            if name not in known:
                raise UnknownFlag(name, known)
        return replace(self, **changes)
