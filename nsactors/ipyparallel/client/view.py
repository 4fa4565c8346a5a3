"""Views with ipyparallel's names and meanings. Each of them uses a view of nsactors."""

from __future__ import annotations

import concurrent.futures
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from importlib.util import decode_source
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import nsactors
from nsactors.ipyparallel.arguments import check_distribution, check_flags, check_sequences, check_whole
from nsactors.ipyparallel.client.asyncresult import AsyncMapResult, AsyncResult, PartsResult
from nsactors.ipyparallel.client.chunks import call_on_items, chunk_of
from nsactors.ipyparallel.client.lazy_map import LazyMap, LazyMapIterator
from nsactors.ipyparallel.client.metadata import KEPT
from nsactors.ipyparallel.client.records import SendAgain
from nsactors.ipyparallel.client.remotefunction import (
    FunctionWithGlobals,
    ParallelFunction,
    RemoteFunction,
    name_of,
    parallel,
    remote,
)
from nsactors.ipyparallel.controller.dependency import Dependency, dependent
from nsactors.ipyparallel.serialize import unwrapped, use_cloudpickle, use_dill, use_pickle
from nsactors.ipyparallel.translation import translating
from nsactors.ipyparallel.util import interactive

if TYPE_CHECKING:
    from nsactors.ipyparallel.client.client import Client

__all__ = ["BroadcastView", "DirectView", "LoadBalancedView", "ViewExecutor"]

AUTO = "auto"
_PUSHED = "_pushed_{}"


