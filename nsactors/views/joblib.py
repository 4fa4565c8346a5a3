"""A view as a backend of joblib, and so of scikit-learn. This module imports joblib, so load it only when needed."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from joblib.parallel import ParallelBackendBase, register_parallel_backend

from nsactors.protocol import arguments as arg
from nsactors.protocol.serialize import RemoteValue, pack
from nsactors.protocol.targets import resolve
from nsactors.session.callbacks import Callbacks
from nsactors.views.executor import TaskView, ViewExecutor
from nsactors.views.lazy_map import ChunkSize


def register(view: TaskView, name: str, *, make_default: bool) -> None:
    """Let joblib run on a view; see ``LoadBalancedView.register_joblib_backend``."""
    register_parallel_backend(name, partial(NsactorsBackend, view), make_default=make_default)


class NsactorsBackend(ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """Runs the tasks of ``joblib.Parallel`` on the engines of a view.

    Batches grow until they take as long as a chunk of a lazy map. A parallel loop within a task runs in threads of its
    engine, and a loop within such a loop is a plain loop.

    Args:
        view: the engines.
        nesting_level: the number of parallel loops around this loop; joblib sets it.
        flags: flags of the view, such as ``retries`` in ``parallel_config(backend="nsactors", retries=2)``.
    """

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(self, view: TaskView, nesting_level: int | None = None, **flags: Any) -> None:
        super().__init__(nesting_level=nesting_level)
        self._view = view.with_flags(**flags)
        self._executor: ViewExecutor  # made by configure()
        self._size = ChunkSize()
        self._shared_from_bytes: float = float("inf")
        self._shared: dict[int, tuple[Any, RemoteValue]] = {}
        # Callbacks have their own thread, because joblib reads the user's input in them, and may wait for another loop.
        self._callbacks = Callbacks()
        weakref.finalize(self, self._callbacks.close).atexit = False

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return the largest number of engines to use: -1 means all of them, -2 means all but one.

        Raises:
            ValueError: for 0.
            NoEngines: if there are none.
        """
        arg.check("Parallel", n_jobs=arg.whole(n_jobs, or_none=True))
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        engines = len(self._view)
        return min(n_jobs, engines) if n_jobs > 0 else max(engines + 1 + n_jobs, 1)

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, *, max_nbytes: int | None = None, **not_used: Any
    ) -> int:
        """Prepare for loops.

        Args:
            n_jobs: see :meth:`effective_n_jobs`.
            parallel: the ``joblib.Parallel`` that runs the loops.
            max_nbytes: arguments from this size on are stored once for all tasks; None to store no arguments.
            not_used: options of joblib's other backends.
        """
        self.parallel = parallel
        self._shared_from_bytes = float("inf") if max_nbytes is None else max_nbytes
        count, view = self.effective_n_jobs(n_jobs), self._view
        if count < len(view):
            view = view.with_flags(targets=resolve(view.targets, view.client.ids)[:count])
        self._executor = ViewExecutor(view)
        return count

    def start_call(self) -> None:
        """Begin a loop."""
        self._size = ChunkSize()

    def stop_call(self) -> None:
        """End a loop."""
        self._shared.clear()

    def submit(self, func: Any, callback: Callable[[Any], object] | None = None) -> Future[Any]:
        """Run a batch."""
        future: Future[Any]
        try:
            func.items = [
                (function, [*map(self._share, args)], {name: self._share(value) for name, value in kwargs.items()})
                for function, args, kwargs in func.items
            ]
            future = self._executor.submit(func)
        except Exception as error:  # if joblib's callback raised the error, joblib would wait for ever
            future = Future()
            future.set_exception(error)
        # Not the method of AsyncResult, which would call back on a thread that all results of a client share.
        Future.add_done_callback(future, partial(self._ended, callback))
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return the results of a batch that has ended."""
        return out.result()

    def compute_batch_size(self) -> int:
        """Return the number of items to send together."""
        return self._size.items

    def batch_completed(self, batch_size: int, duration: float) -> None:
        """Take into account that a batch of ``batch_size`` items took ``duration`` seconds."""
        self._size.observe(batch_size, duration)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel batches that have not begun, and interrupt the others."""
        self._executor.abort(interrupt=True)

    def _ended(self, callback: Callable[[Any], object] | None, future: Future[Any]) -> None:
        if not future.cancelled():
            future.exception()  # marks it as retrieved, because joblib does not retrieve it after an abort
        if callback is not None:
            self._callbacks.call(partial(callback, future))

    def _share(self, value: Any) -> Any:
        if _nbytes(value) < self._shared_from_bytes:
            return value
        if id(value) not in self._shared:
            client, kind = self._view.client, type(value).__name__
            payload = pack(value, what=f"a {kind}", ref_types=client.session.ref_types)
            stored = client.session.store(payload)
            # The value is kept here too, so that no other object can get its id.
            self._shared[id(value)] = value, RemoteValue(stored, kind, None, "joblib", kind, payload.nbytes)
        return self._shared[id(value)][1]


def _nbytes(value: Any) -> int:
    """Return the size of an array or a table; for another object, its ``sys.getsizeof()``."""
    nbytes = getattr(value, "nbytes", None)
    return nbytes if isinstance(nbytes, int) else sys.getsizeof(value, 0)
