"""Equal failures of many engines, told once."""

from collections.abc import Iterable
from dataclasses import dataclass

from nsactors.errors.failure import Failure
from nsactors.errors.ranges import engine_ranges
from nsactors.errors.remote import RemoteError

__all__ = ["FailureGroup", "engine_ranges", "group_failures"]

_EVALUE_CHARS = 120
# What differs between engines that failed in the same way.
_OWN_TO_ENGINE = frozenset({"engine_id", "stderr_tail", "__notes__"})


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures that differ in their engine only.

    Attributes:
        errors: the exceptions, in their first order; at least one.
        engine_ids: their engines, ascending, each once; empty if they name none.
    """

    errors: tuple[Exception, ...]
    engine_ids: tuple[int, ...]

    @property
    def first(self) -> Exception:
        """The exception that stands for all."""
        return self.errors[0]

    @property
    def ename(self) -> str:
        """The class of the exceptions."""
        return self.first.ename if isinstance(self.first, RemoteError) else type(self.first).__name__

    @property
    def evalue(self) -> str:
        """The message, bound to its first line and naming all the engines where it named one."""
        if isinstance(self.first, RemoteError):
            line, _, more = self.first.evalue.strip().partition("\n")
        else:
            line, more = str(self.first).strip().partition("\n")[0], ""  # then comes what to do next
            line = line.replace(f"engine {_engine_id(self.first)}", self.engines, 1)
        return f"{line[:_EVALUE_CHARS]} ..." if more or len(line) > _EVALUE_CHARS else line

    @property
    def engines(self) -> str:
        """The engines, such as ``"engines 0-3, 7"``; empty if the exceptions name none."""
        return engine_ranges(self.engine_ids) if self.engine_ids else ""

    @property
    def where(self) -> str:
        """The user's file, line and source; empty if there is none."""
        return self.first.failure.where if isinstance(self.first, RemoteError) else ""

    @property
    def count(self) -> str:
        """How many failures, such as ``"12 times"``, if an engine had more than one; else empty."""
        return f"{len(self.errors)} times" if len(self.errors) > max(1, len(self.engine_ids)) else ""

    @property
    def summary(self) -> str:
        """The group in one line."""
        head = f"{self.ename}: {self.evalue}" if self.evalue else self.ename
        place = ", ".join(filter(None, [self.engines, self.count]))
        return "  ".join(filter(None, [head, f"[{place}]" if place else "", self.where]))


def group_failures(errors: Iterable[Exception]) -> list[FailureGroup]:
    """Group exceptions of one class, message and traceback, in order of first appearance.

    Cells may have other numbers on other engines, so a cell's frames are compared by function, line
    number and source, not by the cell's name.
    """
    groups: dict[object, list[Exception]] = {}
    for error in errors:
        groups.setdefault(_key(error), []).append(error)
    return [
        FailureGroup(tuple(same), tuple(sorted({i for e in same if (i := _engine_id(e)) is not None})))
        for same in groups.values()
    ]


def _engine_id(error: Exception) -> int | None:
    engine_id = getattr(error, "engine_id", None)
    return engine_id if isinstance(engine_id, int) else None


def _key(error: Exception) -> object:
    if isinstance(error, RemoteError):
        return _failure_key(error.failure)
    fields = sorted((name, str(value)) for name, value in vars(error).items() if name not in _OWN_TO_ENGINE)
    return type(error), tuple(fields) or str(error)


def _failure_key(failure: Failure) -> object:
    message = failure.message
    frames = []
    for frame in failure.frames:
        filename = frame.filename
        if filename.startswith("<"):
            message = message.replace(filename, "<cell>")  # syntax errors name it
            filename = "<cell>"
        frames.append((filename, frame.name, frame.lineno, frame.line, frame.omitted))
    links = [failure.cause, failure.context, *failure.members]
    return (
        (failure.call, failure.type_module, failure.type_name, message, failure.notes, tuple(frames)),
        tuple(_failure_key(link) if link is not None else None for link in links),
    )
