"""Remote failures as exceptions at the client: single ones, groups, interrupts.

A failure is raised as an instance of a class made for the purpose, ``class ZeroDivisionError(RemoteError,
builtins.ZeroDivisionError)``: the same ``except`` clauses work as in serial code, and `RemoteError` catches every
remote failure.
"""

from __future__ import annotations

import builtins
import operator
import os
import pickle
import traceback
import types
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from nsactors._frozen import frozen
from nsactors.errors.exception_state import (
    Parts,
    bases_of,
    dict_of,
    get_state,
    name_of,
    restore_state,
    set_links,
    text_of,
)
from nsactors.errors.exceptions import NsactorsError, WrongType
from nsactors.errors.failure import Failure, Loads, format_failure, format_frames
from nsactors.errors.formatting import engine_ranges, item_ranges, printable


class RemoteError(NsactorsError):
    """User code raised an exception on an engine.

    If the original class is available, the instance is also of that class, with its ``args`` and attributes. Attributes
    of the original that share a name with the properties below are found on ``original``. Control flow
    (``SystemExit``, ``KeyboardInterrupt``, ``StopIteration`` ...) is raised as a plain `RemoteError`, because it
    would otherwise end or steer the client's own code.

    Args:
        failure: the failure.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.summary)
        dict_of(self).update(_failure=failure, _original=None)

    def __init_subclass__(cls, **kwargs: object) -> None:
        # Do not call super(): the next hook may be of a user's class, and does not expect the classes made below.
        pass

    @property
    def failure(self) -> Failure:
        """Everything known about the failure, as a value."""
        failure: Failure = dict_of(self)["_failure"]
        return failure

    @property
    def original(self) -> BaseException | None:
        """The exception as raised on the engine, without traceback; None if it could not be pickled."""
        original: BaseException | None = dict_of(self)["_original"]
        return original

    @property
    def engine_id(self) -> int:
        """The engine that raised it."""
        return self.failure.engine_id

    @property
    def call(self) -> str:
        """The call that the engine was running, such as ``"apply(f)"``."""
        return self.failure.call

    @property
    def ename(self) -> str:
        """The name of the original class."""
        return self.failure.type_name

    @property
    def evalue(self) -> str:
        """The original message."""
        return self.failure.message

    @property
    def traceback(self) -> str:
        """The remote traceback with causes and notes, as text."""
        return format_failure(self.failure)

    @property
    def engine_info(self) -> dict[str, object]:
        """The engine's id and the call, under ipyparallel's keys."""
        return {"engine_id": self.engine_id, "method": self.call}

    def print_traceback(self) -> None:
        """Print the remote traceback."""
        print("\n".join(self._render_traceback_()))

    def __str__(self) -> str:
        # An instance of the user's class has the user's message, to the last character.
        return printable(self.failure.summary) if type(self) is RemoteError else self.failure.message

    def __repr__(self) -> str:
        try:
            text: object = super().__repr__()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return f"<{name_of(type(self))} whose __repr__ raised {name_of(type(error))}>"
        return text_of(text)

    def __bool__(self) -> bool:
        # concurrent.futures and others test the truth of an exception: one whose len() is 0 would be taken for None.
        return True

    # The user's class may define its own __getattribute__, which could hide every attribute used here.
    __getattribute__ = BaseException.__getattribute__

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return self.__reduce__()

    def __reduce__(self) -> tuple[Any, ...]:
        return remote_error, (self.failure,), {"__notes__": dict_of(self).get("__notes__", [])}

    def __setstate__(self, state: dict[str, Any] | None, /) -> None:
        # Do not call the __setstate__ of the original class, which may expect another state.
        dict_of(self).update(state or {})

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows, instead of the frames of nsactors at the client."""
        from nsactors.errors.rendering import render_lines

        return render_lines(self)


