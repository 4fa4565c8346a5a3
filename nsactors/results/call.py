"""Calls: one request and its reply, or a task and its result."""

from __future__ import annotations

import contextlib
import enum
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, Protocol

from nsactors._frozen import frozen
from nsactors.errors import CompositeError, plural, printable, unknown_attribute
from nsactors.protocol.messages import Display, ExecuteResult, OutputChunk, RequestId, StreamText
from nsactors.protocol.output import OutputAssembler
from nsactors.protocol.tasks import MapItems

OutputListener = Callable[["Call", list[OutputChunk]], None]


class EngineOutput(NamedTuple):
    """Output of an engine.

    Attributes:
        engine_id: the engine.
        source: the request that wrote the output. Output through the controller may arrive before the reply to an
            earlier request, which contains the end of the earlier output. So a line never has output of two requests.
        chunks: the output.
    """

    engine_id: int
    source: RequestId | None
    chunks: list[OutputChunk]


OUTPUTS = ("show", "keep")
"""The choices for the output of calls."""

NOWHERE = -1
"""The engine id of a task that has not been sent to an engine."""

# Watchers are few and quick, so one lock is enough for all calls. A batch passes output on to its tasks, and so takes
# the lock again.
_WATCH_LOCK = threading.RLock()
# This lock is held for an instant, so one is enough for all calls. A garbage collection in that instant may take the
# lock again.
_SETTLING = threading.RLock()


class OutputGoes(enum.Enum):
    """The destination of a call's output, besides its result."""

    TO_WAITER = "to the thread that waits for the call"
    TO_DISPLAY = "to a display that has been made for the call"
    NOWHERE = "nowhere"


@dataclass(slots=True, eq=False)
class _Watcher:
    """A listener to a call's output, and the number of chunks that it has been given."""

    listener: OutputListener
    position: int = 0

    def catch_up(self, call: Call) -> None:
        fresh = call.output.chunks[self.position :]
        self.position += len(fresh)
        if fresh:
            self.listener(call, fresh)


