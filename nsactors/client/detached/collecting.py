"""What comes of detached tasks, brought to the calls that stand for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsactors.client.detached.keeping import KeptValue
from nsactors.client.detached.messages import Progress
from nsactors.client.tasks.delivery import Outcome, deliver, give_up, settle
from nsactors.core.kept_tasks import Piece
from nsactors.core.remote_value import ObjectGone
from nsactors.core.scheduling import GiveUp, Ran, Status
from nsactors.errors import ClusterUnreachable, ResultUnavailable
from nsactors.results import TaskCall

if TYPE_CHECKING:
    from nsactors.client.session import Session

__all__ = ["Collector"]

COLLECT_S = 10.0
AGAIN_S = 0.5
CLOSE_S = 2.0

Collect = Callable[[dict[int, int], float], dict[int, Progress]]
"""Asks for news of tasks of which so many pieces are known, and waits for so many seconds for some."""


@dataclass(slots=True)
class _Wanted:
    """A task of which more is to come, and how many pieces of it are here."""

    call: TaskCall
    known: int = 0


class Collector:
    """Asks for results as long as some are awaited, on a thread that is there meanwhile.

    Args:
        session: the client's conversation with the cluster.
        collect: how to ask.
        sending: held by who sends something and then wants what comes of it.
    """

    def __init__(self, session: Session, collect: Collect, sending: threading.Lock) -> None:
        self._session = session
        self._collect = collect
        self._sending = sending
        self._lock = threading.Lock()
        self._wanted: dict[int, _Wanted] = {}
        self._thread: threading.Thread | None = None

    @property
    def calls(self) -> list[TaskCall]:
        """Those that have not ended, in the order in which they came."""
        with self._lock:
            return [wanted.call for wanted in self._wanted.values()]

    def find(self, number: int) -> TaskCall | None:
        """The call of a task that has not ended; None if it is not awaited."""
        wanted = self._wanted.get(number)
        return None if wanted is None else wanted.call

    def want(self, calls: Iterable[TaskCall]) -> None:
        """Bring these calls what comes of their tasks."""
        with self._lock:
            self._wanted.update((call.request_id.seq, _Wanted(call)) for call in calls)
            if self._wanted and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="nsactors-detached", daemon=True)
                self._thread.start()

    def give_up(self, error_of: Callable[[TaskCall], Exception]) -> None:
        """Fail all calls that have not ended."""
        for call in self.calls:
            self._end(call, error_of(call))

    def join(self) -> None:
        """Wait for the end of the thread: nothing is awaited any more, and what it has asked has been answered."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_S)

    def _run(self) -> None:
        while True:
            with self._sending, self._lock:
                wanted = {number: each.known for number, each in self._wanted.items()}
                if not wanted:
                    self._thread = None
                    return
            try:
                self._take(self._collect(wanted, COLLECT_S))
            except ClusterUnreachable:
                self._session.leaving.wait(AGAIN_S)  # a busy machine, or one that slept
            except Exception as error:  # whatever it is, who waits must hear that nothing will come
                for call in self.calls:
                    self._end(call, error)

    def _take(self, news: dict[int, Progress]) -> None:
        opened: dict[bool, dict[int, Any]] = {False: {}, True: {}}  # by whether arrays are copies
        for number, progress in news.items():
            wanted = self._wanted.get(number)
            if wanted is None:
                continue  # it has been given up meanwhile
            call = wanted.call
            if progress.lost is not None:
                self._end(call, ResultUnavailable(str(call.request_id), progress.lost))
                continue
            call.tried_on = progress.tried_on
            wanted.known += len(progress.pieces)
            for piece in progress.pieces:
                if _deliver(call, piece, opened[call.copies]):
                    with self._lock:
                        self._wanted.pop(number, None)
                    settle(call, self._session.ledger)

    def _end(self, call: TaskCall, error: Exception) -> None:
        with self._lock:
            self._wanted.pop(call.request_id.seq, None)
        call.settle(None, error)


def _deliver(call: TaskCall, piece: Piece, opened: dict[int, Any]) -> bool:
    """Hand over how some items of a task ended; whether the task has by that."""
    if isinstance(piece, GiveUp):
        return give_up(call, piece)
    ran, engine_id = piece
    outcome: Outcome = ran.value
    kept: KeptValue = outcome.value
    try:
        value = kept.load(opened, copy=call.copies)
    except ObjectGone as gone:
        ran, value = _unopened(ran), ResultUnavailable(str(call.request_id), str(gone))
    except Exception as error:  # whatever a class of the user's does when it is rebuilt
        error.add_note(f"The result of {call.label} cannot be unpickled here.")
        ran, value = _unopened(ran), error
    return deliver(call, ran._replace(value=outcome._replace(value=value)), engine_id)


def _unopened(ran: Ran) -> Ran:
    return ran._replace(status=Status.FAILED)
