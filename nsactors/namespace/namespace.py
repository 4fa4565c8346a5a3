"""A namespace: names, and the operations that change them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from nsactors.namespace.interrupts import run_user_code
from nsactors.namespace.plain_shell import Completions, Shell, complete_names, describe
from nsactors.namespace.programs import assignments
from nsactors.protocol.functions import keeping_builtins
from nsactors.protocol.messages import Apply, Execute, Operation, Pull, Push, Reset, TakeSnapshot
from nsactors.protocol.serialize import Payload, RemoteValue, unpack

OnCall = Callable[[Any, tuple[Any, ...], dict[str, Any]], object]
"""Takes a function, its positional arguments, and its keyword arguments."""


class Namespace:
    """Run operations in a shell, one at a time, and return their values.

    Errors of user code are raised here, ``SystemExit`` and ``KeyboardInterrupt`` included.

    Args:
        names: the dictionary in which user code runs.
        make_shell: makes the shell when the first cell arrives. Most of its cost is the import of IPython, which only
            cells need.
        keep: stores the value of a name or expression that is pulled as a reference.
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
        self.pushed = ""

    @property
    def execution_count(self) -> int:
        """Return the number that the next cell will have."""
        return self._made_shell.execution_count if self._made_shell else 1

    def number_cells(self, number: int) -> None:
        """Set the number of the next cell."""
        self._shell.execution_count = number

    @property
    def _shell(self) -> Shell:
        if self._made_shell is None:
            self._made_shell = self._make_shell(self.names)
        return self._made_shell

    def run(self, operation: Operation, payload: Payload | None, on_call: OnCall | None = None) -> Any:
        """Run one operation and return its value.

        Args:
            operation: the operation.
            payload: its function, arguments or values.
            on_call: called with a function and its arguments before the function runs.
        """
        match operation:
            case Execute(code, silent, store_history):
                self._shell.run_cell(code, silent=silent, store_history=store_history)
                return None
            case Apply(_, copy):
                with keeping_builtins(self.names):
                    function, args, kwargs = self._load(payload, stays=False, copy=copy)
                    if on_call is not None:
                        on_call(function, args, kwargs)
                    return run_user_code(function, *args, **kwargs)
            case Push(copy):
                values = self._load(payload, stays=True, copy=copy)
                # Write the code now, because later requests may change the values. A scalar takes 1 us.
                self.pushed = assignments(values)
                self.names.update(values)
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

    def close_shell(self) -> None:
        """Release the objects that the shell keeps beside the names; no operation may follow."""
        if self._made_shell is not None:
            self._made_shell.close()

    def complete(self, code: str, cursor: int) -> Completions:
        """Return names that complete ``code`` at ``cursor``; callable from another thread while a cell runs."""
        shell = self._made_shell
        return shell.complete(code, cursor) if shell else complete_names(self.names, code, cursor)

    def inspect(self, name: str, detail: int) -> str | None:
        """Describe ``name`` for people; None if it is not bound. Callable from another thread."""
        shell = self._made_shell
        return shell.inspect(name, detail) if shell else describe(self.names, name, detail)

    def _load(self, payload: Payload | None, *, stays: bool, copy: bool) -> Any:
        assert payload is not None, "this operation comes with a payload"
        # Unpickling runs code of the user's classes.
        return run_user_code(partial(unpack, scope=self.names, stays=stays, copy=copy), payload)

    def _evaluate(self, expression: str) -> Any:
        # Most expressions are plain names. They need no compilation, and must not find builtins: a pulled "id" is a
        # mistake.
        if expression.isidentifier():
            try:
                return self.names[expression]
            except KeyError:
                raise NameError(f"name {expression!r} is not defined", name=expression) from None
        return run_user_code(eval, compile(expression, "<expression>", "eval"), self.names)