def remote_error(failure: Failure, loads: Loads = pickle.loads) -> RemoteError:
    """Return the exception to raise for ``failure``; see `Failure.to_exception`."""
    original, notes = _load(failure, loads)
    error = _typed(failure, original, loads)
    if error is None:
        error = RemoteError(failure)
    # Do not assign the attributes: the user's class may forbid it, as frozen dataclasses do.
    dict_of(error).update(_failure=failure, _original=original, __notes__=[*failure.notes, *notes, _note(failure)])
    cause = None if failure.cause is None else remote_error(failure.cause, loads)
    context = None if failure.context is None else remote_error(failure.context, loads)
    set_links(error, cause, context, suppress_context=failure.suppress_context)
    return error


def _load(failure: Failure, loads: Loads) -> tuple[BaseException | None, tuple[str, ...]]:
    """Return the original exception, or notes that say why it is not available."""
    if failure.pickled is None:
        return None, ()
    try:
        original = loads(failure.pickled)
    except KeyboardInterrupt:  # raised in this process: an interrupt of the engine arrives as data
        raise
    except BaseException as error:  # the class may not exist here, or its module may fail to import
        return None, (f"its class and attributes are not available here: {name_of(type(error))}: {text_of(error)}",)
    return (original if isinstance(original, BaseException) else None), ()


def _typed(failure: Failure, original: BaseException | None, loads: Loads) -> RemoteError | None:
    if failure.control_flow:
        return None
    if original is not None:
        cls, parts = type(original), get_state(original)
    else:
        cls = getattr(builtins, failure.builtin_type, Exception)
        group = (failure.message, tuple(remote_error(member, loads) for member in failure.members))
        parts = Parts((failure.message,)) if not failure.members else Parts(group, new_args=group)
    if any(base is cls for base in bases_of(RemoteError)):
        return None
    try:
        # mypy does not see that exception classes are hashable.
        made = _remote_class(cls, failure.type_name, failure.type_module)  # type: ignore[arg-type]
        return restore_state(made, parts)
    except Exception:  # a metaclass may refuse subclasses with any exception
        return None


# Cached, so that equal failures have the same class: their errors can be compared and grouped by it.
@lru_cache(maxsize=256)
def _remote_class(cls: type[BaseException], name: str, module: str) -> type[RemoteError]:
    if issubclass(cls, RemoteError):
        return cls  # raised on an engine of an engine
    body = {"__module__": module, "__qualname__": name, "__doc__": cls.__doc__}
    # RemoteError first, so that its __str__, __reduce__ and __getattribute__ take precedence over the user's.
    made: type[RemoteError] = types.new_class(name, (RemoteError, cls), exec_body=lambda space: space.update(body))
    return made


def _note(failure: Failure) -> str:
    # The failure's own frames only: Python itself prints causes and members, with their notes.
    head = f"on engine {failure.engine_id}, in {failure.call}"
    lines = [f"{head}, at {failure.where}" if failure.where else head]
    if failure.item is not None:
        lines.append(failure.item.in_words(failure.call))
    if failure.frames:
        lines += ["Remote traceback (most recent call last):", *format_frames(failure.frames)]
    return printable("\n".join(lines))


_EVALUE_CHARS = 200
# Fields that differ between engines that failed alike.
_OWN_TO_ENGINE = frozenset({"engine_id", "stderr_tail", "__notes__"})


