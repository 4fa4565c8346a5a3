"""A view as a dictionary of names: data to engines and back."""

from __future__ import annotations

import keyword
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from nsactors.core.messages import Pull, Push, Reset, TakeSnapshot
from nsactors.core.targets import Targets
from nsactors.errors import InvalidName
from nsactors.results import AsyncMapResult, AsyncResult, value_of
from nsactors.results.transfers import showing_transfer
from nsactors.views.mapping import partitioner_for
from nsactors.views.view import View

__all__ = ["DataView"]

LARGE_BYTES = 20_000_000  # less is stored in no time


class DataView(View):
    """Push, pull, scatter and gather; ``view["a"]`` and ``view["a"] = 1`` for short."""

    def push(
        self,
        ns: Mapping[str, Any],
        targets: Targets = None,
        block: bool | None = None,
        track: bool | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Bind names on each engine; the values are serialised once.

        Args:
            ns: values by name.
            targets: in place of the view's own.
            block: wait until they are bound.
            track: not used; kept for scripts written for ipyparallel.
            copy: bind arrays that can be written to, in place of read-only views of one copy a machine.

        Raises:
            TypeError: if ``ns`` is no dictionary.
            InvalidName: if a key is no name.
            SerializationError: if a value cannot be pickled. Nothing has been sent in any of these cases.
        """
        if not isinstance(ns, Mapping):
            raise TypeError(f"push() takes a dictionary of names and values, not {type(ns).__name__}")
        for name in ns:
            _check_name(name)
        payload = self._pack(dict(ns), "the values")
        with self._shown("push", payload.nbytes, block):
            return self._ask(targets, Push(self._copies(copy)), "push", block, payload)

    def update(self, ns: Mapping[str, Any]) -> Any:
        """As :meth:`push`."""
        return self.push(ns)

    def pull(
        self,
        names: str | Sequence[str],
        targets: Targets = None,
        block: bool | None = None,
        *,
        as_ref: bool = False,
    ) -> Any:
        """The values of names, or of expressions, on each engine.

        Args:
            names: one name, or several, which give a list for each engine.
            targets: in place of the view's own.
            block: wait for the values.
            as_ref: leave each value on its engine, and give a :class:`RemoteValue` in its place, which can be pushed to
                other engines or passed to calls there.

        Raises:
            InvalidName: if a name is no expression; nothing has been sent then.
            NameError: (through the result) where a name is not bound.
        """
        single = isinstance(names, str)
        expressions = (names,) if isinstance(names, str) else tuple(names)
        for expression in expressions:
            _check_expression(expression)
        return self._ask(targets, Pull(expressions, single, as_ref), f"pull({', '.join(expressions)})", block)

    def get(self, names: str | Sequence[str]) -> Any:
        """As :meth:`pull`; waits for the values."""
        return self.pull(names, block=True)

    def __getitem__(self, name: str) -> Any:
        return self.get(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self.push({name: value})

    def scatter(
        self,
        key: str,
        seq: Any,
        dist: str = "b",
        flatten: bool = False,
        targets: Targets = None,
        block: bool | None = None,
        track: bool | None = None,
        *,
        axis: int = 0,
        copy: bool | None = None,
    ) -> Any:
        """Split ``seq`` and bind one part per engine, in the order of the targets.

        Parts differ in length by at most one; the first engines take the extra items.

        Args:
            key: the name to bind.
            seq: a sequence, an array of any shape, or another iterable.
            dist: ``"b"`` for contiguous parts, ``"r"`` to deal items out in turn.
            flatten: bind the item itself where a part has just one.
            targets: in place of the view's own.
            block: wait until the parts are bound.
            track: not used; kept for scripts written for ipyparallel.
            axis: the axis of an array to split along.
            copy: as for :meth:`push`.

        Raises:
            InvalidName: if ``key`` is no name.
            ValueError: if ``dist`` or ``axis`` does not exist. Nothing has been sent then.
        """
        _check_name(key)
        ids = self._resolve(targets)
        parts = partitioner_for(dist, axis).split(seq, len(ids))
        values = [part[0] if flatten and len(part) == 1 else part for part in parts]
        push = Push(self._copies(copy))
        payloads = [self._pack({key: value}, f"{key!r}") for value in values]
        with self._shown("scatter", sum(payload.nbytes for payload in payloads), block):
            session, blocks = self.client.session, self._blocks(block)
            # Each part is on its way while the next one is copied.
            calls = [self._send([i], push, p, awaited=blocks)[0] for i, p in zip(ids, payloads, strict=True)]
            return (value_of if blocks else AsyncResult)(session, calls, label="scatter", single=False)

    def gather(
        self, key: str, dist: str = "b", targets: Targets = None, block: bool | None = None, *, axis: int = 0
    ) -> Any:
        """Join the parts that engines hold under a name: the inverse of :meth:`scatter`, with the same options."""
        _check_expression(key)
        partitioner = partitioner_for(dist, axis)
        session, blocks, label = self.client.session, self._blocks(block), f"gather({key})"
        calls = self._send(self._resolve(targets), Pull((key,), single=True), awaited=blocks)
        if blocks:
            return partitioner.join(value_of(session, calls, label=label, single=False))
        return AsyncMapResult(session, calls, label=label, partitioner=partitioner)

    def _shown(self, label: str, nbytes: int, block: bool | None) -> AbstractContextManager[None]:
        """Shows a large transfer that the caller waits for."""
        if nbytes < LARGE_BYTES or not self._blocks(block):
            return nullcontext()
        return showing_transfer(label, nbytes)

    def snapshot(self, targets: Targets = None, block: bool | None = None) -> Any:
        """Write each namespace into its engine's journal, in place of all that led there: a recovery begins with it.

        Engines do so by themselves when a replay would take long.

        Returns:
            For each engine, the names that could not be pickled, with the reason. What made them is kept, to be run
            again.

        Raises:
            CapabilityError: (through the result) on an engine that keeps no journal.
        """
        return self._ask(targets, TakeSnapshot(), "snapshot", block)

    def clear(self, targets: Targets = None, block: bool | None = None) -> Any:
        """Empty the namespaces."""
        return self._ask(targets, Reset(), "clear", block)


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise InvalidName(name)


def _check_expression(expression: Any) -> None:
    if not isinstance(expression, str):
        raise InvalidName(expression)
    if not expression.isidentifier():
        try:
            compile(expression, "<expression>", "eval")
        except SyntaxError:
            raise InvalidName(expression) from None