@dataclass(slots=True, eq=False, weakref_slot=True)
class Call:
    """A request from its submission to its reply: settled once, when its value or error and all output have arrived.

    Attributes:
        request_id: the id of the request.
        engine_id: the engine; :data:`NOWHERE` for a task that has not been sent to an engine.
        label: the name of the operation, e.g. ``apply(f)``.
        executes: it runs a cell.
        copies: arrays in its value are writable copies.
        submitted: the time of the submission, in seconds since the epoch, by the client's clock.
        started: the time at which it began, by the engine's clock.
        completed: the time at which it ended, by the engine's clock.
        received: the time at which it was settled, by the client's clock.
        execution_count: the number of its cell.
        value: its value, once it is settled.
        error: its error, once it is settled.
        done: it is settled.
        tried_on: the engines on which the task failed, or that were lost while they ran it.
        items: the items of a map that it carries.
        nbytes: the size of a large value on its way; 0 for others.
        output_goes: the destination of its output.
        shown: the number of its output chunks that have been shown.
        shows_value: the value of its cell has not been shown yet.
        output: its output.
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
    items: MapItems | None = None
    nbytes: int = 0
    output_goes: OutputGoes = OutputGoes.TO_WAITER
    shown: int = 0
    shows_value: bool = True
    output: OutputAssembler = field(default_factory=OutputAssembler)
    _listeners: list[Callable[[Call], None]] = field(default_factory=list)
    _watchers: list[_Watcher] = field(default_factory=list)

    @property
    def errors(self) -> list[Exception]:
        """The errors of its parts; its own error if it has no parts."""
        return [] if self.error is None else [self.error]

    def settle(self, value: Any, error: Exception | None, failed: Callable[[Call], object] | None = None) -> None:
        """End the call once; do nothing if another thread has ended it already.

        Args:
            value: its value.
            error: its error.
            failed: called with this call, if it has an error, before its end can be seen. It must be quick, because
                other calls wait until it returns.
        """
        with _SETTLING:
            if self.done:
                return
            self.value, self.error, self.received = value, error, time.time()
            if error is not None and failed is not None:
                failed(self)
            self.done = True
        while self._listeners:
            self._call_listener()

    def when_settled(self, listener: Callable[[Call], None]) -> None:
        """Call ``listener`` once: when this call is settled, or now if it is already settled."""
        self._listeners.append(listener)
        if self.done:  # it may have been settled a moment ago
            self._call_listener()

    def _call_listener(self) -> None:
        try:
            listener = self._listeners.pop()
        except IndexError:  # another thread has removed the listener from the list, and calls it
            return
        listener(self)

    def watch_output(self, listener: OutputListener) -> None:
        """Call ``listener(call, chunks)`` with the output so far, and with more as it arrives, from another thread."""
        with _WATCH_LOCK:
            watcher = _Watcher(listener)
            self._watchers.append(watcher)
            watcher.catch_up(self)

    def output_arrived(self) -> None:
        """Give the listeners the output that has arrived."""
        if self._watchers:
            with _WATCH_LOCK:
                for watcher in self._watchers:
                    watcher.catch_up(self)

    @property
    def has_unshown(self) -> bool:
        """True if some of its output has not been shown."""
        return self.shown < len(self.output.chunks)

    def unshown(self) -> list[EngineOutput]:
        """Return the output that has not been shown, by engine and in order."""
        fresh = self.output.chunks[self.shown :]
        return [EngineOutput(self.engine_id, self.request_id, fresh)] if fresh else []

    def take_unshown(self) -> list[EngineOutput]:
        """Return the output that has not been shown, by engine and in order, and count it as shown from now on."""
        with _WATCH_LOCK:
            fresh = self.unshown()
            self.shown += sum(len(output.chunks) for output in fresh)
        return fresh

    @property
    def metadata(self) -> Metadata:
        """The metadata of the call as they are now."""
        return Metadata.of(self)

    def text(self, name: str) -> str:
        """Return the text written to ``stdout`` or ``stderr`` so far."""
        return "".join(c.text for c in self.output.chunks if isinstance(c, StreamText) and c.name == name)

    @property
    def displays(self) -> list[dict[str, Any]]:
        """The displays so far: ``{"data": MIME bundle, "metadata": ...}`` each."""
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


@frozen
class RequestOptions:
    """The options of a request.

    Attributes:
        limit_s: seconds after which a call is interrupted.
        stops_on_error: its failure on an engine aborts the requests of its client that wait behind it on this engine.
        copies: arrays in its result are writable copies.
        journalled: a recovery of the namespace runs the request again.
        breaks: it stops at breakpoints.
        output_goes: the destination of its output.
        carries_tasks: it is a batch of tasks. It does not count as an open call of the user, and is never held for an
            engine that restarts, because its tasks go to other engines.
        items: the items of a map that it carries.
    """

    limit_s: float | None = None
    stops_on_error: bool = False
    copies: bool = False
    journalled: bool = True
    breaks: bool = True
    output_goes: OutputGoes = OutputGoes.TO_WAITER
    carries_tasks: bool = False
    items: MapItems | None = None


class Metadata(dict[str, Any]):
    """The metadata of a call: a dictionary whose keys are attributes too.

    Keys are those of ipyparallel: ``msg_id submitted started completed received engine_id status execution_count
    execute_result stdout stderr outputs error label``; and ``tried_on``, the engines on which a task failed or that
    were lost while they ran it. Times are aware datetimes; ``started`` and ``completed`` are read from the engine's
    clock.
    """

    @classmethod
    def of(cls, call: Call) -> Metadata:
        """Return the metadata of a call as they are now."""
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
            raise unknown_attribute(self, name) from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]


class ExecuteReply:
    """The reply to a cell on one engine: its text, its displays, the value of its last expression.

    It is shown as the cell itself would be: as text at a prompt, and in rich form in a notebook.
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
        """The text that the cell printed."""
        return self._call.text("stdout")

    @property
    def stderr(self) -> str:
        """The text that the cell wrote to stderr."""
        return self._call.text("stderr")

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """The displays of the cell: ``{"data": MIME bundle, "metadata": ...}`` each."""
        return self._call.displays

    @property
    def text(self) -> str:
        """The value of the last expression as text; empty without one."""
        result = self.execute_result
        return "" if result is None else str(result["data"].get("text/plain", ""))

    @property
    def shows_nothing(self) -> bool:
        """True if a prompt shows nothing for this reply, because the cell has no value."""
        return self.execute_result is None

    def __repr__(self) -> str:
        value = f": {printable(self.text)}" if self.text else ""
        return f"<ExecuteReply[{self.execution_count}] engine {self.engine_id}{value}>"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        result = self.execute_result
        return {**result["data"], "text/plain": printable(self.text)} if result else {"text/plain": repr(self)}


class CallController(Protocol):
    """The methods that results need of the maker of their calls: a session or a task scheduler."""

    @property
    def detached(self) -> bool:
        """True if Ctrl-C in a wait for these calls does not interrupt them."""
        ...

    def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None:
        """Cancel calls that have not begun; with ``interrupt``, interrupt those that run. Does not wait for them."""
        ...

    def interrupt(self, calls: Iterable[Call]) -> bool:
        """Raise KeyboardInterrupt in the user code of the calls that run; return False if this transport cannot."""
        ...

    def check_process(self) -> None:
        """Raise ForkedClient in a forked child of the process that made the calls: no reply can reach the child."""
        ...

    def obstacles(self, calls: Iterable[Call]) -> Mapping[int, str]:
        """Return in words the known reasons why interrupted calls have not ended, by engine."""
        ...

    def restart(self, engine_ids: Iterable[int]) -> None:
        """Stop engines, busy or not, and start new processes with their ids."""
        ...

    def run_callback(self, function: Callable[[], object]) -> None:
        """Call the user's function soon, on a thread where it may wait."""
        ...

    def mark_retrieved(self, calls: Iterable[Call]) -> None:
        """Count the errors of these calls as retrieved; errors that are never retrieved are reported."""
        ...

    @property
    def has_stops(self) -> bool:
        """True if engines have stopped at breakpoints in calls of this client, and a user can be prompted."""
        ...

    def debug_stops(self, settle: Callable[[], object]) -> None:
        """Open the debuggers of the stopped engines; return when the engines continue.

        Args:
            settle: called before each prompt.
        """
        ...

    def debug(self, calls: Iterable[Call]) -> None:
        """Open the debugger on the frames of the calls that failed; return when the user leaves it."""
        ...


