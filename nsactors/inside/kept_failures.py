"""Kept failures: the frames of the last failure of each client, for the debugger."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable
from dataclasses import field, replace
from types import FrameType, TracebackType

from nsactors._frozen import frozen
from nsactors.errors import Failure
from nsactors.errors.exception_state import traceback_of
from nsactors.errors.failure import lines_of
from nsactors.inside.debug_conversation import Clock

KEPT_S = 600.0
KEPT_CLIENTS = 4
TITLE_CHARS = 200
ABSENT_CLIENTS = 100
NEWLINE = "\n"


class AbsentClients:
    """The last clients that have left, and not come back. Any thread may call the methods."""

    def __init__(self) -> None:
        self._clients: dict[str, None] = {}

    def __contains__(self, client: str) -> bool:
        return client in self._clients

    def add(self, client: str) -> None:
        """Add a client that has left."""
        self._clients[client] = None
        if len(self._clients) > ABSENT_CLIENTS:
            del self._clients[next(iter(self._clients))]

    def discard(self, client: str) -> None:
        """Remove a client that is connected."""
        self._clients.pop(client, None)


@frozen
class KeptFailure:
    """The frames of a failure, for the debugger.

    Attributes:
        name: the name that the client knows from ``Failure.kept``.
        client: the client whose request failed.
        title: the failure in one line.
        traceback: its frames, beginning with the first frame of user code.
        sources: the source code of the cells in the frames, by file name; it is kept here because the shell may drop
            it when other cells run.
        kept_at: the time, in seconds.
    """

    name: str
    client: str
    title: str
    traceback: TracebackType = field(repr=False)
    sources: dict[str, list[str]] = field(repr=False)
    kept_at: float


class KeptFailures:
    """Keeps the last failure of each client.

    Failures of only a few clients are kept, for a few minutes, since frames keep the objects in them alive.

    Any thread may call the methods.

    Args:
        incarnation: the number of the engine's process; it grows with each restart.
        absent: the clients that have left; their failures are not kept.
        clock: returns seconds.
    """

    def __init__(self, incarnation: int, absent: AbsentClients, clock: Clock = time.monotonic) -> None:
        self._incarnation = incarnation
        self._absent = absent
        self._clock = clock
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._kept: dict[str, KeptFailure] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, failure: Failure, error: BaseException, client: str) -> Failure:
        """Keep the frames of an error for its client; return its description with the name under which they are kept.

        MemoryError is not kept: its frames would keep the objects that filled the memory. Neither is an error of a
        client that has left.
        """
        traceback = traceback_of(error)
        if traceback is None or issubclass(type(error), MemoryError):
            return failure
        _clear_callers(traceback.tb_frame)
        name = f"{client}#{self._incarnation}.{next(self._numbers)}"
        title = f"{failure.summary.partition(NEWLINE)[0][:TITLE_CHARS]} ({failure.call})"
        self.add(KeptFailure(name, client, title, traceback, _sources(traceback), self._clock()))
        if client in self._absent:  # looked up last, because the client may be leaving
            self.forget(client)
            return failure
        return replace(failure, kept=name)

    # Each method drops failures after it has released the lock, because destructors of the user's objects run then.

    def add(self, failure: KeptFailure) -> None:
        """Keep a failure in place of the earlier one of its client."""
        with self._lock:
            dropped = [self._kept.pop(failure.client, None)]
            self._kept[failure.client] = failure
            if len(self._kept) > KEPT_CLIENTS:
                dropped.append(self._kept.pop(next(iter(self._kept))))
        del dropped

    def find(self, client: str, names: Iterable[str] = ()) -> KeptFailure | None:
        """Return the kept failure of a client. If ``names`` are given, return it only if its name is one of them."""
        kept, names = self._kept.get(client), tuple(names)
        return kept if kept is not None and (not names or kept.name in names) else None

    def forget(self, client: str | None = None) -> bool:
        """Drop the failure of a client, or of all clients; return whether there was one."""
        with self._lock:
            dropped = self._kept
            if client is None:
                self._kept = {}
            else:
                dropped = {client: self._kept.pop(client)} if client in self._kept else {}
        return bool(dropped)

    def expire(self, now: float) -> None:
        """Drop the failures that have been kept for long enough."""
        with self._lock:
            old = [client for client, kept in self._kept.items() if now - kept.kept_at > KEPT_S]
            dropped = [self._kept.pop(client) for client in old]
        del dropped


def _clear_callers(first: FrameType) -> None:
    """Release the local variables of the machinery that called user code.

    These variables refer to the error and to the whole request. With them, the error would be part of a reference
    cycle, and its frames would live on after their release until a garbage collection.
    """
    frame = first.f_back
    while frame is not None:
        try:
            frame.clear()
        except RuntimeError:  # the frame runs, and so do all frames further out
            return
        frame = frame.f_back


def _sources(traceback: TracebackType) -> dict[str, list[str]]:
    """Return the source code of the cells in a traceback."""
    sources: dict[str, list[str]] = {}
    at: TracebackType | None = traceback
    while at is not None:
        name = at.tb_frame.f_code.co_filename
        if name.startswith("<") and name not in sources and (lines := lines_of(name)):
            sources[name] = lines
        at = at.tb_next
    return sources
