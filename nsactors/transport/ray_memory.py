"""How full the object store of this node is.

Ray says so only with its dashboard, or in its logs: a driver or worker can have the figures of its own node's store
logged, in 0.2 ms. That is private; without it nothing is known here, and nothing else is lost. (What Ray calls
available memory does not count objects that engines use after their owner has dropped them.)
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from nsactors.core.memory import StoreMemory
from nsactors.core.payload import Buffer
from nsactors.errors import SpillWarning

__all__ = ["SpillCheck", "store_memory"]

ASK_EVERY_S = 1.0
CHECKED_BYTES = 4_000_000  # a smaller object takes hardly longer to be stored than the question


def store_memory() -> StoreMemory | None:
    """The object store of this node; None if Ray does not tell."""
    import ray

    worker: Any = ray
    for name in ("_private", "worker", "global_worker"):
        worker = getattr(worker, name, None)
    text = _listener.ask(getattr(getattr(worker, "core_worker", None), "log_plasma_usage", None))
    capacity, used = (re.search(rf"{what}: (\d+)", text) for what in ("capacity", "bytes in use"))
    if capacity is None or used is None:
        return None
    node_id = ray.get_runtime_context().get_node_id()
    folder = os.path.join(_session_folder(worker), f"ray_spilled_objects_{node_id}")
    return StoreMemory(socket.gethostname(), node_id, int(capacity[1]), int(used[1]), _bytes_in(folder))


class SpillCheck:
    """Tells when an object is too large for what is free of this node's store: once each time that it fills up.

    The store is asked again when a good part of what was free has been used since, or a while has passed: the question
    takes as long as storing a megabyte.

    Args:
        clock: seconds that pass evenly.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told = False
        self._room = 0  # that may be used before the store is asked again
        self._ask_after = 0.0

    def before_put(self, buffers: Sequence[Buffer]) -> SpillWarning | None:
        """What is to be said of an object with these buffers before it is stored."""
        nbytes = sum(memoryview(buffer).nbytes for buffer in buffers)
        if nbytes < CHECKED_BYTES:
            return None
        self._room -= nbytes
        now = self._clock()
        if (self._room >= 0 and now < self._ask_after) or (store := store_memory()) is None:
            return None
        self._room, self._ask_after = store.free // 4, now + ASK_EVERY_S
        fits = nbytes <= store.free
        told, self._told = self._told, not fits
        return None if fits or told else SpillWarning(nbytes, store.free, store.capacity)


class _Listener(logging.Filter):
    """Takes the answer out of what Ray's logger is given; lets pass what else would have been logged."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._asker: int | None = None
        self._answer = ""

    def ask(self, log_usage: Any) -> str:
        """What ``log_usage()`` logs in this thread."""
        if log_usage is None:
            return ""
        logger = logging.getLogger("ray._raylet")
        with self._lock:
            self._asker, self._answer = threading.get_ident(), ""
            level = logger.level
            logger.addFilter(self)
            logger.setLevel(logging.WARNING)
            try:
                log_usage()
            finally:
                logger.setLevel(level)
                logger.removeFilter(self)
            return self._answer

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be logged."""
        if record.thread == self._asker:
            self._answer = record.getMessage()
            return False
        parent = logging.getLogger("ray")
        return record.levelno >= parent.getEffectiveLevel()


_listener = _Listener()


def _session_folder(worker: Any) -> str:
    path = getattr(getattr(worker, "node", None), "get_session_dir_path", None)
    return str(path()) if path else ""


def _bytes_in(folder: str) -> int:
    try:
        with os.scandir(folder) as files:
            return sum(file.stat().st_size for file in files)
    except FileNotFoundError:  # nothing was ever spilled, or a file has just been removed
        return 0
