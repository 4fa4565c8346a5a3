"""What a namespace needs of the shell that runs its cells."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

__all__ = ["KEPT_CELLS", "Completions", "Shell", "forget_input"]

KEPT_CELLS = 1_000  # whose source and results are remembered; as many results as IPython keeps


class Completions(NamedTuple):
    """What the text between ``start`` and ``end`` could become."""

    matches: tuple[str, ...]
    start: int
    end: int


class Shell(Protocol):
    """Runs cells in a dictionary of names and shows what they display."""

    names: dict[str, Any]
    execution_count: int

    def run_cell(self, code: str, *, silent: bool, store_history: bool) -> None:
        """Run a cell; what it raised is raised here."""
        ...

    def reset(self) -> None:
        """Forget every name the user made, and the histories."""
        ...

    def complete(self, code: str, cursor: int) -> Completions:
        """Names that complete ``code`` at ``cursor``."""
        ...

    def inspect(self, name: str, detail: int) -> str | None:
        """What ``name`` is, as ``name?`` shows it (``name??`` with detail 1); None if there is no such name."""
        ...


def forget_input(inputs: list[str], number: int) -> None:
    """Make the source of a cell empty that came long ago; the others keep their numbers."""
    if 0 < number < len(inputs):
        inputs[number] = ""
