"""The exception raised at a client when a call to several engines failed on some of them."""

from collections.abc import Sequence
from typing import Any

from nsactors.errors.grouping import FailureGroup, group_failures
from nsactors.errors.remote import RemoteError
from nsactors.errors.tree import NsactorsError

__all__ = ["CompositeError"]

_GROUPS_SHOWN = 10


class CompositeError(NsactorsError, ExceptionGroup[Exception]):
    """Every failure of a call to several engines: an exception group that knows about engines.

    Args:
        message: what was attempted, such as ``"apply(f) failed on 2 of 4 engines"``; may be empty.
        exceptions: one `RemoteError`, `EngineLost`, `TaskAborted` ... per failure; at least one.

    Example::

        try:
            view.execute("1/x")
        except* ZeroDivisionError as group:
            print([error.engine_id for error in group.exceptions])
    """

    def derive(self, excs: Sequence[Exception], /) -> "CompositeError":  # type: ignore[override]
        """Return a group of ``excs`` like this one; ``except*`` and ``split`` call it."""
        return CompositeError(self.message, excs)

    @property
    def groups(self) -> list[FailureGroup]:
        """The failures, equal ones together, in order of first appearance."""
        return group_failures(self.exceptions)

    @property
    def elist(self) -> list[tuple[str, str, str, dict[str, object]]]:
        """(class name, message, traceback text, engine) of each failure, as in ipyparallel."""
        return [_entry(error) for error in self.exceptions]

    def raise_exception(self, excid: int = 0) -> None:
        """Raise one of the failures alone.

        Raises:
            IndexError: if there is no failure number ``excid``.
        """
        raise self._pick(excid)

    def print_traceback(self, excid: int | None = None) -> None:
        """Print the remote traceback of failure ``excid``, or of one failure of each group."""
        from nsactors.errors.drawing import render_lines

        print("\n".join(render_lines(self if excid is None else self._pick(excid))))

    def __str__(self) -> str:
        groups = self.groups
        lines = [self.message] if self.message else []
        lines += [group.summary for group in groups[:_GROUPS_SHOWN]]
        if len(groups) > _GROUPS_SHOWN:
            lines.append(f"... and {len(groups) - _GROUPS_SHOWN} more kinds of failure, in .groups")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, {list(self.exceptions)!r})"

    def _pick(self, excid: int) -> Exception:
        if not 0 <= excid < len(self.exceptions):
            raise IndexError(f"there is no failure {excid}: give a number below {len(self.exceptions)}")
        return self.exceptions[excid]

    def _render_traceback_(self) -> list[str]:
        from nsactors.errors.drawing import render_lines

        return render_lines(self)


def _entry(error: Exception) -> tuple[str, str, str, dict[str, Any]]:
    if isinstance(error, RemoteError):
        return error.ename, error.evalue, error.traceback, error.engine_info
    name, message = type(error).__name__, str(error)
    info = {"engine_id": getattr(error, "engine_id", None), "method": getattr(error, "call", "")}
    return name, message, f"{name}: {message}", info
