"""The direct view: engines called by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsactors.client.memory import ClusterMemory
from nsactors.core.messages import Apply, Execute, Reference
from nsactors.core.payload import pack_call
from nsactors.core.remote_value import RemoteValue
from nsactors.core.targets import Targets
from nsactors.results import AsyncResult, result_of
from nsactors.views.activation import activate
from nsactors.views.executor import ViewExecutor
from nsactors.views.functions import ParallelFunction, RemoteFunction
from nsactors.views.importing import recorded_imports
from nsactors.views.mapping import name_of, partitioner_for
from nsactors.views.maps import MapView

if TYPE_CHECKING:
    from nsactors.models.bsp import BSP
    from nsactors.mpi import World
    from nsactors.transport.hosting import Service

__all__ = ["DirectView"]


class DirectView(MapView):
    """Some engines of a cluster. What is asked of the view happens on each of them.

    A view of one engine, given by its id, gives values; any other gives lists, in the order of its targets. Calls
    return an :class:`AsyncResult`, or wait for the value if ``block`` is set.

    Example:
        >>> view = rc[:]
        >>> view["a"] = 5
        >>> view.apply_sync(lambda x: x + 1, Reference("a"))
        [6, 6, 6, 6]
    """

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
            code: Python; where engines are processes, all that IPython takes: magics, ``!shell``, top-level ``await``.
            silent: do not number the cell, keep it in the histories, or show its last value. Its output is captured all
                the same.
            targets: in place of the view's own.
            block: wait until it has run, and raise what it raised.
            label: what its result is called, in place of ``execute``.
            timeout: seconds after which it is interrupted and fails with ``TimeLimitExceeded``.

        Returns:
            A result of :class:`ExecuteReply` values, whatever ``block`` is.
        """
        if not isinstance(code, str):
            raise TypeError(f"code is text, not {type(code).__name__}: to call a function use apply()")
        operation = Execute(code, silent, store_history=not silent)
        ids, single, session = self._resolve(targets), self._single(targets), self.client.session
        blocks, label = self._blocks(block), label or self._flags.label or "execute"
        calls = self._send(ids, operation, timeout=timeout, awaited=blocks)
        return (result_of if blocks else AsyncResult)(session, calls, label=label, single=single)

    def run(
        self,
        filename: str | Path,
        targets: Targets = None,
        block: bool | None = None,
        label: str | None = None,
    ) -> AsyncResult:
        """Run the file ``filename`` of this machine as one cell; see :meth:`execute`."""
        return self.execute(Path(filename).read_text() + "\n", targets=targets, block=block, label=label)

    def apply(self, function: Callable[..., Any] | Reference, /, *args: Any, **kwargs: Any) -> Any:
        """Call ``function(*args, **kwargs)`` on each engine; every keyword goes to the function.

        Functions and classes of ``__main__`` travel by value and see the engine's names first. A :class:`Reference`
        anywhere in the arguments is replaced by what it names on the engine, a :class:`RemoteValue` by its value.

        Returns:
            An :class:`AsyncResult`, or the value if the view blocks.

        Raises:
            SerializationError: if function or arguments cannot be pickled; nothing has been sent then.
        """
        return self._call(function, args, kwargs, self.block)

    def apply_async(self, function: Callable[..., Any] | Reference, /, *args: Any, **kwargs: Any) -> AsyncResult:
        """As :meth:`apply`, at once."""
        result: AsyncResult = self._call(function, args, kwargs, block=False)
        return result

    def apply_sync(self, function: Callable[..., Any] | Reference, /, *args: Any, **kwargs: Any) -> Any:
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
        partitioner_for(dist)
        return lambda function: ParallelFunction(self, function, dist, block, flags)

    @property
    def executor(self) -> ViewExecutor:
        """A ``concurrent.futures.Executor`` over these engines: a call goes to whichever of them is free."""
        return self.client.executor(self.targets)

    def register_joblib_backend(self, name: str = "nsactors", make_default: bool = False) -> None:
        """Let joblib run on these engines; see ``LoadBalancedView.register_joblib_backend``."""
        self.client.load_balanced_view(self.targets).register_joblib_backend(name, make_default)

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

    def mpi(self, timeout: float = 60.0) -> World:
        """Make the engines one MPI world: ``from mpi4py import MPI`` gives each its rank, in the order of the view.

        Args:
            timeout: seconds that it may take.

        Raises:
            MpiError: if that cannot be done; see :class:`nsactors.mpi.World` for this and other errors.
        """
        from nsactors.mpi import World

        return World(self, timeout=timeout)

    def communicator(self, name: str = "comm") -> Service:
        """Bind a communicator on each engine, with mpi4py's lower-case methods; ranks are in the order of the view.

        Args:
            name: to bind.

        Returns:
            What carries the messages; see ``nsactors.models.communicator``.

        Example:
            >>> rc[:].communicator()
            >>> %px print(comm.rank, comm.allreduce(comm.rank))
        """
        from nsactors.models.communicator import communicators

        return communicators(self, name)

    def bsp(self, name: str = "bsp") -> BSP:
        """Make the engines the processes of a bulk-synchronous parallel machine; see ``nsactors.models.bsp``.

        Args:
            name: what each engine's own process is bound to.
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
        activate(self, suffix)

    def abort(self, jobs: Any = None, targets: Targets = None, block: bool | None = None) -> None:
        """Take back calls that have not started; see ``Client.abort``."""
        self.client.abort(jobs, self._resolve(targets), block)

    def interrupt(self, targets: Targets = None) -> list[int]:
        """Raise KeyboardInterrupt in what the engines run; see ``Client.interrupt``."""
        return self.client.interrupt(self._resolve(targets))

    def memory(self, targets: Targets = None, *, top: int = 10) -> ClusterMemory:
        """What the engines hold; see ``Client.memory``."""
        return self.client.memory(self._resolve(targets), top=top)

    def _call(self, function: Callable[..., Any] | Reference, args: Any, kwargs: dict[str, Any], block: bool) -> Any:
        if not callable(function) and not isinstance(function, Reference | RemoteValue):
            raise TypeError(f"apply() calls a function, not {function!r}")
        label = self._flags.label or f"apply({name_of(function)})"
        payload = pack_call(
            function,
            args,
            kwargs,
            what=f"the call of {name_of(function)}",
            ref_types=self.client.session.transport.ref_types,
        )
        self._warn_of_data(payload, function, args, kwargs)
        return self._ask(None, Apply(label, self._flags.copy), label, block, payload)
