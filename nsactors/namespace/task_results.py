"""The results of a batch of tasks, as an engine collects and packs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nsactors.core.payload import Payload, pack
from nsactors.core.scheduling import Status
from nsactors.core.tasks import Part, Report, TaskRan
from nsactors.errors import SerializationError

__all__ = ["TaskResults"]


class TaskResults:
    """What has been run of a batch. Items of a map that succeed one after the other stay together.

    Args:
        ref_types: classes of references to an object store.
        describe: describes an error of a task.
    """

    def __init__(self, ref_types: tuple[type, ...], describe: Callable[[BaseException, Part], Any]) -> None:
        self._ref_types = ref_types
        self._describe = describe
        self._ran: list[TaskRan] = []
        self._values: list[Any] = []
        self._parts: list[Part] = []

    def add(self, part: Part, ran: TaskRan, value: Any) -> None:
        """A call, or items of a map (their list of values), have ended; failures one by one."""
        self._ran.append(ran)
        self._values.append(value)
        self._parts.append(part)

    def report(self, missing: Iterable[int]) -> Report:
        """What to answer. A result that cannot be pickled is a failure of its item alone."""
        try:
            values = self._pack(self._values)
        except SerializationError:
            self._find_culprits()
            values = self._pack(self._values)
        return Report(tuple(self._ran), values, tuple(missing))

    def _pack(self, value: Any) -> Payload:
        return pack(value, what="the result", ref_types=self._ref_types)

    def _find_culprits(self) -> None:
        collected = list(zip(self._parts, self._ran, self._values, strict=True))
        self._parts, self._ran, self._values = [], [], []
        for part, ran, value in collected:
            if ran.status is not Status.OK or self._error_of(value) is None:
                self.add(part, ran, value)
            elif part.job is None:
                self.add(part, ran._replace(status=Status.FAILED), self._describe_value(value, part))
            else:
                self._take_apart(part, ran, value)

    def _take_apart(self, part: Part, ran: TaskRan, values: list[Any]) -> None:
        each_s = ran.elapsed_s / len(values)
        for offset, value in enumerate(values):
            at = ran.start + offset
            one = ran._replace(start=at, stop=at + 1, started=ran.started + offset * each_s, elapsed_s=each_s)
            if self._error_of(value) is None:
                self.add(part, one, [value])
            else:
                self.add(part, one._replace(status=Status.FAILED), self._describe_value(value, part))

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
