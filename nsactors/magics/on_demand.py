"""A cluster that the first ``%px`` starts, and the lines that show the progress of its start."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self

from nsactors.client import Client
from nsactors.cluster.cluster import Cluster
from nsactors.errors import ClientClosed
from nsactors.errors.reporting import report_errors
from nsactors.results.display.line import ProgressLine, draw_until
from nsactors.results.display.notebook import CellArea
from nsactors.results.display.screen import Progress


class ClusterOnDemand:
    """A cluster that starts in the background on this machine's cores; until then, work for it is queued.

    Args:
        make: returns the cluster to start.
    """

    def __init__(self, make: Callable[[], Cluster] = Cluster) -> None:
        self.cluster = make()
        self._lock = threading.Lock()
        self._waiting: list[tuple[Callable[[Client], object], Callable[[str], object]]] = []
        self._client: Future[Client] = Future()
        threading.Thread(target=self._start, name="nsactors-start-cluster", daemon=True).start()

    @property
    def ready(self) -> bool:
        """True once the start is over: queued work has been sent, or the cluster could not be started."""
        return self._client.done()

    def when_ready(self, work: Callable[[Client], object], otherwise: Callable[[str], object]) -> None:
        """Call ``work(client)`` when the engines are ready, in the order of the calls to this method.

        Args:
            work: sends requests with the client; it must not wait.
            otherwise: called with the reason, in words, if the cluster cannot be started or ``work`` raises an error,
                unless the reason is that the client was closed, as at the end of IPython.
        """
        with self._lock:
            if not self.ready:
                self._waiting.append((work, otherwise))
                return
        error = self._client.exception()
        if error is None:
            _attempt(work, self._client.result(), otherwise)
        else:
            otherwise(_not_started(error))

    def progress(self) -> Progress:
        """Return the progress of the start."""
        return self.cluster.start_progress.read()

    def show_on(self, line: ProgressLine) -> None:
        """Draw the progress of the start from a background thread, until the engines are ready."""
        over = threading.Event()
        self._client.add_done_callback(lambda _: over.set())
        threading.Thread(
            target=draw_until, args=(over, line, self.progress, 0.0), name="nsactors-progress", daemon=True
        ).start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the engines are ready; return False if the limit is reached first.

        Raises:
            NsactorsError: if the cluster could not be started.
        """
        try:
            self._client.result(timeout_s)
        except TimeoutError:
            if not self.ready:
                return False
            raise
        return True

    @property
    def client(self) -> Client:
        """The cluster's client; waits until the engines are ready."""
        return self._client.result()

    def _start(self) -> None:
        try:
            client = self.cluster.start_and_connect_sync()
        except Exception as error:
            with self._lock:
                self._client.set_exception(error)
            for _, otherwise in self._waiting:
                with report_errors():
                    _explain(error, _not_started(error), otherwise)
            return
        with self._lock:
            for work, otherwise in self._waiting:
                with report_errors():  # nothing may end this thread: see below
                    _attempt(work, client, otherwise)
            self._client.set_result(client)
        # This thread must not end: by PR_SET_PDEATHSIG, the kernel then kills the processes of Ray that it has started.
        threading.Event().wait()


def _attempt(work: Callable[[Client], object], client: Client, otherwise: Callable[[str], object]) -> None:
    try:
        work(client)
    except Exception as error:
        _explain(error, f"{type(error).__name__}: {error}", otherwise)


def _explain(error: Exception, reason: str, otherwise: Callable[[str], object]) -> None:
    if not isinstance(error, ClientClosed):  # otherwise the user has left IPython, and the work with it
        otherwise(reason)


def _not_started(error: BaseException) -> str:
    return f"The cluster could not be started: {error}"


class AreaLine:
    """A progress line in the output area of a notebook's cell."""

    def __init__(self, area: CellArea) -> None:
        self._area = area

    def draw(self, progress: Progress) -> None:
        """Show the progress."""
        self._area.status({}, progress)

    def leave(self) -> None:
        """Do nothing: the cell's output replaces the line."""

    def remove(self) -> None:
        """Do nothing: the cell's output replaces the line."""


class ToolbarLine:
    """A progress line below IPython's prompt, where the user may go on typing.

    Args:
        session: IPython's own ``PromptSession``; its previous toolbar is restored at the end.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        present = session.bottom_toolbar
        self._before = present.before if isinstance(present, _ProgressText) else present

    def draw(self, progress: Progress) -> None:
        """Show the progress."""
        self._set(_ProgressText(f" {progress.label}: {progress.amount}, {progress.times}", self._before))

    def leave(self) -> None:
        """Restore the previous toolbar."""
        self.remove()

    def remove(self) -> None:
        """Restore the previous toolbar."""
        self._set(self._before)

    def _set(self, toolbar: Any) -> None:
        self._session.bottom_toolbar = toolbar
        self._session.app.invalidate()  # may be called from any thread, and does nothing while no prompt is shown


class _ProgressText(str):
    """The text of a progress line in the toolbar, with the user's own toolbar.

    If a second progress line finds this text in the toolbar, it restores the user's toolbar at its end, not this text.
    """

    __slots__ = ("before",)
    before: Any

    def __new__(cls, text: str, before: Any) -> Self:
        made = super().__new__(cls, text)
        made.before = before
        return made
