"""Ray's object store: put and load payloads, and check its room.

Ray reports the room only in its dashboard or its logs: a driver or worker can make Ray log the figures of its own
node's store, in 0.2 ms. Ray's function is private; without it the room is unknown, and nothing else is lost. (Ray's own
"available memory" does not count objects that engines use after their owner has dropped them.)
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

from nsactors._frozen import frozen
from nsactors.errors import SpillWarning, StoreFull, bytes_in_words
from nsactors.protocol.engine_info import StoreMemory
from nsactors.protocol.serialize import Buffer, ObjectGone, Payload
from nsactors.transport.ray.servers import raylet_process

ASK_EVERY_S = 1.0
SPARE_BYTES = 1_000_000  # the store's own data beside objects
CHECKED_BYTES = 4_000_000  # the check takes about as long as storing a smaller object


def store_memory() -> StoreMemory | None:
    """Return the memory of this node's object store; None if Ray does not report it."""
    import ray

    worker = _worker()
    text = _listener.ask(getattr(getattr(worker, "core_worker", None), "log_plasma_usage", None))
    capacity, used = (re.search(rf"{name}: (\d+)", text) for name in ("capacity", "bytes in use"))
    if capacity is None or used is None:
        return None
    node_id = ray.get_runtime_context().get_node_id()
    folder = os.path.join(session_folder(), f"ray_spilled_objects_{node_id}")
    return StoreMemory(socket.gethostname(), node_id, int(capacity[1]), int(used[1]), _bytes_in(folder))


class StoreFile:
    """The file of an object store, on a file system in memory that other programs also fill.

    Its pages are allocated when they are first written. If the file system is full, the writer gets SIGBUS, which ends
    a client, an engine or the raylet.

    Args:
        path: the path of the file, or of a link to it.
        folder: the name of the folder, for people.
    """

    def __init__(self, path: str, folder: str) -> None:
        self._path = path
        self._folder = folder

    @classmethod
    def of_raylet(cls, pid: int) -> StoreFile | None:
        """Return the file of a raylet, which holds it open without a name; None if the file cannot be seen."""
        try:
            with os.scandir(f"/proc/{pid}/fd") as links:
                for link in links:
                    folder, _, name = os.readlink(link.path).rpartition("/")
                    if name.startswith("plasma"):
                        return cls(link.path, folder)
        except OSError:  # another system, or a raylet of another user
            pass
        return None

    def require_room(self, what: str, nbytes: int, used: Callable[[], int | None]) -> None:
        """Raise StoreFull if writing a value may find no memory.

        Args:
            what: the value, for people.
            nbytes: its size.
            used: returns the bytes of the store in use; its other pages can be written again.
        """
        try:
            # Call statvfs once for each value; read more only when there is little room.
            volume = os.statvfs(self._path)
            free = volume.f_bavail * volume.f_frsize
            if free >= nbytes + SPARE_BYTES:
                return
            made = os.stat(self._path).st_blocks * 512
        except OSError:  # the raylet has ended
            return
        free += max(0, made - (used() or made))
        if free < nbytes + SPARE_BYTES:
            raise StoreFull(
                f"{what} ({bytes_in_words(nbytes)})",
                f"{self._folder}, which holds the object store, has {bytes_in_words(free)} left, and Ray's processes "
                f"are killed if it fills up. Make room there (`df {self._folder}` shows its use), or send less",
            )


def require_room(what: str, nbytes: int) -> None:
    """Raise StoreFull if this node's object store may lack memory for a value, which would kill this process."""
    if (file := _store_file()) is not None:
        file.require_room(what, nbytes, lambda: None if (store := store_memory()) is None else store.used)


_found: dict[int, StoreFile | None] = {}  # by process id of the raylet, which may change in a process


def _store_file() -> StoreFile | None:
    import ray

    pid = raylet_process(ray)
    if pid is None:
        return None
    if pid not in _found:
        _found[pid] = StoreFile.of_raylet(pid)
    return _found[pid]


