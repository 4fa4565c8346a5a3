"""One request to one engine, as its client sees it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from nsactors.core.messages import Display, ExecuteResult, OutputChunk, RequestId, StreamText
from nsactors.core.output import OutputAssembler

__all__ = ["NOWHERE", "Call", "CallOwner", "ExecuteReply", "Metadata", "Terms"]


OutputListener = Callable[["Call", list[OutputChunk]], None]

NOWHERE = -1
"""In place of an engine's id."""

_WATCH_LOCK = threading.Lock()  # watchers are few and quick: one lock is enough for all calls
_SETTLING = threading.RLock()  # held for an instant: one is enough for all. A garbage collection may come back to it


@dataclass(slots=True, eq=False)
class _Watcher:
    """Somebody who reads a call's output as it comes, and how far they are."""

    listener: OutputListener
    position: int = 0

    def catch_up(self, call: Call) -> None:
        fresh = call.output.chunks[self.position :]
        self.position += len(fresh)
        if fresh:
            self.listener(call, fresh)


@dataclass(slots=True, eq=False, weakref_slot=True)
class Call:
    """A request from its submission to its reply: settled once, when value or error and all output are here.

    A task has no engine until it is sent to one (``engine_id`` is :data:`NOWHERE`), and ``tried_on`` others before.
    """

    request_id: RequestId
    engine_id: int
    label: str
    executes: bool
    copies: bool = False
    submitted: float = field(default_factory=time.time)
    started: float | None = None
    completed: float | None = None
    received: float | None = None
    execution_count: int | None = None
    value: Any = None
    error: Exception | None = None
    done: bool = False
    tried_on: tuple[int, ...] = ()
    output: OutputAssembler = field(default_factory=OutputAssembler)
    _listeners: list[Callable[[Call], None]] = field(default_factory=list)
    _watchers: list[_Watcher] = field(default_factory=list)

    def settle(self, value: Any, error: Exception | None, note: Callable[[Call], object] | None = None) -> None:
        """The call has ended; nothing happens if it had already, of which several threads may hear at once.

        Args:
            value: what it gave.
            error: what went wrong.
            note: called with it before anybody else can see that it has ended; quick, for others wait meanwhile.
        """
        with _SETTLING:
            if self.done:
                return
            self.value, self.error, self.received = value, error, time.time()
            if note is not None:
                note(self)
            self.done = True
        while self._listeners:
            self._listeners.pop()(self)

    def when_settled(self, listener: Callable[[Call], None]) -> None:
        """Call ``listener`` once, when this call is settled: now, if it is already."""
        self._listeners.append(listener)
        # Settling may have passed by a moment ago: whoever takes the listener off the list calls it.
        if self.done and self._listeners:
            with contextlib.suppress(IndexError):
                self._listeners.pop()(self)

    def watch_output(self, listener: OutputListener) -> None:
        """Call ``listener(call, chunks)`` with the output so far, and with more as it arrives, from another thread."""
        with _WATCH_LOCK:
            watcher = _Watcher(listener)
            self._watchers.append(watcher)
            watcher.catch_up(self)

    def output_arrived(self) -> None:
        """Tell those who watch."""
        if self._watchers:
            with _WATCH_LOCK:
                for watcher in self._watchers:
                    watcher.catch_up(self)

    def text(self, name: str) -> str:
        """What was written to ``stdout`` or ``stderr`` so far."""
        return "".join(c.text for c in self.output.chunks if isinstance(c, StreamText) and c.name == name)

    @property
    def displays(self) -> list[dict[str, Any]]:
        """What was displayed so far: ``{"data": MIME bundle, "metadata": ...}`` each."""
        return [{"data": c.data, "metadata": c.metadata} for c in self.output.chunks if isinstance(c, Display)]

    @property
    def execute_result(self) -> dict[str, Any] | None:
        """The value of the cell's last expression, as a MIME bundle."""
        results = [c for c in self.output.chunks if isinstance(c, ExecuteResult)]
        if not results:
            return None
        last = results[-1]
        return {"execution_count": last.execution_count, "data": last.data, "metadata": last.metadata}

    @property
    def status(self) -> str:
        """``pending``, ``ok`` or ``error``."""
        return "pending" if not self.done else "ok" if self.error is None else "error"


