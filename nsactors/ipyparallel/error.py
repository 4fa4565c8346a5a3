"""The exceptions of ipyparallel, under its names.

An error that this package raises is an instance of ipyparallel's class and of nsactors', and a user's exception also of
its own class: ``except ipp.RemoteError`` and ``except ZeroDivisionError`` both catch it.
"""

from __future__ import annotations

import builtins
import sys
import traceback as tracebacks
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import nsactors
from nsactors import errors

__all__ = [
    "AlreadyDisplayedError",
    "CompositeError",
    "DependencyTimeout",
    "EngineError",
    "IPythonError",
    "ImpossibleDependency",
    "InvalidDependency",
    "KernelError",
    "NoEnginesRegistered",
    "NotProvided",
    "RemoteError",
    "TaskAborted",
    "TaskRejectError",
    "TaskTimeout",
    "TimeoutError",
    "UnmetDependency",
    "collect_exceptions",
    "unwrap_exception",
    "wrap_exception",
]

TimeoutError = builtins.TimeoutError


class IPythonError(Exception):
    """The base class of ipyparallel's errors."""


class NotProvided(IPythonError, NotImplementedError):
    """A feature of ipyparallel that is not provided.

    Args:
        name: the feature.
        instead: the replacement, in words.
    """

    def __init__(self, name: str, instead: str) -> None:
        super().__init__(name, instead)
        self.name = name
        self.instead = instead

    def __str__(self) -> str:
        return f"{self.name} is not provided: {self.instead}"


class KernelError(IPythonError):
    """A call failed on an engine or on the way to it."""


class EngineError(KernelError):
    """An engine died."""


class NoEnginesRegistered(KernelError):
    """There are no engines."""

    def __str__(self) -> str:
        return super().__str__() or "there are no engines: wait for some with client.wait_for_engines(n)"


class TaskAborted(KernelError):
    """A call or task was cancelled before it ran."""


class TaskTimeout(KernelError):
    """A task did not start on an engine in time."""


class UnmetDependency(KernelError, errors.UnmetDependency):
    """Raise this error in a task to have another engine try it."""

    def __init__(self, *args: Any) -> None:
        errors.UnmetDependency.__init__(self, *args[:1])


class ImpossibleDependency(UnmetDependency):
    """The dependency of a task can never be met."""


class DependencyTimeout(ImpossibleDependency):
    """The dependency of a task was not met in time."""


class InvalidDependency(ImpossibleDependency):
    """A task depends on an unknown task, or on a value that is not a dependency."""


class TaskRejectError(KernelError):
    """Raise this error in a task to have it retried (``retries``) on another engine."""


