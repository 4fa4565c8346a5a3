"""Errors of nsactors as ipyparallel's: instances of both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import nsactors
from nsactors import errors
from nsactors.ipyparallel import error as own

__all__ = ["translated", "translating"]

# Class of nsactors, class of ipyparallel, and whether ipyparallel raises it as a RemoteError: all errors of its
# scheduler and its hub.
_TWINS: tuple[tuple[type[Exception], type[Exception], bool], ...] = (
    (nsactors.RemoteError, own.RemoteError, True),
    (errors.TaskAborted, own.TaskAborted, False),
    (errors.NoEngines, own.NoEnginesRegistered, False),
    (errors.ImpossibleDependency, own.ImpossibleDependency, True),
    (errors.InvalidDependency, own.InvalidDependency, True),
    (errors.TaskTimeout, own.TaskTimeout, True),
    (errors.TaskLost, own.EngineError, True),
    (errors.EngineError, own.EngineError, True),
    (errors.ResultUnavailable, KeyError, True),
    (errors.NoSuchEngine, KeyError, False),
    (errors.ClientClosed, RuntimeError, False),
)


def translated(error: Any, name: str | None = None) -> Any:
    """Make an error of nsactors also an instance of ipyparallel's class; return any other value unchanged.

    Args:
        error: the error.
        name: the function that was called, for the message of a group of errors; None keeps the message of nsactors.
    """
    if not isinstance(error, errors.NsactorsError) or isinstance(error, own.RemoteError):
        return error
    if isinstance(error, errors.CompositeError):
        message = error.message if name is None else own.message_of_group(name)
        group = own.CompositeError(message, [translated(part) for part in error.exceptions])
        group.__cause__, group.__context__, group.__traceback__ = (
            error.__cause__,
            error.__context__,
            error.__traceback__,
        )
        group.__suppress_context__ = error.__suppress_context__
        return group
    for ours, theirs, remote in _TWINS:
        if isinstance(error, ours) and not isinstance(error, theirs):
            # Change the class in place, so that the error keeps its attributes, notes, causes and identity.
            error.__class__ = _both(_Pair(type(error), theirs, remote))
            break
    return error


@contextmanager
def translating(name: str | None = None) -> Iterator[None]:
    """Translate the errors of nsactors that the ``with`` block raises; see :func:`translated`."""
    try:
        yield
    except errors.NsactorsError as error:
        raised = translated(error, name)
        if raised is error:
            raise
        raise raised from error.__cause__


class _Pair(NamedTuple):
    ours: Any
    theirs: Any
    remote: bool


@lru_cache(maxsize=256)
def _both(pair: _Pair) -> Any:
    """Return a subclass of both classes, with the text and the fields of ipyparallel's."""
    ours, theirs, remote = pair
    body: dict[str, Any] = {"__module__": ours.__module__, "__qualname__": ours.__qualname__, "__doc__": ours.__doc__}
    body["__reduce__"] = _reduce
    bases: tuple[type, ...] = (ours, theirs)
    if remote:
        body["engine_info"] = property(own.engine_info_of)
    if issubclass(ours, errors.NoSuchEngine):
        body["__str__"] = _no_such_engine
    if theirs is own.RemoteError:
        body |= {name: getattr(own.RemoteError, name) for name in ("__str__", "__repr__", "print_traceback")}
    elif remote:
        bases += (own.RemoteError,)
        text = ours.__str__  # __str__ of ipyparallel reads evalue
        body |= {"ename": theirs.__name__, "evalue": property(text), "__str__": text, "__repr__": ours.__repr__}
        body["traceback"] = property(_traceback)
    return type(ours.__name__, bases, body)


def _no_such_engine(error: errors.NoSuchEngine) -> str:
    return f"No such engine: {error.engine_id}; {str(error.args[0]).partition('; ')[2]}"


def _traceback(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _reduce(error: Exception) -> tuple[Any, ...]:
    ours: Any = next(base for base in type(error).__mro__[1:] if vars(base).get("__reduce__") is not _reduce)
    function, arguments, *state = ours.__reduce__(error)
    # The class of both exists in this process only; the receiving process makes its own.
    return _rebuilt, (function, tuple(ours if each is type(error) else each for each in arguments), *state)


def _rebuilt(function: Any, arguments: tuple[Any, ...], state: dict[str, Any] | None = None) -> Any:
    made = function(*arguments)
    vars(made).update(state or {})
    return translated(made)