@frozen
class FailureGroup:
    """Failures that differ only in their engine.

    Attributes:
        errors: the exceptions in their order; at least one.
        engine_ids: their engines, ascending, each once; empty if the exceptions name no engine.
    """

    errors: tuple[Exception, ...]
    engine_ids: tuple[int, ...]

    @property
    def first(self) -> Exception:
        """The exception that represents the group."""
        return self.errors[0]

    @property
    def ename(self) -> str:
        """The class of the exceptions."""
        return printable(self.first.ename if isinstance(self.first, RemoteError) else name_of(type(self.first)), "")

    @property
    def evalue(self) -> str:
        """The first line of the message, with all engines of the group in place of the one that it names."""
        if isinstance(self.first, RemoteError):
            line, _, more = self.first.evalue.strip().partition("\n")
        else:
            line, more = text_of(self.first).strip().partition("\n")[0], ""  # the next lines are advice
            line = line.replace(f"engine {_engine_id(self.first)}", self.engines, 1)
        shown = f"{line[:_EVALUE_CHARS]} ..." if more or len(line) > _EVALUE_CHARS else line
        return printable(shown, "\t")

    @property
    def engines(self) -> str:
        """The engines, such as ``"engines 0-3, 7"``; empty if the exceptions name no engine."""
        return engine_ranges(self.engine_ids) if self.engine_ids else ""

    @property
    def where(self) -> str:
        """The user's file, line and source; empty if there is none."""
        return printable(self.first.failure.where, "\t") if isinstance(self.first, RemoteError) else ""

    @property
    def count(self) -> str:
        """The number of failures, such as ``"12 times"``, if one engine had several; else empty."""
        return f"{len(self.errors)} times" if len(self.errors) > max(1, len(self.engine_ids)) else ""

    @property
    def items(self) -> str:
        """The items of a map that failed, such as ``"items 3, 17"``; empty for other calls."""
        failures = [error.failure for error in self.errors if isinstance(error, RemoteError)]
        return item_ranges(failure.item.number for failure in failures if failure.item is not None)

    @property
    def place(self) -> str:
        """The engines, the number of failures and the items, such as ``"engines 0-1, 2 times, items 3, 17"``."""
        return ", ".join(filter(None, [self.engines, self.count, self.items]))

    @property
    def summary(self) -> str:
        """The group as one line of text."""
        head = f"{self.ename}: {self.evalue}" if self.evalue else self.ename
        place = self.place
        return "  ".join(filter(None, [head, f"[{place}]" if place else "", self.where]))


def group_failures(errors: Iterable[Exception]) -> list[FailureGroup]:
    """Group exceptions with the same class, message and traceback, in order of first appearance.

    The numbers of cells may differ between engines, so frames in cells are compared by function, line number and
    source, not by the name of the cell.
    """
    groups: dict[object, list[Exception]] = {}
    known: dict[int, list[Exception]] = {}  # items of a map may share one error: compute its key once
    for error in errors:
        if id(error) not in known:
            known[id(error)] = groups.setdefault(_key(error), [])
        known[id(error)].append(error)
    return [
        FailureGroup(tuple(same), tuple(sorted({i for e in same if (i := _engine_id(e)) is not None})))
        for same in groups.values()
    ]


def _engine_id(error: Exception) -> int | None:
    engine_id = error.engine_id if isinstance(error, RemoteError) else dict_of(error).get("engine_id")
    return engine_id if isinstance(engine_id, int) else None


def _key(error: Exception) -> object:
    if isinstance(error, RemoteError):
        return _failure_key(error.failure)
    fields = sorted((name, text_of(value)) for name, value in dict_of(error).items() if name not in _OWN_TO_ENGINE)
    return type(error), tuple(fields) or text_of(error)


def _failure_key(failure: Failure) -> object:
    message = failure.message
    frames = []
    for frame in failure.frames:
        filename = frame.filename
        if filename.startswith("<"):
            message = message.replace(filename, "<cell>")  # messages of syntax errors contain it
            filename = "<cell>"
        frames.append((filename, frame.name, frame.lineno, frame.line, frame.omitted))
    links = [failure.cause, failure.context, *failure.members]
    return (
        (failure.call, failure.type_module, failure.type_name, message, failure.notes, tuple(frames)),
        tuple(_failure_key(link) if link is not None else None for link in links),
    )


_GROUPS_SHOWN = 10


