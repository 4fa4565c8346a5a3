"""The exception raised at a client for one that user code raised on an engine.

What is raised is an instance of a class made on the spot, ``class ZeroDivisionError(RemoteError,
builtins.ZeroDivisionError)``: a program catches what it would catch in serial code, or every remote
failure as `RemoteError`.
"""

import builtins
import pickle
import types
from functools import lru_cache
from typing import Any

from nsactors.errors.anatomy import Parts, assemble, dismantle
from nsactors.errors.failure import Failure, Loads
from nsactors.errors.text import format_failure, format_frames
from nsactors.errors.tree import NsactorsError

__all__ = ["RemoteError", "remote_error"]


class RemoteError(NsactorsError):
    """User code raised an exception on an engine.

    Where the original class can be had, the instance is of that class too, with its ``args`` and
    attributes. Attributes of the original that bear one of the names below are found on ``original``.
    Control flow (``SystemExit``, ``KeyboardInterrupt``, ``StopIteration`` ...) is a plain `RemoteError`,
    or it would act at the client.

    Args:
        failure: what happened.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.summary)
        self.__dict__.update(_failure=failure, _original=None)

    def __init_subclass__(cls, **kwargs: object) -> None:
        # Stops here: the hook of a user's class, found next, was not written for the classes made below.
        pass

    @property
    def failure(self) -> Failure:
        """Everything known about the failure, as a value."""
        failure: Failure = self.__dict__["_failure"]
        return failure

    @property
    def original(self) -> BaseException | None:
        """The exception as it was on the engine, without traceback; None if it could not be pickled."""
        original: BaseException | None = self.__dict__["_original"]
        return original

    @property
    def engine_id(self) -> int:
        """The engine it was raised on."""
        return self.failure.engine_id

    @property
    def call(self) -> str:
        """What the engine was running, such as ``"apply(f)"``."""
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
        """The engine's id and what it ran, under ipyparallel's keys."""
        return {"engine_id": self.engine_id, "method": self.call}

    def print_traceback(self) -> None:
        """Print the remote traceback."""
        print("\n".join(self._render_traceback_()))

    def __str__(self) -> str:
        return self.failure.summary if type(self) is RemoteError else self.failure.message

    def __reduce__(self) -> tuple[Any, ...]:
        return remote_error, (self.failure,), {"__notes__": self.__dict__.get("__notes__", [])}

    def __setstate__(self, state: dict[str, Any] | None, /) -> None:
        # Not that of the original class, which may expect a state of its own.
        self.__dict__.update(state or {})

    def _render_traceback_(self) -> list[str]:
        """IPython shows this instead of the frames of the client's own machinery."""
        from nsactors.errors.drawing import render_lines

        return render_lines(self)


def remote_error(failure: Failure, loads: Loads = pickle.loads) -> RemoteError:
    """Return the exception to raise for ``failure``; see `Failure.to_exception`."""
    original = _load(failure, loads)
    error = _typed(failure, original, loads) or RemoteError(failure)
    # Through __dict__ and object: a user's class may forbid assignment, as frozen dataclasses do.
    error.__dict__.update(_failure=failure, _original=original, __notes__=[*failure.notes, _note(failure)])
    for attribute, link in (("__cause__", failure.cause), ("__context__", failure.context)):
        if link is not None:
            object.__setattr__(error, attribute, remote_error(link, loads))
    object.__setattr__(error, "__suppress_context__", failure.suppress_context)
    return error


def _load(failure: Failure, loads: Loads) -> BaseException | None:
    if failure.pickled is None:
        return None
    try:
        original = loads(failure.pickled)
    except Exception:  # the class may not exist here, or its module may fail to import
        return None
    return original if isinstance(original, BaseException) else None


def _typed(failure: Failure, original: BaseException | None, loads: Loads) -> RemoteError | None:
    if failure.control_flow:
        return None
    if original is not None:
        cls, parts = type(original), dismantle(original)
    else:
        cls = getattr(builtins, failure.builtin_type, Exception)
        group = (failure.message, tuple(remote_error(member, loads) for member in failure.members))
        parts = Parts((failure.message,)) if not failure.members else Parts(group, new_args=group)
    if issubclass(RemoteError, cls):
        return None
    try:
        # mypy does not see that classes of exceptions are hashable.
        made = _remote_class(cls, failure.type_name, failure.type_module)  # type: ignore[arg-type]
        return assemble(made, parts)
    except Exception:  # a metaclass may refuse to be subclassed in any way it likes
        return None


@lru_cache(maxsize=256)
def _remote_class(cls: type[BaseException], name: str, module: str) -> type[RemoteError]:
    if issubclass(cls, RemoteError):
        return cls  # raised on an engine of an engine
    body = {"__module__": module, "__qualname__": name, "__doc__": cls.__doc__}
    made: type[RemoteError] = types.new_class(name, (RemoteError, cls), exec_body=lambda space: space.update(body))
    return made


def _note(failure: Failure) -> str:
    # Its own frames only: Python prints causes and members, with their notes, by itself.
    head = f"on engine {failure.engine_id}, in {failure.call}"
    lines = [f"{head}, at {failure.where}" if failure.where else head]
    if failure.frames:
        lines += ["Remote traceback (most recent call last):", *format_frames(failure.frames)]
    return "\n".join(lines)
