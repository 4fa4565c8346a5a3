"""A cluster for those who type ``%px`` before they have one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from nsactors.client import Client
from nsactors.cluster import Cluster

__all__ = ["ClusterOnDemand", "find_client"]


class ClusterOnDemand:
    """Starts a cluster on the cores at hand in the background; work for it waits in line.

    Args:
        make: makes the cluster.
    """

    def __init__(self, make: Callable[[], Cluster] = Cluster) -> None:
        self.cluster = make()
        self._lock = threading.Lock()
        self._waiting: list[tuple[Callable[[Client], object], Callable[[Exception], object]]] = []
        self._client: Future[Client] = Future()
        threading.Thread(target=self._start, name="nsactors-start-cluster", daemon=True).start()

    @property
    def ready(self) -> bool:
        """Whether the engines are there and what was waiting for them has been sent."""
        return self._client.done()

    @property
    def failed(self) -> bool:
        """Whether the cluster could not be started."""
        return self.ready and self._client.exception() is not None

    def when_ready(self, work: Callable[[Client], object], otherwise: Callable[[Exception], object]) -> None:
        """Call ``work(client)`` when the engines are there, in the order of these calls.

        Args:
            work: what they are for; it must not wait.
            otherwise: called with the reason if the cluster cannot be started.
        """
        with self._lock:
            if not self.ready:
                self._waiting.append((work, otherwise))
                return
        work(self._client.result())

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the engines are there.

        Raises:
            NsactorsError: why the cluster could not be started.
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
        """The client; waits for it."""
        return self._client.result()

    def _start(self) -> None:
        try:
            client = self.cluster.start_and_connect_sync()
        except Exception as error:
            with self._lock:
                self._client.set_exception(error)
            for _, otherwise in self._waiting:
                otherwise(error)
            return
        with self._lock:
            for work, _ in self._waiting:
                work(client)
            self._client.set_result(client)
        # The kernel kills Ray's processes when the thread that started them ends (PR_SET_PDEATHSIG), not the process.
        threading.Event().wait()


def find_client(names: dict[str, Any]) -> Client | None:
    """The open client that was bound last in ``names``, if there is one."""
    clients = [value for value in names.values() if isinstance(value, Client) and not value.session.closed]
    return clients[-1] if clients else None
