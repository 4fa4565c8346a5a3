"""What went wrong on one engine, as a value that any process can load."""

import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nsactors.errors.anatomy import Portable, builtin_base
from nsactors.errors.frames import FrameSummary, IsUserFrame, summarise_syntax, summarise_traceback

if TYPE_CHECKING:
    from nsactors.errors.remote import RemoteError

__all__ = ["Dumps", "Failure", "Loads"]

Dumps = Callable[[object], bytes]
Loads = Callable[[bytes], object]

# The compiler names a cell in its message; engines that fail alike may have numbered it otherwise.
_ENGINE_CELL = re.compile(r"<engine \d+, cell [\d.]+>")
_TEXT_CHARS = 100_000
_NOTES = 50
_CHAIN_DEPTH = 20
_CAPTURED = 200  # failures in one tree of causes, contexts and group members


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception that user code raised on an engine. It holds nothing but built-in values.

    Attributes:
        engine_id: the engine.
        call: what it ran, such as ``"execute"`` or ``"apply(f)"``.
        type_name: the exception's class; ``type_module`` is where it was defined.
        builtin_type: the nearest built-in class it derives from.
        message: its ``str``, bounded.
        notes: its notes.
        frames: its traceback from the user's code on, outermost first.
        cause: from ``raise ... from cause``.
        context: what was being handled, if that is not also the cause.
        suppress_context: whether the context is not to be shown (``from None``).
        members: those of an exception group.
        pickled: the exception itself, or None if it cannot be pickled and loaded.
        control_flow: whether raising it at a client would act there instead of informing.
    """

    engine_id: int
    call: str
    type_name: str
    type_module: str
    builtin_type: str
    message: str
    notes: tuple[str, ...] = ()
    frames: tuple[FrameSummary, ...] = ()
    cause: "Failure | None" = None
    context: "Failure | None" = None
    suppress_context: bool = False
    members: "tuple[Failure, ...]" = ()
    pickled: bytes | None = field(default=None, repr=False)
    control_flow: bool = False

    @classmethod
    def capture(
        cls,
        exc: BaseException,
        *,
        engine_id: int,
        call: str,
        dumps: Dumps | None = None,
        is_user_frame: IsUserFrame | None = None,
    ) -> "Failure":
        """Describe ``exc``, its causes and, for a group, its members. Never raises for what ``exc`` is.

        Args:
            exc: an exception that was caught, of any class.
            engine_id: the engine it was caught on.
            call: what the engine was running.
            dumps: pickles the exception, and may refuse by raising; None leaves the exception behind.
                What it returns must load with ``pickle.loads``.
            is_user_frame: tells the user's frames from machinery and libraries. What comes before the first
                of the user's frames is dropped; the last one is where the failure is said to be.

        Example::

            try:
                exec(code, namespace)
            except BaseException as exc:
                failure = Failure.capture(exc, engine_id=0, call="execute", dumps=cloudpickle.dumps)
        """
        return _Capture(engine_id, call, is_user_frame).describe(exc, dumps)

    def to_exception(self, loads: Loads = pickle.loads) -> "RemoteError":
        """Return what to raise at a client: a `RemoteError` that is also of the original class.

        ``loads`` undoes the ``dumps`` of `capture`; where it fails, the nearest built-in class is used.
        """
        from nsactors.errors.remote import remote_error

        return remote_error(self, loads)

    def with_sources(self) -> "Failure":
        """This failure, with source lines that only this process knows: of functions typed at its prompt."""
        return replace(
            self,
            frames=tuple(frame.with_source() for frame in self.frames),
            cause=self.cause and self.cause.with_sources(),
            context=self.context and self.context.with_sources(),
            members=tuple(member.with_sources() for member in self.members),
        )

    @property
    def summary(self) -> str:
        """The class and the message, as Python writes them last in a traceback."""
        return f"{self.type_name}: {self.message}" if self.message else self.type_name

    @property
    def place(self) -> FrameSummary | None:
        """The innermost frame of the user's own code, or else the innermost frame."""
        innermost_first = [*reversed(self.frames)]
        return next((frame for frame in innermost_first if frame.user), next(iter(innermost_first), None))

    @property
    def where(self) -> str:
        """The user's file, line and source, such as ``"<cell 3>, line 2: 1/0"``; empty if unknown."""
        place = self.place
        if place is None:
            return ""
        return f"{place.filename}, line {place.lineno}" + (f": {place.line}" if place.line else "")


class _Capture:
    """One walk over an exception and all it refers to."""

    def __init__(self, engine_id: int, call: str, is_user_frame: IsUserFrame | None) -> None:
        self._engine_id = engine_id
        self._call = call
        self._is_user_frame = is_user_frame
        self._seen: set[int] = set()

    def describe(self, exc: BaseException, dumps: Dumps | None, depth: int = 0) -> Failure:
        self._seen.add(id(exc))
        cls = type(exc)
        pickled = _pickled(exc, dumps)
        # A group carries its members in its own pickle.
        member_dumps = dumps if pickled is None else None
        members = exc.exceptions if isinstance(exc, BaseExceptionGroup) else ()
        return Failure(
            engine_id=self._engine_id,
            call=self._call,
            type_name=str(cls.__name__),
            type_module=str(cls.__module__),
            builtin_type=builtin_base(cls).__name__,
            message=_ENGINE_CELL.sub("<cell>", _text(exc)),
            notes=_notes(exc),
            frames=self._frames(exc),
            cause=self._next(exc.__cause__, dumps, depth),
            context=self._next(exc.__context__, dumps, depth),
            suppress_context=exc.__suppress_context__,
            members=tuple(
                found for member in members if (found := self._next(member, member_dumps, depth)) is not None
            ),
            pickled=pickled,
            control_flow=not issubclass(cls, Exception) or issubclass(cls, StopIteration | StopAsyncIteration),
        )

    def _next(self, exc: BaseException | None, dumps: Dumps | None, depth: int) -> Failure | None:
        # Chains may be cycles, and retry loops make them very long.
        if exc is None or id(exc) in self._seen or depth >= _CHAIN_DEPTH or len(self._seen) >= _CAPTURED:
            return None
        return self.describe(exc, dumps, depth + 1)

    def _frames(self, exc: BaseException) -> tuple[FrameSummary, ...]:
        frames = summarise_traceback(exc.__traceback__, self._is_user_frame)
        syntax = summarise_syntax(exc) if isinstance(exc, SyntaxError) else ()
        if syntax and not any(frame.user for frame in frames):
            return syntax  # the frames are those of whoever called the compiler
        return frames + syntax


def _pickled(exc: BaseException, dumps: Dumps | None) -> bytes | None:
    if dumps is None:
        return None
    try:
        data = dumps(Portable(exc))
        loaded = pickle.loads(data)
    except Exception:  # whatever the exception refers to may refuse in its own way
        return None
    return data if isinstance(loaded, BaseException) else None


def _text(value: object) -> str:
    try:
        text = str(value)
    except Exception as error:
        text = f"<{type(value).__name__} whose __str__ raised {type(error).__name__}>"
    left_out = len(text) - _TEXT_CHARS
    return text if left_out <= 0 else f"{text[:_TEXT_CHARS]} ... ({left_out} more characters)"


def _notes(exc: BaseException) -> tuple[str, ...]:
    notes = exc.__dict__.get("__notes__")  # anything may have been assigned there
    return tuple(map(_text, notes[:_NOTES])) if isinstance(notes, list | tuple) else ()
