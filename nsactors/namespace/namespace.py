"""A namespace: names, and the operations that make them evolve."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from nsactors.core.functions import keeping_builtins
from nsactors.core.messages import Apply, Execute, Operation, Pull, Push, Reset, TakeSnapshot
from nsactors.core.payload import Payload, unpack
from nsactors.core.remote_value import RemoteValue
from nsactors.namespace.gate import run_user_code
from nsactors.namespace.plain_shell import complete_names, describe
from nsactors.namespace.shell import Completions, Shell

__all__ = ["Namespace"]


class Namespace:
    """Runs operations in a shell, one at a time, and gives back their values.

    Whatever user code raises is raised here, ``SystemExit`` and ``KeyboardInterrupt`` included.

    Args:
        names: the dictionary user code runs in.
        make_shell: makes the shell when the first cell arrives; most of what it costs is importing IPython, which calls
            and data do not need.
        keep: puts aside the value of a name or expression that is pulled as a reference.
    """

    def __init__(
        self,
        names: dict[str, Any],
        make_shell: Callable[[dict[str, Any]], Shell],
        keep: Callable[[str, Any], RemoteValue],
    ) -> None:
        self.names = names
        self._make_shell = make_shell
        self._keep = keep
        self._made_shell: Shell | None = None

    @property
    def execution_count(self) -> int:
        """The number the next cell will have."""
        return self._made_shell.execution_count if self._made_shell else 1

    def number_cells(self, number: int) -> None:
        """Let the next cell have this number."""
        self._shell.execution_count = number

    @property
    def _shell(self) -> Shell:
        if self._made_shell is None:
            self._made_shell = self._make_shell(self.names)
        return self._made_shell

    def run(self, operation: Operation, payload: Payload | None) -> Any:
        """Carry out one operation; its value is what the caller gets."""
        match operation:
            case Execute(code, silent, store_history):
                self._shell.run_cell(code, silent=silent, store_history=store_history)
                return None
            case Apply(_, copy):
                with keeping_builtins(self.names):
                    function, args, kwargs = self._load(payload, stays=False, copy=copy)
                    return run_user_code(function, *args, **kwargs)
            case Push(copy):
                self.names.update(self._load(payload, stays=True, copy=copy))
                return None
            case Pull(expressions, single, as_ref):
                values = [self._evaluate(expression) for expression in expressions]
                if as_ref:
                    values = [self._keep(*item) for item in zip(expressions, values, strict=True)]
                return values[0] if single else values
            case Reset():
                self._shell.reset()
                return None
            case TakeSnapshot():
                raise AssertionError("a snapshot is taken by the journal of a namespace")

    def complete(self, code: str, cursor: int) -> Completions:
        """Names that complete ``code`` at ``cursor``; callable from another thread while a cell runs."""
        shell = self._made_shell
        return shell.complete(code, cursor) if shell else complete_names(self.names, code, cursor)

    def inspect(self, name: str, detail: int) -> str | None:
        """What ``name`` is, for people; None if there is no such name. Callable from another thread."""
        shell = self._made_shell
        return shell.inspect(name, detail) if shell else describe(self.names, name, detail)

    def _load(self, payload: Payload | None, *, stays: bool, copy: bool) -> Any:
        assert payload is not None, "this operation comes with a payload"
        # Unpickling runs code of the user's classes.
        return run_user_code(partial(unpack, scope=self.names, stays=stays, copy=copy), payload)

    def _evaluate(self, expression: str) -> Any:
        # A plain name is by far the most common: no compilation, and no builtins (a pulled "id" is a mistake).
        if expression.isidentifier():
            try:
                return self.names[expression]
            except KeyError:
                raise NameError(f"name {expression!r} is not defined", name=expression) from None
        return run_user_code(eval, compile(expression, "<expression>", "eval"), self.names)
