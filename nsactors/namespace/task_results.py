"""The results of a batch of tasks, as an engine collects and packs them."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from nsactors.core.payload import Payload, pack
from nsactors.core.remote_value import RemoteValue
from nsactors.core.scheduling import Status
from nsactors.core.tasks import Part, Report, TaskRan
from nsactors.errors import SerializationError
from nsactors.namespace.output import Output

__all__ = ["TaskResults"]


class TaskResults:
    """What has been run of a batch. Items of a map that succeed one after the other stay together.

    One thread runs the batch, and others may ask meanwhile what there is.

    Args:
        output: what tasks write.
        ref_types: classes of references to an object store.
        describe: describes an error of a task.
        keep: puts aside what is to stay on this engine.

    Attributes:
        succeeded: values of items that have succeeded one after the other; whoever runs them appends to it.
        began: when the item began that runs, as ``time.perf_counter`` has it.
    """

    def __init__(
        self,
        output: Output,
        ref_types: tuple[type, ...],
        describe: Callable[[BaseException, Part], Any],
        keep: Callable[[str, Any], RemoteValue],
    ) -> None:
        self._output = output
        self._ref_types = ref_types
        self._keep = keep
        self._describe = describe
        self._ran: list[TaskRan] = []
        self._values: list[Any] = []
        self._parts: list[Part] = []
        self._lock = threading.Lock()
        self._part: Part | None = None
        self._next = 0
        self._written = 0
        self._lap = self.began = time.perf_counter()
        self._epoch = time.time() - self._lap
        self.succeeded: list[Any] = []

    def begin(self, part: Part, start: int) -> None:
        """Items of a part are run, from this one on."""
        self._part, self._next = part, start

    def end_succeeded(self, upto: float) -> None:
        """Items that have succeeded are followed by something else; the last of them ended at ``upto``."""
        if self.succeeded:
            with self._lock:
                self._cut(upto, self._output.mark())

    def end(self, status: Status, value: Any, upto: float) -> None:
        """A call has ended, or an item that failed."""
        with self._lock:
            self._enter(status, value, 1, upto, self._output.mark())

    def so_far(self) -> Report | None:
        """What there is; None if that is nothing. The report that follows at the end has it in the same form.

        Nothing is said of items that have written something, nor of what follows them: their output is on its way.
        """
        with self._lock:
            if (written := self._output.mark()) == self._written:
                self._cut(self.began, written)
            told = list(itertools.takewhile(lambda ran: ran.output[0] == ran.output[1], self._ran))
            values = self._values[: len(told)]
        return Report(tuple(told), self._pack(values)) if told else None

    def _cut(self, upto: float, written: int) -> None:
        if count := len(self.succeeded):  # while this counts, the thread that runs them may append
            values = self.succeeded[:count]
            del self.succeeded[:count]
            self._enter(Status.OK, values, count, upto, written)

    def _enter(self, status: Status, value: Any, count: int, upto: float, written: int) -> None:
        part, start = self._part, self._next
        assert part is not None, "items are of a part"
        times, output = (self._epoch + self._lap, upto - self._lap), (self._written, written)
        self._add(part, TaskRan(part.task_id, start, start + count, *times, output, status), value)
        self._next, self._lap, self._written = start + count, upto, written

    def _add(self, part: Part, ran: TaskRan, value: Any) -> None:
        self._ran.append(ran)
        self._values.append(value)
        self._parts.append(part)

    def report(self, missing: Iterable[int]) -> Report:
        """What to answer. A result that cannot be pickled is a failure of its item alone."""
        try:
            values = self._pack(self._values)
        except SerializationError:
            with self._lock:
                self._find_culprits()
            values = self._pack(self._values)
        return Report(tuple(self._ran), values, tuple(missing))

    def _pack(self, value: Any) -> Payload:
        return pack(value, what="the result", ref_types=self._ref_types, keep=self._keep)

    def _find_culprits(self) -> None:
        collected = list(zip(self._parts, self._ran, self._values, strict=True))
        self._parts, self._ran, self._values = [], [], []
        for part, ran, value in collected:
            if ran.status is not Status.OK or self._error_of(value) is None:
                self._add(part, ran, value)
            elif part.job is None:
                self._add(part, ran._replace(status=Status.FAILED), self._describe_value(value, part))
            else:
                self._take_apart(part, ran, value)

    def _take_apart(self, part: Part, ran: TaskRan, values: list[Any]) -> None:
        each_s = ran.elapsed_s / len(values)
        for offset, value in enumerate(values):
            at = ran.start + offset
            one = ran._replace(start=at, stop=at + 1, started=ran.started + offset * each_s, elapsed_s=each_s)
            if self._error_of(value) is None:
                self._add(part, one, [value])
            else:
                self._add(part, one._replace(status=Status.FAILED), self._describe_value(value, part))

    def _describe_value(self, value: Any, part: Part) -> Any:
        error = self._error_of(value)
        assert error is not None, "it cannot be pickled"
        return self._describe(error, part)

    def _error_of(self, value: Any) -> SerializationError | None:
        try:
            self._pack(value)
        except SerializationError as error:
            return error
        return None