def _when(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


METADATA_KEYS = frozenset(Metadata.of(Call(RequestId("", 0), 0, "", False)))


@dataclass(slots=True, eq=False)
class TaskCall(Call):
    """A task.

    Attributes:
        dropped: called with the task's number when nothing refers to the task any more, so that no task can depend on
            it.
    """

    dropped: deque[int] = field(default_factory=deque)
    _printed: list[tuple[int, RequestId | None, OutputChunk]] = field(default_factory=list)

    def add_output(self, engine_id: int, source: RequestId | None, chunks: Iterable[OutputChunk]) -> None:
        """Add output of an engine for this task, which may have begun on another engine earlier.

        Args:
            engine_id: the engine.
            source: the batch that the task was in, if it is known.
            chunks: the output.
        """
        chunks = list(chunks)
        self._printed.extend((engine_id, source, chunk) for chunk in chunks)
        self._keep_output(chunks)
        self.output_arrived()

    def _keep_output(self, chunks: list[OutputChunk]) -> None:
        self.output.chunks.extend(chunks)

    @property
    def has_unshown(self) -> bool:
        """True if some of its output has not been shown."""
        return self.shown < len(self._printed)

    def unshown(self) -> list[EngineOutput]:
        """Return the output that has not been shown, by engine and in order."""
        fresh = self._printed[self.shown :]
        return [
            EngineOutput(engine_id, source, [chunk for *_, chunk in some])
            for (engine_id, source), some in groupby(fresh, key=itemgetter(0, 1))
        ]

    def __del__(self) -> None:
        self.dropped.append(self.request_id.seq)


@dataclass(slots=True, eq=False)
class MapPiece(Call):
    """The result of an engine for consecutive items of a map: a list of values, or an error."""

    start: int = 0
    stop: int = 0

    @property
    def values(self) -> list[Any]:
        """The value of each item, or the error in its place."""
        return self.value if self.error is None else [self.error] * (self.stop - self.start)


@dataclass(slots=True, eq=False)
class MapCall(TaskCall):
    """A map: a task of ``size`` items that ends when all items have ended. If it ``joins``, its value is a sequence.

    ``first`` is the number of its first item, which is not 0 in a chunk of a lazy map.
    """

    size: int = 0
    first: int = 0
    left: int = 0
    joins: bool = False
    pieces: list[MapPiece] = field(default_factory=list)  # in the order of arrival
    _piece_listeners: list[Callable[[MapPiece], None]] = field(default_factory=list)

    @property
    def errors(self) -> list[Exception]:
        """The errors of its pieces, newest first."""
        return [piece.error for piece in reversed(self.pieces) if piece.error is not None]

    def _keep_output(self, chunks: list[OutputChunk]) -> None:
        """Keep nothing, because the pieces keep the output of their items."""

    def add(self, piece: MapPiece) -> None:
        """Add a piece whose items have ended. This does not settle the call, even if no item is left."""
        self.left -= piece.stop - piece.start
        if piece.error is not None and self.error is None:
            self.error = piece.error
        self.pieces.append(piece)
        for listener in tuple(self._piece_listeners):  # other threads add and remove listeners at any time
            listener(piece)

    def when_piece_arrives(self, listener: Callable[[MapPiece], None]) -> None:
        """Call ``listener`` with each piece that arrives from now on, from another thread."""
        if not self.done:
            self._piece_listeners.append(listener)

    def remove_listener(self, listener: Callable[[Call], None]) -> None:
        """From now on, call ``listener`` neither with pieces nor at the end; a call to it that runs goes on."""
        with contextlib.suppress(ValueError):
            self._piece_listeners.remove(listener)
        with contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    @property
    def values(self) -> list[Any]:
        """The value of each item, or the error in its place, when the call has ended."""
        values: list[Any] = []
        for piece in sorted(self.pieces, key=attrgetter("start")):
            values += [self.error] * (piece.start - len(values))  # the client was closed before these items arrived
            values += piece.values
        values += [self.error] * (self.size - len(values))
        return values

    @property
    def failure(self) -> CompositeError | None:
        """All errors together; None if there are none."""
        # Give one error for each item, as several items may fail for the same cause, such as a lost engine.
        errors = [error for piece in self.pieces if piece.error is not None for error in piece.values]
        if not errors:
            return None
        items = f"{len(errors)} of {self.size} {plural('item', self.size)}"
        return CompositeError(f"{self.label} failed for {items}", errors)