class RemoteError(KernelError):
    """An exception was raised on an engine.

    Args:
        ename: the name of its class.
        evalue: its message.
        traceback: its traceback as text.
        engine_info: ``engine_id``, and the ``method`` of the call.
    """

    ename: Any = None
    evalue: Any = None
    traceback: Any = None
    engine_info: Any = None

    def __init__(self, ename: Any, evalue: Any, traceback: Any, engine_info: Mapping[str, Any] | None = None) -> None:
        super().__init__(ename, evalue)
        self.ename = ename
        self.evalue = evalue
        self.traceback = traceback
        self.engine_info = dict(engine_info or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteError, (self.ename, self.evalue, self.traceback, self.engine_info)

    def __repr__(self) -> str:
        return f"<RemoteError[{self.engine_info.get('engine_id', ' ')}]:{self.ename}({self.evalue})>"

    def __str__(self) -> str:
        return f"{_place(self.engine_info)} {self.ename}: {self.evalue}"

    def render_traceback(self) -> list[str]:
        """Return the remote traceback, line by line."""
        return [_place(self.engine_info), *(self.traceback or "No traceback available").splitlines()]

    def _render_traceback_(self) -> list[str]:
        return self.render_traceback()

    def print_traceback(self, excid: int | None = None) -> None:
        """Print the remote traceback.

        Args:
            excid: not used; see ``CompositeError.print_traceback``.
        """
        print("\n".join(self.render_traceback()))


class CompositeError(errors.CompositeError, RemoteError):
    """The failures of a call to several engines: an exception group and a ``RemoteError``.

    Args:
        message: a description of the call.
        elist: the failures, at least one: exceptions, or tuples of class name, message, traceback and engine.
    """

    tb_limit: ClassVar[int] = 4

    def __new__(cls, message: str, elist: Sequence[Any]) -> CompositeError:
        """Make the group: exception groups take their exceptions in ``__new__``."""
        made: CompositeError = super().__new__(cls, message, _exceptions(elist))
        return made

    def __init__(self, message: str, elist: Sequence[Any]) -> None:
        Exception.__init__(self, message, _exceptions(elist))
        self.args = tuple(name for name, *_ in self.elist)

    def derive(self, excs: Sequence[Exception], /) -> CompositeError:  # type: ignore[override]
        """Return a group of ``excs`` like this one; ``except*`` and ``split`` call it."""
        return CompositeError(self.message, excs)

    def __reduce__(self) -> tuple[Any, ...]:
        return CompositeError, (self.message, list(self.exceptions))

    @property
    def msg(self) -> str:
        """The description of the call."""
        return self.message

    @property
    def elist(self) -> list[tuple[str, str, str, dict[str, object]]]:
        """(class name, message, traceback, engine) of each failure."""
        return [_entry(error) for error in self.exceptions]

    def __str__(self) -> str:
        lines = [self.message]
        lines += [f"{_place(info)}{name}: {text}" for name, text, _, info in self.elist[: self.tb_limit]]
        if (more := len(self.exceptions) - self.tb_limit) > 0:
            lines.append(f".... {more} more exceptions ...")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"CompositeError({len(self.exceptions)})"

    def render_traceback(self, excid: int | None = None) -> list[str]:
        """Return the remote tracebacks, of the first few or of failure ``excid`` alone, line by line."""
        shown = list(self.exceptions[: self.tb_limit]) if excid is None else [self._numbered(excid)]
        lines = []
        for _, _, text, info in map(_entry, shown):
            lines += [f"{_place(info)}:", *(text or "No traceback available").splitlines(), ""]
        if excid is None and (more := len(self.exceptions) - self.tb_limit) > 0:
            lines.append(f"... {more} more exceptions ...")
        return lines

    def print_traceback(self, excid: int | None = None) -> None:
        """Print the remote tracebacks; see :meth:`render_traceback`."""
        print("\n".join(self.render_traceback(excid)))

    def raise_exception(self, excid: int = 0) -> NoReturn:
        """Raise one of the failures alone.

        Raises:
            IndexError: if there is no failure number ``excid``.
        """
        raise self._numbered(excid)

    def _numbered(self, excid: int) -> Exception:
        try:
            return self.exceptions[excid]
        except (IndexError, TypeError):
            raise IndexError(f"an exception with index {excid} does not exist") from None


class AlreadyDisplayedError(RemoteError):
    """Errors that have been shown already.

    Args:
        original_error: the group of all errors.
    """

    def __init__(self, original_error: CompositeError) -> None:
        Exception.__init__(self, original_error)
        self.original_error = original_error
        self.n = len(original_error.elist)

    def __reduce__(self) -> tuple[Any, ...]:
        return AlreadyDisplayedError, (self.original_error,)

    def __repr__(self) -> str:
        return f"<AlreadyDisplayedError({self.n} errors)>"

    def __str__(self) -> str:
        return f"{self.n} errors"

    def render_traceback(self) -> list[str]:
        """Return a line with the number of errors."""
        return [str(self)]


def collect_exceptions(rdict_or_list: Any, method: str = "unspecified") -> Any:
    """Return results unchanged, or raise all errors among them together.

    Args:
        rdict_or_list: a list of results, or a dictionary with results as values.
        method: the name of the call, for the message.

    Raises:
        CompositeError: if there are errors.
    """
    results: Iterable[Any] = rdict_or_list.values() if isinstance(rdict_or_list, Mapping) else rdict_or_list
    found: list[Exception] = []
    for result in results:
        if isinstance(result, CompositeError):
            found += result.exceptions
        elif isinstance(result, RemoteError):
            found.append(result)
    if found:
        raise CompositeError(message_of_group(method), found)
    return rdict_or_list


def message_of_group(method: str) -> str:
    """Return the message of the errors of a call; programs look for it."""
    return f"one or more exceptions raised in: {method}"


def wrap_exception(engine_info: Mapping[str, Any] = {}) -> dict[str, Any]:
    """Return the exception that is being handled as a dictionary of plain values."""
    kind, value, at = sys.exc_info()
    return {
        "status": "error",
        "traceback": tracebacks.format_exception(kind, value, at),
        "ename": "" if kind is None else kind.__name__,
        "evalue": str(value),
        "engine_info": dict(engine_info),
    }


def unwrap_exception(content: Mapping[str, Any]) -> RemoteError:
    """Return the error in a dictionary of :func:`wrap_exception`."""
    text = "\n".join(content["traceback"])
    return RemoteError(content["ename"], content["evalue"], text, content.get("engine_info", {}))


def _place(info: Mapping[str, Any] | None) -> str:
    if not info or info.get("engine_id") is None:
        return "[Engine Exception]"
    return f"[{info['engine_id']}:{info.get('method', '')}]"


def _exceptions(elist: Sequence[Any]) -> list[Exception]:
    return [entry if isinstance(entry, Exception) else RemoteError(*entry) for entry in elist]


def _entry(error: Exception) -> tuple[str, str, str, dict[str, object]]:
    if isinstance(error, RemoteError):
        return error.ename, error.evalue, error.traceback, error.engine_info
    if isinstance(error, nsactors.RemoteError):
        return error.ename, error.evalue, error.traceback, engine_info_of(error)
    name = type(error).__name__
    return name, str(error), f"{name}: {error}", engine_info_of(error)


def engine_info_of(error: Any) -> dict[str, Any]:
    """Return the engine and the method of an error of nsactors, under ipyparallel's keys."""
    engine_id, call = getattr(error, "engine_id", None), getattr(error, "call", None) or ""
    if engine_id is None:
        return {}
    method = "execute" if call == "execute" else "apply"
    return {"engine_id": engine_id, "engine_uuid": f"engine-{engine_id}", "method": method}