class SpillCheck:
    """Warn when an object is too large for the free room of this node's store: once each time that the store fills up.

    The store is queried again when much of the free room may have been used, or after a while, because the query takes
    as long as storing a megabyte.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._warned = False
        self._room = 0  # bytes to store before the store is asked again
        self._ask_after = 0.0

    def before_put(self, buffers: Sequence[Buffer]) -> SpillWarning | None:
        """Return a warning about an object with these buffers before it is stored; None if it fits."""
        nbytes = sum(memoryview(buffer).nbytes for buffer in buffers)
        if nbytes < CHECKED_BYTES:
            return None
        self._room -= nbytes
        now = self._clock()
        if (self._room >= 0 and now < self._ask_after) or (store := store_memory()) is None:
            return None
        self._room, self._ask_after = store.free // 4, now + ASK_EVERY_S
        fits = nbytes <= store.free
        warned, self._warned = self._warned, not fits
        return None if fits or warned else SpillWarning(nbytes, store.free, store.capacity)


class _Listener(logging.Filter):
    """Catch the message of one call from Ray's logger; other messages are logged as usual."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._asker: int | None = None
        self._answer = ""

    def ask(self, log_usage: Any) -> str:
        """Return the message that ``log_usage()`` logs in this thread."""
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
        """Return whether to log a record."""
        if record.thread == self._asker:
            self._answer = record.getMessage()
            return False
        parent = logging.getLogger("ray")
        return record.levelno >= parent.getEffectiveLevel()


_listener = _Listener()


def session_folder() -> str:
    """Return the folder of Ray's files on this machine; empty if it is not known."""
    path = getattr(getattr(_worker(), "node", None), "get_session_dir_path", None)
    return str(path()) if path else ""


def _worker() -> Any:
    import ray

    worker: Any = ray
    for name in ("_private", "worker", "global_worker"):
        worker = getattr(worker, name, None)
    return worker


def _bytes_in(folder: str) -> int:
    try:
        with os.scandir(folder) as files:
            return sum(file.stat().st_size for file in files)
    except FileNotFoundError:  # no object was ever spilled, or a file has just been removed
        return 0


_STOPPED = "the cluster has stopped"


@frozen
class RayObject:
    """A payload in Ray's object store; Ray copies it to each node once.

    Args:
        ref: Ray's reference, which is sent beside pickles, where Ray sees it and keeps the object.
    """

    ref: Any

    def load(self) -> Payload:
        """Return the payload; see ``StoredObject``."""
        import ray

        if not ray.is_initialized():  # Ray would start another cluster to search
            raise ObjectGone(_STOPPED)
        try:
            (data, *buffers), refs = ray.get(self.ref)
        except ray.exceptions.OwnerDiedError:
            raise ObjectGone("the process that held it has ended") from None
        except ray.exceptions.ObjectLostError as error:
            raise ObjectGone(f"Ray has no copy of it any more ({type(error).__name__})") from None
        except ValueError:  # the reference is from before this Ray was started
            raise ObjectGone(_STOPPED) from None
        return Payload(data, tuple(buffers), tuple(refs))


class RayStore:
    """The store of objects that an engine owns. They are lost with the engine, but not with clients that use them."""

    def __init__(self) -> None:
        import ray

        self.ref_types: tuple[type, ...] = (ray.ObjectRef,)

    def put(self, payload: Payload) -> RayObject:
        """Store a payload; see ``ObjectStore``."""
        arrays = [as_array(buffer) for buffer in (payload.data, *payload.buffers)]
        # In a list, since Ray does not store a bare reference.
        return RayObject(put([arrays, list(payload.refs)], "the value", payload.nbytes))

    def memory(self) -> StoreMemory | None:
        """Return the memory of this node's store; see ``ObjectStore``."""
        return store_memory()


def put(value: Any, what: str, nbytes: int) -> Any:
    """Store a value; return Ray's reference to it.

    Raises:
        StoreFull: if there is no room; ``what`` and ``nbytes`` describe the value.
    """
    import ray

    require_room(what, nbytes)
    try:
        return ray.put(value)
    except Exception as error:
        if is_full(error):
            raise StoreFull(f"{what} ({bytes_in_words(nbytes)})") from None
        raise


def is_full(error: object) -> bool:
    """Return whether an error of Ray, or of :func:`require_room`, means that there is no room."""
    import ray

    return isinstance(error, StoreFull | ray.exceptions.ObjectStoreFullError | ray.exceptions.OutOfDiskError)


def as_array(buffer: Any) -> Any:
    """Return a buffer as an array, which Ray stores out of band: one copy into the store, none out of it."""
    import numpy as np

    view = memoryview(buffer)
    return np.frombuffer(view, np.uint8) if view.nbytes else np.empty(0, np.uint8)
