"""A cluster as a batch job: ``python -m nsactors.cluster.job FOLDER`` is its process on the job's first node.

It is the head of a Ray of its own, starts engines as the other nodes join, and ends with the job. In the folder, which
all nodes see, it finds ``job.json`` and leaves ``node.json``, by which the others join, and ``state``, from which the
next job goes on.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

from nsactors.client import Client
from nsactors.cluster.cluster import Cluster
from nsactors.cluster.continuing import restore_state, save_state
from nsactors.cluster.node import use_short_paths
from nsactors.cluster.resources import available_cores, thread_environment
from nsactors.errors import ConnectionLost
from nsactors.transport.base import Backend
from nsactors.transport.connection import ConnectionInfo
from nsactors.transport.leftovers import MARK, end_leftovers
from nsactors.transport.private_files import write_private
from nsactors.transport.ray_node import NodePlan, RayNode, ray_settings
from nsactors.transport.ray_nodes import engines_wanted
from nsactors.transport.ray_runtime import ray_runtime
from nsactors.transport.registry import Registry

__all__ = ["JobPlan", "main", "run_job"]

LOOK_S = 0.5
JOIN_S = 60.0  # within it the nodes of a job that goes on are to be there: its engines are started at once
SNAPSHOT_S = 60.0
STOP_S = 3.0

_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)  # Grid Engine's is the second
_ENDS = (signal.SIGTERM, signal.SIGINT)
_RAY_ENDED = 0


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What a job is to be.

    Attributes:
        name: of the cluster.
        nodes: how many there will be.
        engines: how many on each; 0 for as many as each has cores.
        store_bytes: of the object store on each node; None: as Ray thinks fit.
        options: what the engines are asked for with; see ``EngineKeywords``.
    """

    name: str
    nodes: int
    engines: int
    store_bytes: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write it into a job's folder."""
        write_private(folder / "job.json", json.dumps(asdict(self), indent=2))

    @classmethod
    def load(cls, folder: Path) -> JobPlan:
        """Read it from a job's folder."""
        return cls(**json.loads((folder / "job.json").read_text()))


def run_job(folder: Path) -> int:
    """Be the cluster until the job ends, it is stopped, or its Ray has ended; the exit status.

    Args:
        folder: of the job.
    """
    use_short_paths()
    plan = JobPlan.load(folder)
    happened: SimpleQueue[int] = SimpleQueue()
    _listen(happened)
    registry = Registry()
    record = registry.reserve(
        plan.name,
        origin=os.environ.get("NSACTORS_ORIGIN", "a batch job"),
        log=str(folder / "job.log"),
        stop_with=tuple(shlex.split(os.environ.get("NSACTORS_STOP_WITH", ""))),
        options=dict(plan.options),
    )
    token = secrets.token_hex(32)
    token_path, join_path = folder / "token", folder / "node.json"
    write_private(token_path, token)
    os.environ[MARK] = record.mark
    node = NodePlan(token, plan.engines or None, store_bytes=plan.store_bytes)
    try:
        with RayNode(node.with_cores(available_cores()), ended=lambda: happened.put(_RAY_ENDED)) as head:
            replace(node, address=head.address).save(join_path)
            job = _Job(plan, folder, head, happened)
            return job.run(lambda info: registry.update(replace(record, connection=info)))
    finally:
        for path in (join_path, token_path):
            path.unlink(missing_ok=True)
        end_leftovers(record.mark)
        registry.remove(record)


class _Job:
    def __init__(self, plan: JobPlan, folder: Path, head: RayNode, happened: SimpleQueue[int]) -> None:
        self._plan = plan
        self._head = head
        self._happened = happened
        self._folder = folder
        self._state = folder / "state"
        self._replays = plan.options.get("recovery") == "replay"
        self._cluster_id = restore_state(self._state, head.log_folder)
        threads = thread_environment(available_cores(), plan.engines or available_cores(), os.environ)
        options = {**plan.options, "environment": {**threads, **plan.options.get("environment", {})}}
        self._cluster = _ContinuedCluster(self._cluster_id, head.address, options)
        self._asked = 0

    def run(self, publish: Callable[[ConnectionInfo], object]) -> int:
        """Until something ends it.

        Args:
            publish: is told how clients reach the cluster, once they can.
        """
        ray = ray_runtime.join(self._head.address, ray_settings(str(self._folder / "token")))
        try:
            if self._cluster_id is not None:
                self._await_nodes(ray)
            client = self._cluster.start_cluster_sync().client
            _listen(self._happened)  # again: Ray has a handler of its own
            if self._cluster_id is not None:
                roster = client.session.roster
                self._asked = len({*roster.known, *roster.starting, *roster.away})
            publish(self._cluster.connection_info())
            return self._follow(ray, client)
        finally:
            # Politely, for clients: they are told. With the job, the batch system may have ended Ray already.
            stopping = threading.Thread(target=self._cluster.stop_cluster_sync, daemon=True)
            stopping.start()
            stopping.join(STOP_S)

    def _follow(self, ray: Any, client: Client) -> int:
        while True:
            wanted = engines_wanted(ray.nodes())
            if wanted > self._asked:
                self._cluster.start_engines(wanted - self._asked)
                self._asked = wanted
            try:
                number = self._happened.get(timeout=LOOK_S)
            except Empty:
                continue
            if number in _WARNINGS:
                self._save(client)
            else:
                if number in _ENDS:
                    self._copy_state()
                return 1 if number == _RAY_ENDED else 0

    def _save(self, client: Client) -> None:
        """The job is about to end: shorten the journals, and copy them to where the next job looks."""
        if not self._replays:
            return
        try:
            client[:].snapshot(block=False).wait(SNAPSHOT_S)  # one that is busy is saved as it was before
        except ConnectionLost as error:
            print(f"some engines are saved without a snapshot: {error}", file=sys.stderr)
        if self._copy_state():
            print(f"the engines' namespaces are saved in {self._state}", flush=True)

    def _copy_state(self) -> bool:
        """Whether there is something for the next job; a full disk must not end this one."""
        if not self._replays:
            return False
        try:
            save_state(self._head.log_folder, self._state)
        except (OSError, sqlite3.Error) as error:
            print(f"the engines' namespaces cannot be saved: {error}", file=sys.stderr, flush=True)
            return False
        return True

    def _await_nodes(self, ray: Any) -> None:
        give_up = time.monotonic() + JOIN_S
        while sum(node["Alive"] for node in ray.nodes()) < self._plan.nodes and time.monotonic() < give_up:
            try:
                self._happened.put(self._happened.get(timeout=LOOK_S))
                return  # the job ends already
            except Empty:
                continue


class _ContinuedCluster(Cluster):
    """A cluster that may go on from what one of the same id has left."""

    def __init__(self, cluster_id: str | None, address: str, options: Mapping[str, Any]) -> None:
        super().__init__(0, address=address, **options)
        self._cluster_id = cluster_id

    @property
    def client(self) -> Client:
        """The cluster's own client, once it runs."""
        return self._running()

    def _ray_backend(self) -> Backend:
        from nsactors.transport.ray import RayBackend

        return RayBackend(num_cpus=0, environment={}, startup=self._startup, cluster=self._cluster_id, **self._options)


def _listen(happened: SimpleQueue[int]) -> None:
    for number in (*_WARNINGS, *_ENDS):
        signal.signal(number, lambda number, frame: happened.put(number))


def main(folder: Path) -> NoReturn:
    """Run the job, and leave at once: at a usual exit Ray's driver looks for the cluster that has just been ended."""
    status = 1
    try:
        status = run_job(folder)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