class _Flag:
    """An attribute of a view that can also be set by keyword."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, view: Any, owner: type | None = None) -> Any:
        return self if view is None else view._flags[self._name]

    def __set__(self, view: Any, value: Any) -> None:
        view.set_flags(**{self._name: value})


class View:
    """Some engines of a client. ``core`` is the view of nsactors that carries out the calls; it has more methods.

    Args:
        client: the client.
        socket: not used.
        flags: ``targets``, ``block``, ``track``, ``label``, and those of nsactors' views.
    """

    block = _Flag()
    track = _Flag()
    targets = _Flag()
    label = _Flag()

    core: Any

    def __init__(self, client: Client | None = None, socket: Any = None, **flags: Any) -> None:
        if client is None:
            raise TypeError("a view is made by a client: rc[:], rc.load_balanced_view() or rc.broadcast_view()")
        self.client = client
        self.history: list[str] = []
        self._flags: dict[str, Any] = {"block": client.block, "track": False, "targets": None, "label": None}
        self._sent: weakref.WeakSet[AsyncResult] = weakref.WeakSet()
        self.executor = ViewExecutor(self)

    @property
    def results(self) -> Any:
        """The client's results."""
        return self.client.results

    @property
    def outstanding(self) -> set[str]:
        """Ids of this view's requests that have no reply yet."""
        return {msg_id for result in self._open_results() for msg_id in result.pending_ids()}

    def _open_results(self) -> list[AsyncResult]:
        return [result for result in self._sent if not result.done()]

    def set_flags(self, **kwargs: Any) -> Self:
        """Change flags by keyword, and return the view.

        Raises:
            KeyError: if there is no such flag; in this case no flag is changed.
            TypeError: if a flag has a wrong kind of value.
        """
        check_flags("set_flags", **{name: kwargs[name] for name in ("block", "track") if name in kwargs})
        self._change_core(kwargs)
        self._flags.update(kwargs)
        return self

    @contextmanager
    def temp_flags(self, **kwargs: Any) -> Iterator[Self]:
        """Change flags within a ``with`` block."""
        before = {name: self._flags[name] for name in kwargs if name in self._flags}
        core = self.core
        self.core = core.with_flags()
        try:
            self.set_flags(**kwargs)
            yield self
        finally:
            self.core = core
            self._flags.update(before)

    def _change_core(self, flags: Mapping[str, Any]) -> None:
        """Set the flags that nsactors also has on its view."""
        changes = {name: value for name, value in flags.items() if name not in ("block", "track")}
        if changes:  # a change of flags resolves the engines, and there may be none yet
            with translating():
                self.core.set_flags(**changes)

    def apply(self, __ipp_f: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function on the engines; return the result, or the value if the view blocks."""
        return self._apply(__ipp_f, args, kwargs, None)

    def apply_async(self, __ipp_f: Any, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call a function on the engines, and return immediately."""
        result: AsyncResult = self._apply(__ipp_f, args, kwargs, False)
        return result

    def apply_sync(self, __ipp_f: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function on the engines, and wait for its value."""
        return self._apply(__ipp_f, args, kwargs, True)

    def _apply(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], block: bool | None) -> Any:
        core, function = self.core, self._sendable(function)
        given = [unwrapped(arg) for arg in args]
        named = {name: unwrapped(value) for name, value in kwargs.items()}
        with translating():
            made = core.apply_async(function, *given, **named)
        result = AsyncResult(self.client, made, name_of(function), self.targets, owner=True)
        self._note(result, again=lambda _: core.apply_async(function, *given, **named))
        return self._finish(result, block)

    def _note(self, result: AsyncResult, again: SendAgain | None = None, **sent: Any) -> None:
        """Add a result to the histories."""
        result.noted(**{"label": self.label, **sent})
        self.history += self.client.enter(result, again)
        del self.history[:-KEPT]
        self._sent.add(result)

    def _finish(self, result: AsyncResult, block: bool | None) -> Any:
        return result.get() if (self.block if block is None else block) else result

    def _sendable(self, function: Any) -> Any:
        """Return a function in the form that nsactors takes."""
        function = unwrapped(function)
        if isinstance(function, RemoteFunction):
            function = function.func
        if isinstance(function, dependent):
            return function.core()
        return FunctionWithGlobals.of(function) if self.client.sends_globals else function

    def spin(self) -> None:
        """Do nothing: replies arrive without polling."""

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for results, by default all of this view; see ``Client.wait``."""
        return self.client.wait(self._open_results() if jobs is None else self._by_id(jobs), timeout)

    def _by_id(self, jobs: Any) -> Any:
        """Replace positions in this view's history by ids."""
        if isinstance(jobs, list | tuple | set):
            return [self._by_id(job) for job in jobs]
        return self.history[jobs] if isinstance(jobs, int) else jobs

    def abort(self, jobs: Any = None, targets: Any = None, block: bool | None = None) -> None:
        """Cancel calls that have not begun, by default all of this view."""
        chosen = list(self.outstanding) if jobs is None else jobs
        self.client.abort(chosen, self.targets if targets is None else targets, block)

    def queue_status(self, targets: Any = None, verbose: bool = False) -> Any:
        """Return each engine's requests; see ``Client.queue_status``."""
        chosen = self.targets if targets is None else targets
        return self.client.queue_status("all" if chosen is None else chosen, verbose)

    def purge_results(self, jobs: Any = [], targets: Any = []) -> None:  # noqa: B006 (never written to)
        """Drop results; see ``Client.purge_results``."""
        self.client.purge_results(jobs, self.targets if targets is None or targets == "all" else targets)

    def shutdown(
        self, targets: Any = None, restart: bool = False, hub: bool = False, block: bool | None = None
    ) -> None:
        """Stop the engines; see ``Client.shutdown``."""
        chosen = self.targets if targets is None or targets == "all" else targets
        self.client.shutdown("all" if chosen is None else chosen, restart, hub, block)

    def get_result(self, indices_or_msg_ids: Any = None, block: bool | None = None, owner: bool = False) -> AsyncResult:
        """Return the result of requests, by id or by position in this view's history."""
        wanted = self._by_id(-1 if indices_or_msg_ids is None else indices_or_msg_ids)
        return self.client.get_result(wanted, block=block, owner=owner)

    def map(self, f: Any, *sequences: Any, **kwargs: Any) -> Any:
        """Map a function over sequences; see the views of each kind."""
        raise NotImplementedError

    def map_as(self, function: ParallelFunction, sequences: Sequence[Any], options: dict[str, Any]) -> Any:
        """Map with the options of the decorator; ``ParallelFunction`` calls this."""
        raise NotImplementedError

    def call_on_parts(self, function: ParallelFunction, sequences: Sequence[Any]) -> Any:
        """Call a function on parts of sequences; ``ParallelFunction`` calls this."""
        raise NotImplementedError

    def map_async(self, f: Any, *sequences: Any, **kwargs: Any) -> Any:
        """Like :meth:`map`, without waiting."""
        if "block" in kwargs:
            raise TypeError("map_async doesn't take a `block` keyword argument.")
        return self.map(f, *sequences, **kwargs, block=False)

    def map_sync(self, f: Any, *sequences: Any, **kwargs: Any) -> Any:
        """Like :meth:`map`, and wait for the list."""
        if "block" in kwargs:
            raise TypeError("map_sync doesn't take a `block` keyword argument.")
        return self.map(f, *sequences, **kwargs, block=True)

    def imap(self, f: Any, *sequences: Any, **kwargs: Any) -> Iterator[Any]:
        """Like :meth:`map`, item by item."""
        return iter(self.map_async(f, *sequences, **kwargs))

    def remote(self, block: bool | None = None, **flags: Any) -> Callable[[Callable[..., Any]], RemoteFunction]:
        """Decorate a function so that each call runs on this view."""
        return remote(self, self.block if block is None else block, **flags)

    def parallel(
        self, dist: str = "b", block: bool | None = None, **flags: Any
    ) -> Callable[[Callable[..., Any]], ParallelFunction]:
        """Decorate a function whose arguments are sequences: each engine calls it with parts of the sequences."""
        return parallel(self, dist, self.block if block is None else block, **flags)

    def register_joblib_backend(self, name: str = "ipyparallel", make_default: bool = False) -> None:
        """Let joblib run on this view's engines.

        Args:
            name: the name of the backend.
            make_default: make this the default backend.
        """
        self.core.register_joblib_backend(name, make_default)

    def __len__(self) -> int:
        return len(self.core)

    def __repr__(self) -> str:
        targets = str(self.targets)
        return f"<{type(self).__name__} {targets if len(targets) <= 16 else f'{targets[:12]}...]'}>"


class DirectView(View):
    """A view that runs each call on all of its engines.

    Args:
        client: the client.
        socket: not used.
        targets: an id, a list of ids, or ``"all"``.
        flags: see :class:`View`.
    """

    def __init__(self, client: Client | None = None, socket: Any = None, targets: Any = None, **flags: Any) -> None:
        super().__init__(client, socket)
        with translating():
            self.core = self._make_core("all" if targets is None else targets)
        self._flags["targets"] = self.core.targets
        self.set_flags(**flags)

    def _make_core(self, targets: Any) -> nsactors.DirectView:
        return self.client.core.direct_view(targets)

    def _change_core(self, flags: Mapping[str, Any]) -> None:
        if "targets" in flags and flags["targets"] is None:
            flags = {**flags, "targets": "all"}
        super()._change_core(flags)

    def _on(self, targets: Any, label: str | None = None) -> Any:
        """Return the view of nsactors for ``targets``; without ``targets``, for this view's targets."""
        changes = {} if targets is None else {"targets": targets}
        if label is not None:
            changes["label"] = label
        with translating():
            return self.core.with_flags(**changes) if changes else self.core

    def _result(self, made: nsactors.AsyncResult, fname: str, targets: Any, **sent: Any) -> AsyncResult:
        chosen = self.targets if targets is None else targets
        result = AsyncResult(self.client, made, fname, chosen, owner=True)
        self._note(result, **sent)
        return result

    def execute(
        self, code: str, silent: bool = True, targets: Any = None, block: bool | None = None, label: str | None = None
    ) -> AsyncResult:
        """Run a cell.

        Args:
            code: Python, or IPython's syntax.
            silent: do not number the cell, nor show its last value.
            targets: engines in place of the view's targets.
            block: wait until the cell has run, and raise its error.
            label: the label of the request in records.
        """
        check_flags("execute", block=block)
        core = self._on(targets, label)
        with translating():
            # As in a notebook, a cell that fails aborts the cells queued behind it; silent cells do not.
            made = core.with_flags(stop_on_error=not silent).execute(code, silent=silent, block=False)
        sent = {"execute_input": code} if label is None else {"execute_input": code, "label": label}
        result = self._result(made, "execute", targets, **sent)
        if self.block if block is None else block:
            result.get()
        return result

    def run(
        self, filename: str, targets: Any = None, block: bool | None = None, label: str | None = None
    ) -> AsyncResult:
        """Run the file ``filename`` of this machine as one cell; see :meth:`execute`."""
        code = decode_source(Path(filename).read_bytes()) + "\n"
        return self.execute(code, targets=targets, block=block, label=label)

    def update(self, ns: dict[str, Any]) -> Any:
        """Bind names; see :meth:`push`."""
        return self.push(ns, block=self.block, track=self.track)

    def push(self, ns: dict[str, Any], targets: Any = None, block: bool | None = None, track: Any = None) -> Any:
        """Bind names on each engine.

        Args:
            ns: values by name.
            targets: engines in place of the view's targets.
            block: wait until the names are bound.
            track: not used.

        Raises:
            TypeError: if ``ns`` is not a dictionary.
        """
        check_flags("push", block=block)
        if not isinstance(ns, dict):
            raise TypeError(f"push() takes a dictionary of names and values, not {type(ns).__name__}")
        ns = {name: unwrapped(value) for name, value in ns.items()}
        core = self._on(targets)
        nested = [name for name in ns if "." in str(name)]
        plain = {_PUSHED.format(nested.index(name)) if name in nested else name: value for name, value in ns.items()}
        with translating():
            made = core.push(plain, block=False)
            if nested:  # names with a dot are attributes
                made = core.apply_async(_bind_nested, {each: _PUSHED.format(i) for i, each in enumerate(nested)})
        return self._finish(self._result(made, "_push", targets), block)

    def get(self, key_s: Any) -> Any:
        """Return the values of a name, or of several."""
        return self.pull(key_s, block=True)

    def pull(self, names: Any, targets: Any = None, block: bool | None = None) -> Any:
        """Return the values of a name or an expression, or of several, on each engine.

        Raises:
            TypeError: if a name is not text.
        """
        check_flags("pull", block=block)
        several = [] if isinstance(names, str) else names
        if not isinstance(several, list | tuple | set) or not all(isinstance(name, str) for name in several):
            raise TypeError(f"pull() takes a name or several, as text, not {names!r}")
        core = self._on(targets)
        with translating():
            made = core.pull(names if isinstance(names, str) else list(names), block=False)
        return self._finish(self._result(made, "_pull", targets), block)

    def scatter(
        self,
        key: str,
        seq: Any,
        dist: str = "b",
        flatten: bool = False,
        targets: Any = None,
        block: bool | None = None,
        track: Any = None,
    ) -> AsyncResult | None:
        """Split a sequence and bind one part per engine.

        Args:
            key: the name.
            seq: the sequence.
            dist: ``"b"`` for contiguous parts, ``"r"`` to deal items out in turn.
            flatten: bind the item itself if a part has just one.
            targets: engines in place of the view's targets.
            block: wait until the parts are bound, and return None.
            track: not used.
        """
        check_flags("scatter", block=block)
        check_distribution("scatter", dist)
        core = self._on(targets)
        with translating():
            made = core.scatter(key, seq, dist, flatten, block=False)
        result = self._result(made, "scatter", targets)
        if self.block if block is None else block:
            result.get()
            return None
        return result

    def gather(self, key: str, dist: str = "b", targets: Any = None, block: bool | None = None) -> Any:
        """Join the parts that engines hold under a name: the inverse of :meth:`scatter`."""
        check_flags("gather", block=block)
        check_distribution("gather", dist)
        core = self._on(targets)
        with translating():
            made = core.gather(key, dist, block=False)
        result = AsyncMapResult(self.client, made, None, "gather")
        self._note(result)
        return self._finish(result, block)

    def __getitem__(self, key: Any) -> Any:
        return self.get(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def clear(self, targets: Any = None, block: bool | None = None) -> Any:
        """Empty the namespaces; return None if the call waits, and a result otherwise."""
        check_flags("clear", block=block)
        core = self._on(targets)
        with translating():
            made = core.clear(block=False)
        result = self._result(made, "clear", targets)
        if self.block if block is None else block:
            result.get()
            return None
        return result

    def map(
        self,
        f: Any,
        *sequences: Any,
        block: bool | None = None,
        track: bool = False,
        return_exceptions: bool = False,
        label: str | None = None,
    ) -> Any:
        """Return ``list(map(f, *sequences))``, with one part of the sequences per engine.

        Args:
            f: called with one item of each sequence.
            sequences: at least one.
            block: wait for the list.
            track: not used.
            return_exceptions: return exceptions in place of missing items.
            label: the label of the request in records.
        """
        return self._map(f, sequences, block, label, {"return_exceptions": return_exceptions})

    def _map(self, f: Any, sequences: Sequence[Any], block: bool | None, label: str | None, options: Any) -> Any:
        check_flags("map", block=block)
        check_sequences("map", sequences)
        core, function = self.core if label is None else self.core.with_flags(label=label), self._sendable(f)
        given = [unwrapped(sequence) for sequence in sequences]
        with translating():
            made = core.map(function, *given, block=False, **options)
        exceptions = options.get("return_exceptions", False)
        ordered = options.get("ordered", True)
        result = AsyncMapResult(self.client, made, None, name_of(function), ordered, exceptions)
        self._note(result, None, **({} if label is None else {"label": label}))
        return self._finish(result, block)

    def map_as(self, function: ParallelFunction, sequences: Sequence[Any], options: dict[str, Any]) -> Any:
        """Map as the decorator says."""
        _warn_of_chunks(function)
        options |= {"dist": function.dist, "ordered": function.ordered}
        return self._map(function.func, sequences, None, None, options)

    def call_on_parts(self, function: ParallelFunction, sequences: Sequence[Any]) -> Any:
        """Call a function once per engine with the engine's parts of sequences."""
        _warn_of_chunks(function)
        with self.core.temp_flags(block=False) as core, translating():
            made = core.call_on_parts(self._sendable(function.func), sequences, dist=function.dist)
        exceptions = function.return_exceptions
        result = AsyncMapResult(self.client, made, None, name_of(function.func), function.ordered, exceptions)
        self._note(result)
        return self._finish(result, None)

    @property
    def importer(self) -> Any:
        """``sync_imports(local=True)``, for ``with view.importer:``."""
        return self.sync_imports(True)

    def sync_imports(self, local: bool = True, quiet: bool = False) -> AbstractContextManager[None]:
        """Repeat the imports of the ``with`` block on the engines, also those with ``as``.

        Args:
            local: also import in this process.
            quiet: print no messages.
        """
        # This is no generator function: the context manager records the imports of the frame that enters it.
        found: AbstractContextManager[None] = self.core.sync_imports(local, quiet)
        return found

    def use_dill(self) -> Any:
        """Let open files and locks be sent, if dill is installed; see ``serialize.use_dill``.

        Closures and lambdas can always be sent, and see the names of their engine.
        """
        self.client.sends_globals = False
        use_dill()
        return self.apply(use_dill)

    def use_cloudpickle(self) -> Any:
        """Let functions of ``__main__`` see first the client's globals, then the engine's; see :meth:`use_dill`."""
        self.client.sends_globals = True
        use_cloudpickle()
        return self.apply(use_cloudpickle)

    def use_pickle(self) -> Any:
        """Let functions see the names of their engine again; see :meth:`use_dill`."""
        self.client.sends_globals = False
        use_pickle()
        return self.apply(use_pickle)

    def activate(self, suffix: str = "") -> None:
        """Make ``%px<suffix>``, ``%autopx<suffix>`` and related magics run on this view; warn outside IPython."""
        from IPython import get_ipython

        shell = get_ipython()
        if shell is None:
            warnings.warn("The IPython parallel magics (%px, etc.) only work within IPython.", stacklevel=2)
            return
        from nsactors.ipyparallel.client.magics import ParallelMagics

        ParallelMagics(shell, self, suffix).register()


class BroadcastView(DirectView):
    """A :class:`DirectView` of many engines, called through a tree.

    ``is_coalescing`` is not used: replies always arrive in batches.
    """

    is_coalescing = False

    def _note(self, result: AsyncResult, again: SendAgain | None = None, **sent: Any) -> None:
        super()._note(result, again, is_broadcast=True, is_coalescing=self.is_coalescing, **sent)

    def _make_core(self, targets: Any) -> nsactors.DirectView:
        return self.client.core.broadcast_view(targets)


class LoadBalancedView(View):
    """A view that runs each call once, on a free engine.

    Args:
        client: the client.
        socket: not used.
        flags: the flags of :class:`View`, and ``after``, ``follow``, ``retries``, ``timeout``.
    """

    follow = _Flag()
    after = _Flag()
    timeout = _Flag()
    retries = _Flag()

    def __init__(self, client: Client | None = None, socket: Any = None, **flags: Any) -> None:
        super().__init__(client, socket)
        self._flags.update(follow=None, after=None, timeout=0.0, retries=0)
        self.lazy_maps: weakref.WeakSet[LazyMap] = weakref.WeakSet()
        targets = flags.pop("targets", None)
        with translating():
            # As in ipyparallel, the death of an engine counts as a failure of the task that it runs.
            self.core = self.client.core.load_balanced_view(targets, max_losses=0)
        self._flags["targets"] = None if self.core.targets == "all" else self.core.targets
        self.set_flags(**flags)

    def set_flags(self, **kwargs: Any) -> Self:
        """Change flags by keyword, and return the view.

        Args:
            kwargs: the flags of every view; ``after`` and ``follow``: a result, an id of a task, a list of these or a
                ``Dependency``; ``timeout``: the limit in seconds for the start of a task, 0 and None for no limit;
                ``retries``: how often a task that has failed, or whose engine has died, is tried again.

        Raises:
            KeyError: if there is no such flag.
            ValueError: if a dependency or a time limit has a wrong value.
            TypeError: if a time limit or a number of retries is not a number.
        """
        for name in ("follow", "after"):
            if name in kwargs and not _is_dependency(kwargs[name]):
                raise ValueError(f"Invalid dependency: {kwargs[name]!r}")
        timeout = kwargs.get("timeout")
        if timeout is not None and not isinstance(timeout, int | float):
            raise TypeError(f"Invalid type for timeout: {type(timeout)!r}")
        if timeout is not None and timeout < 0:
            raise ValueError(f"Invalid timeout: {timeout}")
        return super().set_flags(**kwargs)

    def _change_core(self, flags: Mapping[str, Any]) -> None:
        changed = {name: value for name, value in flags.items() if name not in ("follow", "after")}
        if "targets" in changed and changed["targets"] is None:
            changed["targets"] = "all"
        if not changed.get("timeout", True):
            changed["timeout"] = None
        if "retries" in changed:
            changed["max_losses"] = changed["retries"]
        super()._change_core(changed)

    def _ready_core(self) -> Any:
        """Return the view of nsactors, with its dependencies: the scheduler may not have known their tasks earlier."""
        needs = {name: _core_dependency(self._flags[name]) for name in ("after", "follow") if self._flags[name]}
        with translating():
            return self.core.with_flags(**needs) if needs else self.core

    def _apply(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], block: bool | None) -> Any:
        before, self.core = self.core, self._ready_core()
        try:
            return super()._apply(function, args, kwargs, block)
        finally:
            self.core = before

    def _note(self, result: AsyncResult, again: SendAgain | None = None, **sent: Any) -> None:
        result.is_balanced = True
        needs = {name: list(Dependency(self._flags[name])) for name in ("after", "follow") if self._flags[name]}
        super()._note(result, again, **needs, **sent)

    def map(
        self,
        f: Any,
        *sequences: Any,
        block: bool | None = None,
        chunksize: int = 1,
        ordered: bool = True,
        return_exceptions: bool = False,
        label: str | None = None,
    ) -> Any:
        """Return ``list(map(f, *sequences))``, run item by item on free engines.

        Args:
            f: called with one item of each sequence.
            sequences: at least one.
            block: wait for the list.
            chunksize: the number of items to send together; quick items are sent in multiples of it.
            ordered: return items in order, not as they complete.
            return_exceptions: return exceptions in place of missing items.
            label: the label of the request in records.
        """
        options = {"chunksize": chunksize, "ordered": ordered, "return_exceptions": return_exceptions}
        return self._map(f, sequences, block, label, options)

    def _map(self, f: Any, sequences: Sequence[Any], block: bool | None, label: str | None, options: Any) -> Any:
        check_flags("map", block=block)
        check_sequences("map", sequences)
        function, core = self._sendable(f), self._ready_core()
        given = [unwrapped(sequence) for sequence in sequences]
        with translating():
            made = core.map(function, *given, block=False, label=label, **options)
        exceptions = options["return_exceptions"]
        ordered, chunk = options["ordered"], options["chunksize"] or 1
        result = AsyncMapResult(self.client, made, None, name_of(function), ordered, exceptions, chunk)

        def again(msg_id: str) -> nsactors.AsyncResult:
            sent: nsactors.AsyncResult = core.apply_async(call_on_items, function, *chunk_of(msg_id, given, chunk))
            return sent

        self._note(result, again if len(made) <= KEPT else None, **({} if label is None else {"label": label}))
        return self._finish(result, block)

    def map_as(self, function: ParallelFunction, sequences: Sequence[Any], options: dict[str, Any]) -> Any:
        """Map as the decorator says."""
        options |= {"chunksize": function.chunksize, "ordered": function.ordered}
        return self._map(function.func, sequences, None, None, options)

    def call_on_parts(self, function: ParallelFunction, sequences: Sequence[Any]) -> Any:
        """Call a function with parts of sequences, of ``chunksize`` items."""
        with self._ready_core().temp_flags(block=False) as core, translating():
            made = core.call_on_parts(self._sendable(function.func), sequences, function.chunksize or 1)
        exceptions = function.return_exceptions
        result = PartsResult(self.client, made, name_of(function.func), function.ordered, exceptions)
        self._note(result)
        return self._finish(result, None)

    def imap(
        self,
        f: Any,
        *sequences: Iterable[Any],
        ordered: bool = True,
        max_outstanding: int | str = AUTO,
        return_exceptions: bool = False,
    ) -> LazyMapIterator:
        """Map a function over sequences that may be endless.

        The input is read in the caller's thread, at the call and whenever a result is taken.

        Args:
            f: called with one item of each sequence.
            sequences: at least one.
            ordered: yield results in order, not as they complete.
            max_outstanding: the limit of items that have been sent and whose results have not been taken; ``"auto"`` is
                one for each engine. With 0, the call reads and sends all input.
            return_exceptions: yield exceptions in place of missing results.
        """
        check_whole("imap", "max_outstanding", max_outstanding, others=(AUTO,))
        check_sequences("imap", sequences)
        limit = len(self) if max_outstanding == AUTO else int(max_outstanding)
        lazy = LazyMap(self, f, zip(*sequences, strict=False), limit, ordered, return_exceptions)
        results = lazy.start()
        self.lazy_maps.add(lazy)
        return LazyMapIterator(results, lazy.stop)


class ViewExecutor(concurrent.futures.Executor):
    """A view as an executor of the standard library; shutting it down leaves the engines as they are.

    Args:
        view: the view that runs the calls.
    """

    def __init__(self, view: View) -> None:
        self.view = view

    @property
    def _max_workers(self) -> int:
        # Programs read this attribute to decide how many tasks to submit.
        return len(self.view)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a function: ``view.apply_async``."""
        return self.view.apply_async(fn, *args, **kwargs)

    def map(self, func: Callable[..., Any], *iterables: Any, **kwargs: Any) -> Iterator[Any]:  # type: ignore[override]
        """Map a function, lazily: ``view.imap``. There is no ``timeout``."""
        if kwargs.pop("timeout", None) is not None:
            warnings.warn("timeout unsupported in ViewExecutor.map", stacklevel=2)
        kwargs.pop("chunksize", None)
        return self.view.imap(func, *iterables, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse further calls, and wait for those that have been submitted.

        Args:
            wait: False returns immediately.
            cancel_futures: cancel calls that have not begun.
        """
        if cancel_futures:
            self.view.abort()
        if wait:
            for lazy in getattr(self.view, "lazy_maps", ()):
                lazy.send_all()
            self.view.wait()


def _warn_of_chunks(function: ParallelFunction) -> None:
    if function.chunksize:
        warnings.warn("`chunksize` is ignored unless load balancing", UserWarning, stacklevel=4)


@interactive
def _bind_nested(names: dict[str, str]) -> None:
    """Bind names with dots to the values that their engine holds under other names, and drop these."""
    try:
        for name, held in names.items():
            exec(f"{name} = {held}", globals())
    finally:
        for held in names.values():
            del globals()[held]


def _is_dependency(value: Any) -> bool:
    if value is None or isinstance(value, str | AsyncResult | Dependency):
        return True
    return isinstance(value, list | set | tuple) and all(isinstance(each, str | AsyncResult) for each in value)


def _core_dependency(value: Any) -> nsactors.Dependency:
    return (value if isinstance(value, Dependency) else Dependency(value)).core()