class CompositeError(NsactorsError, ExceptionGroup[Exception]):
    """The failures of a call to several engines, as an exception group that knows their engines.

    Args:
        message: the summary, such as ``"apply(f) failed on 2 of 4 engines"``; may be empty.
        exceptions: one `RemoteError`, `EngineLost`, `TaskAborted` ... per failure; at least one.

    Example::

        try:
            view.execute("1/x")
        except* ZeroDivisionError as group:
            print([error.engine_id for error in group.exceptions])
    """

    def derive(self, excs: Sequence[Exception], /) -> CompositeError:  # type: ignore[override]
        """Return a group of ``excs`` like this one, for ``except*`` and ``split``."""
        return CompositeError(self.message, excs)

    @property
    def groups(self) -> list[FailureGroup]:
        """The failures, grouped by `group_failures`."""
        return group_failures(self.exceptions)

    @property
    def elist(self) -> list[tuple[str, str, str, dict[str, object]]]:
        """(class name, message, traceback, engine) of each failure, as in ipyparallel."""
        return [_entry(error) for error in self.exceptions]

    def raise_exception(self, excid: int = 0) -> None:
        """Raise one of the failures alone.

        Raises:
            IndexError: if there is no failure number ``excid``.
        """
        raise self._pick(excid)

    def print_traceback(self, excid: int | None = None) -> None:
        """Print the remote traceback of failure ``excid``; by default, of one failure per group."""
        from nsactors.errors.rendering import render_lines

        print("\n".join(render_lines(self if excid is None else self._pick(excid))))

    def __str__(self) -> str:
        groups = self.groups
        lines = [self.message] if self.message else []
        lines += [group.summary for group in groups[:_GROUPS_SHOWN]]
        if len(groups) > _GROUPS_SHOWN:
            lines.append(f"... and {len(groups) - _GROUPS_SHOWN} more kinds of failure, in .groups")
        return printable("\n".join(lines))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, {list(self.exceptions)!r})"

    def _pick(self, excid: int) -> Exception:
        try:
            number = operator.index(None if isinstance(excid, bool) else excid)  # type: ignore[arg-type]
        except Exception:
            raise WrongType("raise_exception", "excid", excid, "the number of a failure, from 0") from None
        if not 0 <= number < len(self.exceptions):
            raise IndexError(f"there is no failure {number}: give a number below {len(self.exceptions)}")
        return self.exceptions[number]

    def _render_traceback_(self) -> list[str]:
        from nsactors.errors.rendering import render_lines

        return render_lines(self)


def _entry(error: Exception) -> tuple[str, str, str, dict[str, Any]]:
    if isinstance(error, RemoteError):
        return error.ename, error.evalue, error.traceback, error.engine_info
    name, message, fields = name_of(type(error)), text_of(error), dict_of(error)
    info = {"engine_id": fields.get("engine_id"), "method": fields.get("call", "")}
    return name, message, f"{name}: {message}", info


_PACKAGE = os.path.dirname(os.path.dirname(__file__))
_SHELL = f"{os.sep}IPython{os.sep}"


class _Drawing:
    """Renders a KeyboardInterrupt for IPython: one line, then the frames of the user's code that the cell called."""

    def __init__(self, error: KeyboardInterrupt) -> None:
        self._error = error

    def __call__(self) -> list[str]:
        notes = "; ".join(getattr(self._error, "__notes__", ()))
        frames = [
            frame
            for frame in traceback.extract_tb(self._error.__traceback__)
            if not frame.filename.startswith(_PACKAGE) and _SHELL not in frame.filename
        ]
        # The first frame is the cell, which IPython shows above.
        places = [f"  {frame.filename}, line {frame.lineno}: {frame.line}" for frame in frames[1:]]
        return [f"KeyboardInterrupt: {notes}" if notes else "KeyboardInterrupt", *places]

    def __reduce__(self) -> tuple[type[_Drawing], tuple[KeyboardInterrupt]]:
        return _Drawing, (self._error,)


def keyboard_interrupt(*notes: str) -> KeyboardInterrupt:
    """Return a KeyboardInterrupt with notes about the calls that were waited for.

    Raise it outside the ``except`` block of another interrupt, or ``from None``: the other one has many frames of Ray.

    Args:
        notes: sentences about those calls.
    """
    error = KeyboardInterrupt()
    for note in notes:
        error.add_note(note)
    error._render_traceback_ = _Drawing(error)  # type: ignore[attr-defined]  # the hook of IPython
    return error


def is_for_users(error: KeyboardInterrupt) -> bool:
    """Return whether :func:`keyboard_interrupt` made an interrupt; otherwise, Python raised it for a signal."""
    return isinstance(getattr(error, "_render_traceback_", None), _Drawing)
