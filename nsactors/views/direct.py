"""Direct views, which name their engines, and the broadcast view of many engines."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import decode_source
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsactors.errors import NsactorsError, SerializationError, plural
from nsactors.inside.values import peek
from nsactors.protocol import arguments as arg
from nsactors.protocol.messages import (
    Apply,
    Execute,
    Operation,
    Pull,
    Push,
    Reference,
    Reset,
    TakeSnapshot,
    check_expression,
    check_name,
)
from nsactors.protocol.partition import Partitioner, first_of, length_of
from nsactors.protocol.process import current_shell
from nsactors.protocol.serialize import Payload, RemoteValue, pack_call
from nsactors.protocol.targets import Targets, is_single
from nsactors.protocol.tasks import MapItems
from nsactors.protocol.wire import INLINE_LIMIT_BYTES
from nsactors.results import AsyncMapResult, AsyncResult, Call, RequestOptions, receive
from nsactors.results.display.progress import showing_transfer
from nsactors.session.memory import ClusterMemory
from nsactors.views.base import EngineView
from nsactors.views.decorators import ParallelFunction, RemoteFunction, recorded_imports
from nsactors.views.executor import ViewExecutor
from nsactors.views.flags import Flags
from nsactors.views.lazy_map import LazyMapOptions, LazyMapResult, check_lazy_map, lazy_map
from nsactors.views.map_parts import (
    DISTS,
    CallChunk,
    MapPart,
    MappedFunction,
    columns_of,
    distribution_for,
    map_in_parts,
    mapped,
    name_of,
    pack_part,
    rows_of,
)
from nsactors.views.view_client import ViewClient, check_client

if TYPE_CHECKING:
    from nsactors.models.bsp import BSP
    from nsactors.mpi import World
    from nsactors.protocol.map_functions import Seed
    from nsactors.services.service import Service


class DirectView(EngineView[Flags]):
    """Some engines of a cluster. Each of them carries out every call of the view.

    A view of one engine, named by its id, gives values; any other view gives lists, in the order of its targets. Calls
    return an :class:`AsyncResult`, or wait for the value if ``block`` is set.

    Example:
        >>> view = rc[:]
        >>> view["a"] = 5
        >>> view.apply_sync(lambda x: x + 1, Reference("a"))
        [6, 6, 6, 6]

    Args:
        client: the client of the cluster.
        targets: an id, a list of ids, or ``"all"``, which is looked up at each call.
        flags: see :class:`nsactors.views.flags.Flags`.
    """

    _is_relayed = False

    def __init__(self, client: ViewClient, targets: Targets = "all", **flags: Any) -> None:
        arg.check(type(self).__name__, client=check_client(client))
        if not (isinstance(targets, str) and targets == "all"):
            client.session.resolve(targets)
        super().__init__(client, Flags(targets=targets, block=client.block).replaced(type(self).__name__, **flags))

    def execute(
        self,
        code: str,
        silent: bool = True,
        targets: Targets = None,
        block: bool | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> AsyncResult:
        """Run a cell.

        Args:
            code: Python; if engines are processes, also what IPython adds: magics, ``!shell``, ``await``.
            silent: do not number the cell, do not keep it in the histories, and do not show its last value. The
                cell's output is still captured.
            targets: engines to use in place of the view's targets.
            block: wait until the cell has run, and raise its errors.
            label: the name of the result, in place of ``execute``.
            timeout: seconds after which the cell is interrupted and fails with ``TimeLimitExceeded``.

        Returns:
            A result whose values are :class:`ExecuteReply`, also if ``block`` is set.
        """
        arg.check(
            "execute",
            code=arg.instance(code, str, "text (apply() calls a function)"),
            silent=arg.flag(silent),
            block=arg.flag(block, or_none=True),
            label=arg.text(label, or_none=True),
            timeout=arg.seconds(timeout),
        )
        operation = Execute(code, bool(silent), store_history=not silent)
        label = label or self._flags.label or "execute"
        result: AsyncResult = self._ask(targets, operation, label, block, timeout=timeout, as_result=True)
        return result

    def run(
        self, filename: str | Path, targets: Targets = None, block: bool | None = None, label: str | None = None
    ) -> AsyncResult:
        """Run the file ``filename`` of this machine as one cell; see :meth:`execute`."""
        arg.check(
            "run",
            filename=arg.path(filename),
            block=arg.flag(block, or_none=True),
            label=arg.text(label, or_none=True),
        )
        self._resolve(targets)  # first, so that wrong targets raise before the file is read
        code = decode_source(Path(filename).read_bytes()) + "\n"
        return self.execute(code, targets=targets, block=block, label=label)

    def apply(self, function: Callable[..., Any] | Reference, /, *args: Any, **kwargs: Any) -> Any:
        """Call ``function(*args, **kwargs)`` on each engine; every keyword goes to the function.

        Functions and classes of ``__main__`` travel by value and see the engine's names first. A :class:`Reference`
        anywhere in the arguments is replaced by the engine's object of that name, a :class:`RemoteValue` by its value.
        Arrays of more than 1 MiB are read-only, in the arguments that the function gets and in the value that the
        caller gets. With ``view.with_flags(copy=True).apply(...)``, both of them get writable copies.

        Returns:
            An :class:`AsyncResult`, or the value if the view blocks.

        Raises:
            SerializationError: if function or arguments cannot be pickled; nothing has been sent then.
        """
        return self._call(function, args, kwargs, self.block)

    def apply_async(self, function: Callable[..., Any] | Reference, /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Like :meth:`apply`, but return the result without waiting."""
        result: AsyncResult = self._call(function, args, kwargs, block=False)
        return result

    def apply_sync(self, function: Callable[..., Any] | Reference, /, *args: Any, **kwargs: Any) -> Any:
        """Like :meth:`apply`, but wait for the value."""
        return self._call(function, args, kwargs, block=True)

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
            targets: engines to use in place of the view's targets.
            block: wait until they are bound.
            track: has no effect; accepted for scripts written for ipyparallel.
            copy: bind writable arrays; otherwise, arrays of more than 1 MiB are read-only views of one copy per
                machine.

        Raises:
            InvalidName: if a key is not a name; nothing has been sent then.
            SerializationError: if a value cannot be pickled; nothing has been sent then.
        """
        arg.check(
            "push",
            ns=arg.mapping(ns, "a dictionary of names and values"),
            block=arg.flag(block, or_none=True),
            track=arg.flag(track, or_none=True),
            copy=arg.flag(copy, or_none=True),
        )
        for name in ns:
            check_name(name, "push(ns)")
        payload = self._pack_names(dict(ns), "the values")
        with showing_transfer("push", payload.nbytes):
            return self._ask(targets, Push(self._copies(copy)), "push", block, payload)

    def update(self, ns: Mapping[str, Any]) -> Any:
        """Do the same as :meth:`push`."""
        return self.push(ns)

    def pull(
        self,
        names: str | Iterable[str],
        targets: Targets = None,
        block: bool | None = None,
        *,
        as_ref: bool = False,
        copy: bool | None = None,
    ) -> Any:
        """Return the values of names, or of expressions, on each engine.

        Args:
            names: one name, or several names, which give a list for each engine.
            targets: engines to use in place of the view's targets.
            block: wait for the values.
            as_ref: leave each value on its engine, and give a :class:`RemoteValue` in its place, which can be pushed to
                other engines or passed to calls to them.
            copy: give writable arrays; otherwise, arrays of more than 1 MiB are read-only views.

        Raises:
            InvalidName: if a name is not an expression; nothing has been sent then.
            NameError: (through the result) where a name is not bound.
        """
        arg.check(
            "pull",
            names=arg.iterable(names, "a name, or a sequence of names"),
            block=arg.flag(block, or_none=True),
            as_ref=arg.flag(as_ref),
            copy=arg.flag(copy, or_none=True),
        )
        single = isinstance(names, str)
        expressions = (names,) if isinstance(names, str) else tuple(names)
        for expression in expressions:
            check_expression(expression, "pull(names)")
        label = f"pull({', '.join(expressions)})"
        return self._ask(targets, Pull(expressions, single, as_ref), label, block, copies=copy)

    def get(self, names: str | Iterable[str]) -> Any:
        """Like :meth:`pull`, but wait for the values."""
        return self.pull(names, block=True)

    def __getitem__(self, name: str | Iterable[str]) -> Any:
        return self.get(name)

    def __setitem__(self, name: str, value: Any) -> None:
        check_name(name, "view[name] = value")
        self.push({name: value})

    def scatter(
        self,
        key: str,
        seq: Any,
        dist: str | Partitioner = "b",
        flatten: bool = False,
        targets: Targets = None,
        block: bool | None = None,
        track: bool | None = None,
        *,
        axis: int = 0,
        copy: bool | None = None,
    ) -> Any:
        """Split ``seq`` and bind one part per engine, in the order of the targets.

        Parts differ in length by at most one; the first engines take the extra items. Parts are of the type of ``seq``,
        and :meth:`gather` joins them again. Data frames, tables and sparse matrices are split by rows.

        Args:
            key: the name to bind.
            seq: a sequence, an array of any shape, a table, or another iterable, which is converted to a list.
            dist: ``"b"`` for contiguous parts, ``"r"`` to deal items out in turn, or a partitioner, which decides which
                items each engine gets; see :class:`nsactors.Partitioner`.
            flatten: if a part has only one item, bind the item itself.
            targets: engines to use in place of the view's targets.
            block: wait until the parts are bound.
            track: has no effect; accepted for scripts written for ipyparallel.
            axis: the axis of an array, data frame or sparse matrix to split along.
            copy: see :meth:`push`.

        Raises:
            InvalidName: if ``key`` is not a name.
            WrongType: if ``seq`` cannot be split into parts of its type, such as a dictionary or a set.
            ValueError: if ``dist`` or ``axis`` does not exist, or a partitioner does not put each item into one part.
                In this case, and if the partitioner itself raises an error, nothing has been sent.
        """
        arg.check(
            "scatter",
            key=arg.text(key),
            seq=arg.iterable(seq) or arg.splittable(seq),
            dist=arg.distribution(dist, DISTS),
            flatten=arg.flag(flatten),
            block=arg.flag(block, or_none=True),
            track=arg.flag(track, or_none=True),
            axis=arg.whole(axis),
            copy=arg.flag(copy, or_none=True),
        )
        check_name(key, "scatter(key)")
        ids = self._resolve(targets)
        parts = distribution_for("scatter", dist, axis).split(seq, len(ids))
        values = [first_of(part) if flatten and length_of(part) == 1 else part for part in parts]
        push = Push(self._copies(copy))
        payloads = [self._pack_names({key: value}, f"{key!r}") for value in values]
        with showing_transfer("scatter", sum(payload.nbytes for payload in payloads)):
            session, blocks = self._session, self._blocks(block)
            # Send each part before the next one is copied, so that it travels during the copying.
            calls = [self._send([i], push, p, awaited=blocks)[0] for i, p in zip(ids, payloads, strict=True)]
            return (receive if blocks else AsyncResult)(session, calls, label="scatter", single=False)

    def gather(
        self,
        key: str,
        dist: str | Partitioner = "b",
        targets: Targets = None,
        block: bool | None = None,
        *,
        axis: int = 0,
        copy: bool | None = None,
    ) -> Any:
        """Join the parts that engines hold under a name: the inverse of :meth:`scatter`, with the same options.

        If ``dist`` is the partitioner of the scatter, items come back to their places; the parts must have the lengths
        that the partitioner gives them. Joined arrays of NumPy are writable; with ``copy``, parts of other types are
        writable too.
        """
        arg.check(
            "gather",
            key=arg.text(key),
            dist=arg.distribution(dist, DISTS),
            block=arg.flag(block, or_none=True),
            axis=arg.whole(axis),
            copy=arg.flag(copy, or_none=True),
        )
        check_expression(key, "gather(key)")
        partitioner = distribution_for("gather", dist, axis)
        session, blocks, label = self._session, self._blocks(block), f"gather({key})"
        calls = self._send(self._resolve(targets), Pull((key,), single=True), awaited=blocks, copies=copy)
        if blocks:
            return partitioner.join(receive(session, calls, label=label, single=False))
        return AsyncMapResult(session, calls, label=label, partitioner=partitioner)

    def snapshot(self, targets: Targets = None, block: bool | None = None) -> Any:
        """Save each namespace in its engine's journal, in place of earlier requests; a recovery then begins with it.

        Engines take snapshots by themselves when a replay would take long. A snapshot counts only after another process
        has loaded it.

        Returns:
            For each engine, the names that cannot be pickled or loaded, with the reason. The requests that made them
            are kept, and run again in a recovery.

        Raises:
            CapabilityError: (through the result) on an engine that keeps no journal.
            SnapshotUnproved: (through the result) if no process could be started to load the snapshot; the journal then
                continues without it.
        """
        arg.check("snapshot", block=arg.flag(block, or_none=True))
        return self._ask(targets, TakeSnapshot(), "snapshot", block)

    def clear(self, targets: Targets = None, block: bool | None = None) -> Any:
        """Empty the namespaces."""
        arg.check("clear", block=arg.flag(block, or_none=True))
        return self._ask(targets, Reset(), "clear", block)

    def map(
        self,
        function: Callable[..., Any],
        *sequences: Iterable[Any],
        block: bool | None = None,
        dist: str | Partitioner = "b",
        ordered: bool = True,
        return_exceptions: bool = False,
        label: str | None = None,
        copy: bool | None = None,
        kwargs: Mapping[str, Any] | None = None,
        seed: Seed | None = None,
        **keywords: Any,
    ) -> Any:
        """Compute ``list(map(function, *sequences))``, one part of the sequences per engine.

        Args:
            function: called with one item of each sequence.
            sequences: at least one; the map ends with the shortest. Ranges and arrays are split without making lists.
            block: wait for the list.
            dist: ``"b"`` for contiguous parts, ``"r"`` to deal items out in turn, or a partitioner, which decides which
                items each engine gets; see :class:`nsactors.Partitioner`.
            ordered: whether iteration over the result gives values in the order of the items; otherwise, it gives each
                value when it arrives.
            return_exceptions: put exceptions into the list in place of the values that they prevented.
            label: the name of the map in the history, in place of ``map(function)``.
            copy: let the function and the caller write to the arrays that they get, also to arrays of more than 1 MiB.
                If the items are parts of an array, the size of a single item counts, even if many are sent together.
            kwargs: arguments of ``function`` by name, the same for all items; names of options are allowed.
            seed: give each item random numbers of its own, the same on any number of engines: the numbers of NumPy's
                ``SeedSequence(seed).spawn(n)[i]`` for item i. A function with a parameter ``rng`` gets a generator;
                for another function, ``random``, ``numpy.random`` and torch are seeded during its calls. The seed is a
                whole number or several, a ``SeedSequence``, a ``Generator`` (whose next map has another seed), or True
                for a new seed, which is the result's attribute ``seed``.
            keywords: further arguments like ``kwargs``: names that are no options, and that the function's signature
                accepts.

        Raises:
            TypeError: without sequences.
            UnknownOption: if a keyword is neither an option nor an argument of the function.
            CapabilityError: if there is a seed, engines are threads, and the function has no parameter ``rng``. This
                and ``UnknownOption`` are raised before anything is sent.
            SerializationError: if function or items cannot be pickled; nothing has been sent then.
        """
        if not sequences:
            raise TypeError("map() needs at least one sequence")
        arg.check(
            "map",
            sequences=arg.iterables(sequences),
            block=arg.flag(block, or_none=True),
            dist=arg.distribution(dist, DISTS),
            ordered=arg.flag(ordered),
            return_exceptions=arg.flag(return_exceptions),
            label=arg.text(label, or_none=True),
            copy=arg.flag(copy, or_none=True),
        )
        what = mapped(self.map, function, sequences, kwargs, keywords, seed, self._session)
        label = label or self._flags.label or f"map({what.name})"
        part = MapPart(self._stored_if_large(what, label), label)
        result = map_in_parts(
            self._session,
            self._send,
            self._resolve(None),
            part,
            what.columns(columns_of(sequences)),
            label,
            dist=dist,
            in_pieces=dist == "b",
            ordered=ordered,
            return_exceptions=return_exceptions,
            copies=self._copies(copy),
            seed=what.seed,
        )
        return result.get() if self._blocks(block) else result

    def imap(
        self,
        function: Callable[..., Any],
        *iterables: Iterable[Any],
        ordered: bool = True,
        chunksize: int | None = None,
        max_outstanding: int | str | None = None,
        return_exceptions: bool = False,
        label: str | None = None,
        copy: bool | None = None,
        kwargs: Mapping[str, Any] | None = None,
        seed: Seed | None = None,
        **keywords: Any,
    ) -> LazyMapResult:
        """Compute ``map(function, *iterables)``, a few chunks ahead of the loop over the results.

        The map begins immediately. The input may be endless; the caller's thread reads more of it only when results are
        taken. If the view's targets are ``"all"``, engines that join during the map get their share. Closing the
        iterator, or leaving the loop over it, cancels the chunks that have not begun.

        Args:
            function: called with one item of each iterable.
            iterables: at least one; the map ends with the shortest.
            ordered: give results in the order of the items; otherwise, give each result when it arrives.
            chunksize: the size of a chunk; the default is as many items as can be read and computed in about 20 ms.
            max_outstanding: the largest number of chunks that have been read and whose results have not been taken; the
                default, also written ``"auto"``, is four per engine.
            return_exceptions: give exceptions in place of the results that they prevented. Otherwise, the first
                exception is raised after the results of the items before it, and ends the iterator.
            label: the name of the map in the history, in place of ``map(function)``.
            copy: see :meth:`map`, as for ``kwargs``, ``seed`` and other ``keywords``.
            kwargs: arguments of ``function`` by name.
            seed: the seed of the items' random numbers; the iterator's ``seed`` gives the same numbers again.
            keywords: arguments of ``function`` by name.

        Raises:
            TypeError: without iterables.
            UnknownOption: if a keyword is neither an option nor an argument of the function.
            CapabilityError: if there is a seed, engines are threads, and the function has no parameter ``rng``. This
                and ``UnknownOption`` are raised before anything is sent.
            ValueError: if a number is less than 1.
            SerializationError: if function or items cannot be pickled; this method raises it if nothing has been sent.
        """
        arg.check(
            "imap",
            label=arg.text(label, or_none=True),
            copy=arg.flag(copy, or_none=True),
        )
        options = LazyMapOptions(ordered, chunksize, max_outstanding, return_exceptions)
        check_lazy_map(iterables, options)
        what = mapped(self.imap, function, iterables, kwargs, keywords, seed, self._session)
        label = label or self._flags.label or f"map({what.name})"
        part = MapPart(self._stored_if_large(what, label), label)
        engine_ids = self._engines_for_chunks()
        operation = Apply(label, self._copies(copy))
        seeded, sent = what.seeds is not None, 0
        turns: dict[int, int] = {}  # the first item of the last chunk of each engine

        def send(columns: tuple[Sequence[Any], ...], on_their_way: Sequence[Call]) -> CallChunk:
            nonlocal sent
            busy = Counter(call.engine_id for call in on_their_way)
            # Among equally busy engines (all may have replied by now), take the one whose last chunk is the oldest.
            engine_id = min(engine_ids(), key=lambda i: (busy[i], turns.get(i, -1)))
            turns[engine_id] = sent
            items = MapItems(range(sent, sent + len(columns[0])), return_exceptions, lazily=True)
            try:
                payload = pack_part(self._session.ref_types, part, columns, items, engine_id, label, seeded=seeded)
            except SerializationError:
                sent += len(columns[0]) == 1  # otherwise, the parts of the chunk are sent next
                raise
            (call,) = self._send([engine_id], operation, payload, items=items, copies=operation.copy)
            sent += len(columns[0])
            return CallChunk(call, len(columns[0]))

        return lazy_map(
            self._session,
            send,
            lambda: len(engine_ids()),
            what.iterables(iterables),
            options,
            what.seed,
        )

    def call_on_parts(self, function: Callable[..., Any], sequences: Sequence[Any], *, dist: str = "b") -> Any:
        """Call ``function`` once per engine with the engine's parts of ``sequences``; the results are joined."""
        arg.check(
            "call_on_parts",
            function=arg.function(function),
            sequences=arg.iterables(sequences) or arg.splittable(*sequences),
            dist=arg.choice(dist, DISTS),
        )
        what = MappedFunction(function, name_of(function))
        label = self._flags.label or f"parallel({what.name})"
        function, ids = self._stored_if_large(what, label), self._resolve(None)
        copies = self._flags.copy
        result = map_in_parts(
            self._session, self._send, ids, function, rows_of(sequences), label, dist=dist, copies=copies
        )
        return result.get() if self._flags.block else result

    def remote(self, block: bool | None = None, **flags: Any) -> Callable[[Callable[..., Any]], RemoteFunction]:
        """Return a decorator: the function runs on this view's engines whenever it is called."""
        arg.check("remote", block=arg.flag(block, or_none=True))
        self._flags_with("remote", flags)
        return lambda function: RemoteFunction(self, function, block, flags)

    def parallel(
        self, dist: str = "b", block: bool | None = None, **flags: Any
    ) -> Callable[[Callable[..., Any]], ParallelFunction]:
        """Return a decorator: each engine calls the function with its parts of the sequences that are passed.

        Args:
            dist: ``"b"`` for contiguous parts, ``"r"`` to deal items out in turn.
            block: wait for the joined result.
            flags: flags of the view, for these calls.
        """
        arg.check("parallel", dist=arg.choice(dist, DISTS), block=arg.flag(block, or_none=True))
        self._flags_with("parallel", flags)
        return lambda function: ParallelFunction(self, function, dist, block, flags)

    @property
    def executor(self) -> ViewExecutor:
        """A ``concurrent.futures.Executor`` that runs each call on a free engine of this view."""
        return self._client.executor(self.targets)

    def register_joblib_backend(self, name: str = "nsactors", make_default: bool = False) -> None:
        """Let joblib run on these engines; see ``LoadBalancedView.register_joblib_backend``."""
        self._client.load_balanced_view(self.targets).register_joblib_backend(name, make_default)

    @contextmanager
    def sync_imports(self, local: bool = True, quiet: bool = False) -> Iterator[None]:
        """Repeat the imports of the ``with`` block on the engines, including those with ``as``.

        Args:
            local: also import in this process.
            quiet: print nothing.
        """
        arg.check("sync_imports", local=arg.flag(local), quiet=arg.flag(quiet))
        frame = sys._getframe(2)  # past contextlib's own
        with recorded_imports(frame, local=local) as statements:
            yield
        for statement in statements:
            if not quiet:
                print(f"{statement}   # also on {len(self)} {plural('engine', len(self))}")
            self.execute(statement, block=True)

    def mpi(self, timeout: float = 60.0, *, launcher: str | None = None) -> World:
        """Make the engines one MPI world: ``from mpi4py import MPI`` then gives each its rank, in the view's order.

        Args:
            timeout: the time limit in seconds.
            launcher: the command that starts ranks of the site's MPI, such as ``"srun --mpi=pmix"``; MPICH needs none.

        Raises:
            MpiError: if the engines cannot form a world; see :class:`nsactors.mpi.World` for this and other errors.
        """
        from nsactors.mpi import World

        return World(self, timeout=timeout, launcher=launcher)

    def communicator(self, name: str = "comm") -> Service:
        """Bind a communicator on each engine, with mpi4py's lower-case methods; ranks are in the order of the view.

        Args:
            name: the name to bind.

        Returns:
            The service that carries the messages; see ``nsactors.models.communicator``.

        Example:
            >>> rc[:].communicator()
            >>> %px print(comm.rank, comm.allreduce(comm.rank))
        """
        from nsactors.models.communicator import communicators

        return communicators(self, name)

    def bsp(self, name: str = "bsp") -> BSP:
        """Make the engines the processes of a bulk-synchronous parallel machine; see ``nsactors.models.bsp``.

        Args:
            name: the name that is bound, on each engine, to its process.
        """
        from nsactors.models.bsp import BSP

        return BSP(self, name)

    def activate(self, suffix: str = "") -> None:
        """Let ``%px<suffix>``, ``%autopx<suffix>`` and the other magics run on this view.

        Example:
            >>> rc[::2].activate("_even")
            >>> %px_even rank = 0

        Raises:
            NsactorsError: outside IPython.
        """
        arg.check("activate", suffix=arg.text(suffix))
        shell = current_shell()
        if shell is None:
            raise NsactorsError(
                "activate() adds magics such as %px to IPython, and this is plain Python: use execute()"
            )
        # IPython loads the extension by name, because views must not import magics, which are built on views.
        shell.extension_manager.load_extension("nsactors")
        shell.magics_manager.registry["nsactors"].activate(self, suffix)

    def abort(self, jobs: Any = None, targets: Targets = None, block: bool | None = None) -> None:
        """Cancel calls that have not started; see ``Client.abort``."""
        self._client.abort(jobs, self._resolve(targets), block)

    def interrupt(self, targets: Targets = None) -> list[int]:
        """Raise KeyboardInterrupt in the code that the engines run; see ``Client.interrupt``."""
        return self._client.interrupt(self._resolve(targets))

    def peek(self, expression: str, *, timeout: float = 2.0) -> Any:
        """Return the value of a name or an expression immediately, while the engines run code.

        Another thread of the engine evaluates the expression, while values may change. A large array may be half
        written, and a loop over a dictionary fails if the dictionary grows. The expression should change nothing,
        because the journal does not record it. Text that the expression prints is printed here.

        Args:
            expression: a name or an expression.
            timeout: seconds after which the peek is given up.

        Returns:
            The value; for a view of several engines a list, in the order of its targets.

        Raises:
            InvalidName: if ``expression`` is neither a name nor an expression; nothing has been sent then.
            RemoteError: if the evaluation fails.
            TimeLimitExceeded: if the evaluation takes too long.
            EngineSilent: if the engine does not reply, because C code holds its interpreter.
            CompositeError: with these errors, for a view of several engines.

        Example:
            >>> running = view.execute("for x in range(10**9): table.append(x)")
            >>> rc[0].peek("len(table)")
            95786
        """
        arg.check("peek", timeout=arg.seconds(timeout, or_none=False))
        check_expression(expression, "peek(expression)")
        targets = self.targets
        ids = self._session.resolve(targets)
        values = peek(self._session, ids, expression, arg.plain(timeout))
        return values[ids[0]] if is_single(targets) else [values[i] for i in ids]

    def memory(self, targets: Targets = None, *, top: int = 10) -> ClusterMemory:
        """Return the contents of the engines' memory; see ``Client.memory``."""
        return self._client.memory(self._resolve(targets), top=top)

    def _call(self, function: Callable[..., Any] | Reference, args: Any, kwargs: dict[str, Any], block: bool) -> Any:
        arg.check("apply", function=arg.function(function))
        name = name_of(function)
        payload = pack_call(function, args, kwargs, name=name, ref_types=self._session.ref_types)
        self._warn_of_data(payload, function, args, kwargs)
        label = self._flags.label or f"apply({name})"
        return self._ask(None, Apply(label, self._flags.copy), label, block, payload)

    def _ask(
        self,
        targets: Targets,
        operation: Operation,
        label: str,
        block: bool | None,
        payload: Payload | None = None,
        copies: bool | None = None,
        timeout: float | None = None,
        *,
        as_result: bool = False,
    ) -> Any:
        """Submit an operation; return its value if the view blocks and not ``as_result``, otherwise its result."""
        session, flags = self._session, self._flags
        chosen = flags.targets if targets is None else targets
        blocks = flags.block if block is None else block
        calls = self._send(session.resolve(chosen), operation, payload, timeout, awaited=blocks, copies=copies)
        if blocks:
            return receive(session, calls, label=label, single=is_single(chosen), as_result=as_result)
        return AsyncResult(session, calls, label=label, single=is_single(chosen))

    def _send(
        self,
        ids: list[int],
        operation: Operation,
        payload: Payload | None = None,
        timeout: float | None = None,
        *,
        awaited: bool = False,
        items: MapItems | None = None,
        copies: bool | None = None,
    ) -> list[Call]:
        """Submit an operation with this view's flags.

        Args:
            ids: the engines.
            operation: the operation.
            payload: its data.
            timeout: the time limit in place of the view's ``timeout``.
            awaited: whether the caller waits for it.
            items: the items of a map that the operation carries.
            copies: for arrays in its results, in place of the view's ``copy``.
        """
        flags, session = self._flags, self._session
        options = RequestOptions(
            flags.timeout if timeout is None else timeout,
            flags.stop_on_error,
            flags.copy if copies is None else copies,
            flags.journal,
            flags.breakpoints,
            session.output_goes(flags.output),
            items=items,
        )
        # Pulls are not relayed, because their replies are large. Data that differs between engines is not relayed
        # either, because it is sent to one engine at a time.
        relayed = self._is_relayed and len(ids) > 1 and not isinstance(operation, Pull)
        if payload is not None and payload.buffers and isinstance(operation, Apply):  # push() shows its own transfer
            with showing_transfer(operation.label, payload.nbytes):
                return session.submit(ids, operation, payload, options, awaited=awaited, relayed=relayed)
        return session.submit(ids, operation, payload, options, awaited=awaited, relayed=relayed)

    def _stored_if_large(self, what: MappedFunction, label: str) -> Any:
        """Return the function of a map; for a large function a reference, because every part carries the function."""
        function = what.travelling
        payload = self._pack(function, f"the call to {label}")
        if payload.nbytes <= INLINE_LIMIT_BYTES:
            return function
        self._warn_of_data(payload, what.given, (), what.keywords)
        stored = self._session.store(payload)
        return RemoteValue(stored, what.name, None, label, type(what.given).__name__, payload.nbytes)

    def _engines_for_chunks(self) -> Callable[[], list[int]]:
        """Return a function that returns the engines for the next chunk; for ``"all"``, new engines are included."""
        first = self._resolve(None)
        if self.targets == "all":
            return lambda: self._resolve(None)

        def those_left() -> list[int]:
            ids = set(self.client.ids)
            return [engine_id for engine_id in first if engine_id in ids] or first  # without any engine, the call fails

        return those_left


class BroadcastView(DirectView):
    """A :class:`DirectView` for many engines: relays pass its calls on, and bring the answers back in batches.

    Calls to many engines cost this process less than with a direct view; calls to few engines take a little longer.
    Calls of both kinds of view reach an engine in the order in which they were made. Data that differs between engines,
    or that returns in large replies (scatter, pull, gather), is not relayed.

    Example:
        >>> everybody = rc.broadcast_view()
        >>> everybody.apply_sync(os.getpid)
        [4242, 4243, 4244, 4245]
    """

    _is_relayed = True
