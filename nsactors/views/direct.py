"""The direct view: engines called by name."""

from __future__ import annotations

import itertools
import keyword
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsactors.core.messages import Apply, Execute, Operation, Pull, Push, Reset
from nsactors.core.partition import Block, Partitioner, RoundRobin
from nsactors.core.payload import pack
from nsactors.core.targets import Targets, is_single, resolve
from nsactors.errors import InvalidName
from nsactors.results import AsyncMapResult, AsyncResult, Call
from nsactors.views.flags import Flags
from nsactors.views.functions import ParallelFunction, RemoteFunction
from nsactors.views.importing import recorded_imports

if TYPE_CHECKING:
    from nsactors.client import Client

__all__ = ["DirectView"]


class DirectView:
    """Some engines of a cluster. What is asked of the view happens on each of them.

    A view of one engine, given by its id, gives values; any other gives lists, in the order of its targets. Calls return an
    :class:`AsyncResult`, or wait for the value if ``block`` is set.

    Args:
        client: whose engines these are.
        targets: an id, a list of ids, or ``"all"``, which is looked up at each call.
        flags: see :class:`nsactors.views.flags.Flags`.

    Example:
        >>> view = rc[:]
        >>> view["a"] = 5
        >>> view.apply_sync(lambda x: x + 1, Reference("a"))
        [6, 6, 6, 6]
    """

    def __init__(self, client: Client, targets: Targets = "all", **flags: Any) -> None:
        self.client = client
        self._flags = Flags(targets=targets, block=client.block).changed(**flags)

    @property
    def targets(self) -> Targets:
        """The engines: an id, a list of ids, or ``"all"``."""
        return self._flags.targets

    @targets.setter
    def targets(self, targets: Targets) -> None:
        self.set_flags(targets=targets)

    @property
    def block(self) -> bool:
        """Whether calls wait for their result and return it."""
        return self._flags.block

    @block.setter
    def block(self, block: bool) -> None:
        self.set_flags(block=block)

    def set_flags(self, **flags: Any) -> DirectView:
        """Change flags; the view itself is returned.

        Raises:
            UnknownFlag: if one does not exist; nothing is changed then.
            TargetError: if ``targets`` names no engines of this cluster.
        """
        changed = self._flags.changed(**flags)
        resolve(changed.targets, self.client.ids)
        self._flags = changed
        return self

    @contextmanager
    def temp_flags(self, **flags: Any) -> Iterator[DirectView]:
        """Change flags within a ``with`` block; errors as for :meth:`set_flags`."""
        before = self._flags
        self.set_flags(**flags)
        try:
            yield self
        finally:
            self._flags = before

    def __len__(self) -> int:
        return len(self._resolve(None))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.targets}>"

    def execute(
        self,
        code: str,
        silent: bool = True,
        targets: Targets = None,
        block: bool | None = None,
        label: str | None = None,
    ) -> AsyncResult:
        """Run a cell.

        Args:
            code: Python; where engines are processes, all that IPython takes: magics, ``!shell``, top-level ``await``.
            silent: do not number the cell, keep it in the histories, or show its last value. Its output is captured all
                the same.
            targets: in place of the view's own.
            block: wait until it has run, and raise what it raised.
            label: in place of ``execute`` in the history.

        Returns:
            A result of :class:`ExecuteReply` values, whatever ``block`` is.
        """
        if not isinstance(code, str):
            raise TypeError(f"code is text, not {type(code).__name__}: to call a function use apply()")
        calls = self._submit(targets, Execute(code, silent, store_history=not silent))
        result = AsyncResult(
            self.client.session,
            calls,
            label=label or self._flags.label or "execute",
            single=self._single(targets),
        )
        if self._blocks(block):
            result.get()
        return result

    def run(
        self,
        filename: str | Path,
        targets: Targets = None,
        block: bool | None = None,
        label: str | None = None,
    ) -> AsyncResult:
        """Run the file ``filename`` of this machine as one cell; see :meth:`execute`."""
        return self.execute(Path(filename).read_text() + "\n", targets=targets, block=block, label=label)

    def apply(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call ``function(*args, **kwargs)`` on each engine; every keyword goes to the function.

        Functions and classes of ``__main__`` travel by value and see the engine's names first. A :class:`Reference` anywhere
        in the arguments is replaced by what it names on the engine.

        Returns:
            An :class:`AsyncResult`, or the value if the view blocks.

        Raises:
            SerializationError: if function or arguments cannot be pickled; nothing has been sent then.
        """
        return self._call(function, args, kwargs, self.block)

    def apply_async(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """As :meth:`apply`, at once."""
        result: AsyncResult = self._call(function, args, kwargs, block=False)
        return result

    def apply_sync(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`apply`; waits for the value."""
        return self._call(function, args, kwargs, block=True)

    def remote(self, block: bool | None = None, **flags: Any) -> Callable[[Callable[..., Any]], RemoteFunction]:
        """A decorator: the function runs on this view's engines whenever it is called."""
        self._flags.changed(**flags)
        return lambda function: RemoteFunction(self, function, block, flags)

    def parallel(
        self, dist: str = "b", block: bool | None = None, **flags: Any
    ) -> Callable[[Callable[..., Any]], ParallelFunction]:
        """A decorator: called with sequences, each engine calls the function on its part of them.

        Args:
            dist: ``"b"`` for contiguous parts, ``"r"`` to deal them out in turn.
            block: wait for the joined result.
            flags: of the view, for these calls.
        """
        self._flags.changed(**flags)
        _partitioner(dist)
        return lambda function: ParallelFunction(self, function, dist, block, flags)

    @contextmanager
    def sync_imports(self, local: bool = True, quiet: bool = False) -> Iterator[None]:
        """Imports within the ``with`` block happen on the engines too, ``as`` included.

        Args:
            local: import here as well.
            quiet: do not tell.
        """
        frame = sys._getframe(2)  # past contextlib's own
        with recorded_imports(frame, local=local) as statements:
            yield
        for statement in statements:
            if not quiet:
                print(f"{statement}   # also on {len(self)} engine{'s' * (len(self) != 1)}")
            self.execute(statement, block=True)

    def map(
        self,
        function: Callable[..., Any],
        *sequences: Iterable[Any],
        block: bool | None = None,
        dist: str = "b",
        ordered: bool = True,
        return_exceptions: bool = False,
        label: str | None = None,
    ) -> Any:
        """``list(map(function, *sequences))``, one part of the sequences per engine. Stops at the shortest.

        Args:
            function: called with one item of each sequence.
            sequences: at least one; ranges and arrays are split without being unrolled.
            block: wait for the list.
            dist: ``"b"`` for contiguous parts, ``"r"`` to deal items out in turn.
            ordered: whether iterating over the result gives the items in order, or as they come.
            return_exceptions: put exceptions into the list in place of the items they prevented.
            label: in place of ``map(function)`` in the history.

        Raises:
            TypeError: without sequences.
            SerializationError: if function or items cannot be pickled; nothing has been sent then.
        """
        if not sequences:
            raise TypeError("map() needs at least one sequence")
        return self._map_parts(
            _MapPart(function, return_exceptions),
            sequences,
            label or f"map({_name(function)})",
            block=block,
            dist=dist,
            ordered=ordered,
        )

    def map_async(self, function: Callable[..., Any], *sequences: Iterable[Any], **options: Any) -> AsyncMapResult:
        """As :meth:`map`, at once."""
        result: AsyncMapResult = self.map(function, *sequences, block=False, **options)
        return result

    def map_sync(self, function: Callable[..., Any], *sequences: Iterable[Any], **options: Any) -> list[Any]:
        """As :meth:`map`; waits for the list."""
        values: list[Any] = self.map(function, *sequences, block=True, **options)
        return values

    def imap(self, function: Callable[..., Any], *sequences: Iterable[Any], **options: Any) -> Iterator[Any]:
        """As :meth:`map`; gives the items as they come."""
        return iter(self.map_async(function, *sequences, **options))

    def call_on_parts(self, function: Callable[..., Any], sequences: Sequence[Any], *, dist: str = "b") -> Any:
        """Call ``function`` once per engine with the engine's parts of ``sequences``; the results are joined."""
        return self._map_parts(function, sequences, f"parallel({_name(function)})", dist=dist)

    def push(
        self,
        ns: Mapping[str, Any],
        targets: Targets = None,
        block: bool | None = None,
        track: bool | None = None,
    ) -> Any:
        """Bind names on each engine; the values are serialised once.

        Args:
            ns: values by name.
            targets: in place of the view's own.
            block: wait until they are bound.
            track: not used; kept for scripts written for ipyparallel.

        Raises:
            TypeError: if ``ns`` is no dictionary.
            InvalidName: if a key is no name.
            SerializationError: if a value cannot be pickled. Nothing has been sent in any of these cases.
        """
        if not isinstance(ns, Mapping):
            raise TypeError(f"push() takes a dictionary of names and values, not {type(ns).__name__}")
        for name in ns:
            _check_name(name)
        return self._result(self._submit(targets, Push(), dict(ns), "the values"), "push", targets, block)

    def update(self, ns: Mapping[str, Any]) -> Any:
        """As :meth:`push`."""
        return self.push(ns)

    def pull(self, names: str | Sequence[str], targets: Targets = None, block: bool | None = None) -> Any:
        """The values of names, or of expressions, on each engine.

        Args:
            names: one name, or several, which give a list for each engine.
            targets: in place of the view's own.
            block: wait for the values.

        Raises:
            InvalidName: if a name is no expression; nothing has been sent then.
            NameError: (through the result) where a name is not bound.
        """
        single = isinstance(names, str)
        expressions = (names,) if isinstance(names, str) else tuple(names)
        for expression in expressions:
            _check_expression(expression)
        calls = self._submit(targets, Pull(expressions, single))
        return self._result(calls, f"pull({', '.join(expressions)})", targets, block)

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

        Raises:
            InvalidName: if ``key`` is no name.
            ValueError: if ``dist`` or ``axis`` does not exist. Nothing has been sent then.
        """
        _check_name(key)
        ids = self._resolve(targets)
        parts = _partitioner(dist, axis).split(seq, len(ids))
        values = [part[0] if flatten and len(part) == 1 else part for part in parts]
        payloads = [self._pack({key: value}, f"{key!r}") for value in values]
        calls = [self.client.session.submit([i], Push(), p)[0] for i, p in zip(ids, payloads, strict=True)]
        return self._finish(AsyncResult(self.client.session, calls, label="scatter"), block)

    def gather(
        self, key: str, dist: str = "b", targets: Targets = None, block: bool | None = None, *, axis: int = 0
    ) -> Any:
        """Join the parts that engines hold under a name: the inverse of :meth:`scatter`, with the same options."""
        _check_expression(key)
        calls = self._submit(targets, Pull((key,), single=True))
        partitioner = _partitioner(dist, axis)
        return self._finish(
            AsyncMapResult(self.client.session, calls, label=f"gather({key})", partitioner=partitioner), block
        )

    def clear(self, targets: Targets = None, block: bool | None = None) -> Any:
        """Empty the namespaces."""
        return self._result(self._submit(targets, Reset()), "clear", targets, block)

    def abort(self, jobs: Any = None, targets: Targets = None, block: bool | None = None) -> None:
        """Take back calls that have not started; see ``Client.abort``."""
        self.client.abort(jobs, self._resolve(targets), block)

    def interrupt(self, targets: Targets = None) -> list[int]:
        """Raise KeyboardInterrupt in what the engines run; see ``Client.interrupt``."""
        return self.client.interrupt(self._resolve(targets))

    def queue_status(self, targets: Targets = None, verbose: bool = False) -> dict[Any, Any]:
        """What each engine has to do; see ``Client.queue_status``."""
        return self.client.queue_status(self._resolve(targets), verbose)

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for results; see ``Client.wait``."""
        return self.client.wait(jobs, timeout)

    def shutdown(self, targets: Targets = None) -> None:
        """End the engines; see ``Client.shutdown``."""
        self.client.shutdown(self._resolve(targets))

    def _call(self, function: Callable[..., Any], args: Any, kwargs: dict[str, Any], block: bool) -> Any:
        if not callable(function):
            raise TypeError(f"apply() calls a function, not {function!r}")
        label = self._flags.label or f"apply({_name(function)})"
        calls = self._submit(None, Apply(label), (function, args, kwargs), f"the call of {_name(function)}")
        return self._result(calls, label, None, block)

    def _map_parts(
        self,
        function: Callable[..., Any],
        sequences: Sequence[Any],
        label: str,
        *,
        block: bool | None = None,
        dist: str = "b",
        ordered: bool = True,
    ) -> Any:
        partitioner = _partitioner(dist)
        ids = self._resolve(None)
        parts = zip(*(partitioner.split(seq, len(ids)) for seq in _of_equal_length(sequences)), strict=True)
        work = [(i, part) for i, part in zip(ids, parts, strict=True) if len(part[0])]
        payloads = [self._pack((function, part, {}), f"the call of {label}") for _, part in work]
        session = self.client.session
        calls = [session.submit([i], Apply(label), p)[0] for (i, _), p in zip(work, payloads, strict=True)]
        result = AsyncMapResult(session, calls, label=label, partitioner=partitioner, ordered=ordered)
        return self._finish(result, block)

    def _submit(self, targets: Targets, operation: Operation, value: Any = None, what: str = "") -> list[Call]:
        ids = self._resolve(targets)
        return self.client.session.submit(ids, operation, self._pack(value, what) if what else None)

    def _pack(self, value: Any, what: str) -> Any:
        return pack(value, what=what, ref_types=self.client.session.transport.ref_types)

    def _result(self, calls: list[Call], label: str, targets: Targets, block: bool | None) -> Any:
        result = AsyncResult(self.client.session, calls, label=label, single=self._single(targets))
        return self._finish(result, block)

    def _finish(self, result: AsyncResult, block: bool | None) -> Any:
        return result.get() if self._blocks(block) else result

    def _blocks(self, block: bool | None) -> bool:
        return self.block if block is None else block

    def _resolve(self, targets: Targets) -> list[int]:
        return resolve(self.targets if targets is None else targets, self.client.ids)

    def _single(self, targets: Targets) -> bool:
        return is_single(self.targets if targets is None else targets)


class _MapPart:
    """``function`` mapped over an engine's parts."""

    def __init__(self, function: Callable[..., Any], return_exceptions: bool) -> None:
        self._function = function
        self._return_exceptions = return_exceptions

    def __call__(self, *parts: Iterable[Any]) -> list[Any]:
        function = self._tolerant if self._return_exceptions else self._function
        return list(map(function, *parts))

    def _tolerant(self, *items: Any) -> Any:
        try:
            return self._function(*items)
        except Exception as error:
            return error


def _of_equal_length(sequences: Sequence[Any]) -> list[Any]:
    """The sequences, cut to the shortest; iterables without a length become lists."""
    endless_allowed = any(hasattr(seq, "__len__") for seq in sequences)
    shortest = min((len(seq) for seq in sequences if hasattr(seq, "__len__")), default=None)
    sized = [
        seq if hasattr(seq, "__len__") else list(itertools.islice(seq, shortest) if endless_allowed else seq)
        for seq in sequences
    ]
    length = min(len(seq) for seq in sized)
    return [seq if len(seq) == length else seq[:length] for seq in sized]


def _partitioner(dist: str, axis: int = 0) -> Partitioner:
    match dist:
        case "b":
            return Block(axis)
        case "r":
            return RoundRobin(axis)
        case _:
            raise ValueError(f"dist is 'b' (contiguous parts) or 'r' (dealt out in turn), not {dist!r}")


def _name(function: Any) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


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