@dataclass(frozen=True, slots=True)
class Terms:
    """How calls are to be carried out.

    Attributes:
        limit_s: seconds after which a call is interrupted.
        stops_on_error: if it fails on an engine, what its client has queued behind it there is not run.
        copies: arrays in its result are copies that can be written to.
        journalled: whether a recovery of the namespace runs it again.
        carries_tasks: it is a batch of tasks, which are somebody else's calls: it is not among those of the user's that
            are open, and is never held for an engine that is being brought back, for its tasks go elsewhere.
    """

    limit_s: float | None = None
    stops_on_error: bool = False
    copies: bool = False
    journalled: bool = True
    carries_tasks: bool = False


class Metadata(dict[str, Any]):
    """What is known about a call: a dictionary whose keys are attributes too.

    Keys are those of ipyparallel: ``msg_id submitted started completed received engine_id status execution_count
    execute_result stdout stderr outputs error label``; and ``tried_on``, the engines that a task failed on or that were
    lost under it. Times are aware datetimes; ``started`` and ``completed`` are
    read from the engine's clock.
    """

    @classmethod
    def of(cls, call: Call) -> Metadata:
        """The metadata of a call as it stands now."""
        return cls(
            msg_id=str(call.request_id),
            submitted=_when(call.submitted),
            started=_when(call.started),
            completed=_when(call.completed),
            received=_when(call.received),
            engine_id=None if call.engine_id == NOWHERE else call.engine_id,
            status=call.status,
            execution_count=call.execution_count,
            execute_result=call.execute_result,
            stdout=call.text("stdout"),
            stderr=call.text("stderr"),
            outputs=call.displays,
            error=call.error,
            label=call.label,
            tried_on=call.tried_on,
        )

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class ExecuteReply:
    """What a cell gave on one engine: its text, its displays, the value of its last expression.

    It is shown as the cell would be: at a prompt the value's text, in a notebook its rich form.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def engine_id(self) -> int:
        """The engine that ran the cell."""
        return self._call.engine_id

    @property
    def execution_count(self) -> int | None:
        """The cell's number on its engine."""
        return self._call.execution_count

    @property
    def execute_result(self) -> dict[str, Any] | None:
        """The value of the last expression: ``{"data": MIME bundle, ...}``."""
        return self._call.execute_result

    @property
    def stdout(self) -> str:
        """What the cell printed."""
        return self._call.text("stdout")

    @property
    def stderr(self) -> str:
        """What the cell wrote to stderr."""
        return self._call.text("stderr")

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """What the cell displayed."""
        return self._call.displays

    @property
    def text(self) -> str:
        """The value of the last expression as text; empty without one."""
        result = self.execute_result
        return "" if result is None else str(result["data"].get("text/plain", ""))

    def __repr__(self) -> str:
        return f"<ExecuteReply[{self.execution_count}] engine {self.engine_id}{': ' + self.text if self.text else ''}>"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        result = self.execute_result
        return dict(result["data"]) if result else {"text/plain": repr(self)}


class CallOwner(Protocol):
    """Who made calls, as their results need it."""

    @property
    def goes_on(self) -> bool:
        """Whether Ctrl-C of somebody who waits for these calls leaves them alone."""
        ...

    def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None:
        """Take back what has not started; with ``interrupt``, stop what has. Does not wait."""
        ...

    def interrupt(self, calls: Iterable[Call]) -> bool:
        """Raise KeyboardInterrupt in the user code of those that run; False if this transport cannot."""
        ...

    def restart(self, engine_ids: Iterable[int]) -> None:
        """End engines, whatever they are doing, and start new processes under their ids."""
        ...

    def call_back(self, function: Callable[[], object]) -> None:
        """Call a function of the user's soon, on a thread where it may wait."""
        ...

    def asked(self, calls: Iterable[Call]) -> None:
        """Somebody has seen how these calls ended; failures that nobody has seen are reported."""
        ...


def _when(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


METADATA_KEYS = frozenset(Metadata.of(Call(RequestId("", 0), 0, "", False)))
