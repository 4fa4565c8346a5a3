"""What clients of one cluster see of each other's work, and take over from each other."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nsactors.client.finding import detached_ids, find_requests, left_behind
from nsactors.client.tasks import TaskStatus
from nsactors.client.watching import ClusterActivity, Observer, watch
from nsactors.core.cluster import HistoryEntry
from nsactors.core.messages import RequestId
from nsactors.core.partition import Block
from nsactors.errors import ResultUnavailable
from nsactors.results import AsyncResult, BalancedMapResult, MapCall

if TYPE_CHECKING:
    from nsactors.client.session import Session

__all__ = ["SharedWork"]

FLUSH_S = 30.0
NEWS_S = 1.0
LOOK_S = 0.1


class SharedWork(ABC):
    """A client's view of the work of all clients. Clients come and go; what they have sent to engines goes on."""

    @property
    @abstractmethod
    def session(self) -> Session:
        """The conversation with the cluster."""

    def history(
        self, *, client: str | None = None, engine: int | None = None, last: int | None = None
    ) -> list[HistoryEntry]:
        """Who ran what, where, when, with which outcome; of all clients unless one is named.

        Those that run and those that wait come last, with outcome ``running`` and ``queued``. Engines report in rounds
        of half a second, what waits for longer than a quarter is reported by its client, and the last 10,000 requests
        are remembered.
        """
        self.session.check()
        return self.session.transport.controller.history(client, engine, last)

    def clients(self) -> list[str]:
        """Names of the clients that are there; one whose process has died is missed after two seconds."""
        self.session.check()
        return self.session.transport.controller.clients()

    def get_result(self, jobs: Any = -1, block: bool = False) -> AsyncResult:
        """The result of requests that anybody has made, in whatever process.

        It is as if they were one's own: pending until they have ended, with their value or error and all their output,
        which comes live. Engines keep their last 4,000 answers, up to 16 MB; a value of more than 2 MB only if its
        client had gone, or had called :meth:`flush` after asking for it.

        Args:
            jobs: a message id, the name of a client (for all that the history knows of it), a position in
                :meth:`history`, one of its entries, a result, or several of these; the default is the last request.
                Of detached tasks: message ids, results, entries of ``tasks()``, and only such.
            block: wait for it.

        Raises:
            ResultUnavailable: if the history knows of no such request. Raised by the result: if the answer is not kept
                any more, never was, or the request never began; it says which.
            EngineLost: raised by the result, if the engine died.
        """
        self.session.check()
        jobs = list(jobs) if isinstance(jobs, Iterator) else jobs
        if detached := detached_ids(jobs):
            return self._detached_result(detached, single=isinstance(jobs, str | TaskStatus | RequestId), block=block)
        single = isinstance(jobs, int | HistoryEntry | RequestId) or (isinstance(jobs, str) and ":" in jobs)
        return self._result(self._find(jobs), single=single, block=block)

    def resume(self, jobs: Any = None, timeout: float | None = None) -> AsyncResult:
        """Show the output of requests from its beginning, and go on live until they have ended.

        For a kernel that was restarted, or a connection that broke: text, images and progress are drawn again here.
        Ctrl-C ends the showing, not the work.

        Args:
            jobs: as for :meth:`get_result`; the default is what the client that left last has left unfinished, and from
                engines that have finished the last it ran there.
            timeout: seconds to show it for; None: to its end.

        Returns:
            Its result.

        Raises:
            ResultUnavailable: if there is no such request.
        """
        from nsactors.results.live import LiveOutput, open_screen

        self.session.check()
        chosen = left_behind(self.history(), self.clients()) if jobs is None else self._find(jobs)
        result = self._result(chosen, single=False, block=False)
        live = LiveOutput(result.calls, open_screen(blocking=True), label=_label(chosen), progress_after_s=0.5)
        live.wait(timeout)
        return result

    def flush(self, timeout: float = FLUSH_S) -> None:
        """Return when everything sent so far is *accepted*: it runs and is answered whatever becomes of this process.

        Accepted is what is in its engine's queue and in the cluster's history, and whose answer its engine keeps for
        others however large it is. Arguments of more than 64 kB stay in this process's part of the object store: if it
        ends, calls with such arguments that have not begun by then never do, and :meth:`get_result` says so.

        Without this, what was sent is in its engine's queue some milliseconds later, and in the history after a quarter
        of a second.

        Args:
            timeout: seconds; with more than a thousand calls open to one engine, the others wait here for their turn.

        Raises:
            TimeoutError: if it has not been accepted by then.
        """
        self.session.check()
        self.session.announcer.flush(timeout)

    def activity(self) -> ClusterActivity:
        """What :meth:`watch` shows, once, as values; but for the cores in use, for which two looks are needed."""
        self.session.check()
        return Observer(self.session.transport.controller).look()

    def watch(self, timeout: float | None = None) -> None:
        """Show who runs what where, live, until Ctrl-C: at a terminal or, in a notebook, under the cell.

        Args:
            timeout: seconds; None: until Ctrl-C.
        """
        self.session.check()
        watch(self.session.transport.controller, timeout)

    def _detached_result(self, msg_ids: list[str], *, single: bool, block: bool) -> AsyncResult:
        farm = self.session.detached
        calls = farm.calls_for(msg_ids)
        if len(calls) == 1 and isinstance(call := calls[0], MapCall):
            partitioner = Block() if call.joins else None
            result: AsyncResult = BalancedMapResult(farm, call, label=call.label, partitioner=partitioner)
        else:
            label = calls[0].label if len(calls) == 1 else f"{len(calls)} detached tasks"
            result = AsyncResult(farm, calls, label=label, single=single)
        if block:
            result.get()
        return result

    def _find(self, jobs: Any) -> list[HistoryEntry]:
        # What has just been sent, or has just ended, is in the history with the next round of reports.
        deadline = time.monotonic() + NEWS_S
        while True:
            try:
                return find_requests(self.history(), jobs)
            except ResultUnavailable:
                if time.monotonic() > deadline:
                    raise
            self.session.leaving.wait(LOOK_S)

    def _result(self, entries: list[HistoryEntry], *, single: bool, block: bool) -> AsyncResult:
        result = AsyncResult(self.session, self.session.calls_for(entries), label=_label(entries), single=single)
        if block:
            result.get()
        return result


def _label(entries: list[HistoryEntry]) -> str:
    labels = list(dict.fromkeys(entry.label for entry in entries))
    return labels[0] if len(labels) == 1 else f"{len(entries)} requests"
