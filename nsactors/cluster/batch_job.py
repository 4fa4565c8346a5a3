"""A cluster as a batch job: its process on the first node, and the state of continued jobs.

The process is the head of a Ray cluster of its own, starts engines as the other nodes join, and ends with the job. In
the job's folder, which all nodes see, it reads ``job.json``, and writes ``node.json``, the plan by which the other
nodes join, and ``state``, from which the next job continues.

``state`` holds the files that a new controller and a new journal replica would read after a crash: the members of the
cluster, and the journals of their namespaces. The cluster of the next job has the same id, and replays the journal of
each engine.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

from nsactors._frozen import frozen
from nsactors.client import Client
from nsactors.cluster.cluster import Cluster
from nsactors.cluster.node import use_short_paths
from nsactors.errors import ConnectionLost, TargetError
from nsactors.errors.reporting import print_traceback
from nsactors.namespace.module_versions import sources_folder
from nsactors.recovery.storage import note_saved, saved_at
from nsactors.results import AsyncResult
from nsactors.system.private_files import from_fields, private_folder_at, write_private
from nsactors.system.processes import MARK, end_leftovers
from nsactors.system.resources import available_cores, thread_environment
from nsactors.transport.base import Backend, ConnectionInfo
from nsactors.transport.ray.node_process import NodePlan, RayNode, ray_settings
from nsactors.transport.ray.nodes import engines_wanted
from nsactors.transport.ray.runtime import ray_runtime
from nsactors.transport.registry import ClusterRecord, Registry

COPIES = "cluster"  # in the job's folder
_FOLDER = re.compile(r"nsactors-(\w+)")
_JOURNAL = re.compile(r"(engine-\d+\.\d+)\.(?:journal|kept)")


def save_state(logs: Path, target: Path) -> None:
    """Copy the members and journals of a cluster, which may be running.

    This process may be killed at any moment, so the previous copy stays until the new one is complete.

    Args:
        logs: the log folder of Ray's processes on the cluster's head node.
        target: the folder for the copy.

    Raises:
        OSError: if the copy cannot be written.
        FileNotFoundError: if the cluster has no controller yet.
    """
    source = _cluster_folder(logs)
    previous = _previous(target)
    for unfinished in set(target.parent.glob(f".{target.name}-*")) - {previous}:
        shutil.rmtree(unfinished, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _copy_cluster(source, new / source.name)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if target.is_dir():  # if not, a process was killed between the two renames, and `previous` is the only copy
        shutil.rmtree(previous, ignore_errors=True)
        os.replace(target, previous)  # a rename cannot replace a folder that is not empty
    os.replace(new, target)
    shutil.rmtree(previous, ignore_errors=True)


def restore_state(saved: Path, logs: Path) -> str | None:
    """Copy a saved state into the folder of the new controller; return the cluster's id, or None without a state.

    Args:
        saved: the folder that :func:`save_state` has written.
        logs: the log folder of Ray's processes on the new cluster's head node.
    """
    found = next((folder for folder in copies_of_state(saved) if folder.is_dir()), None)
    if found is None:
        return None
    source = _cluster_folder(found)
    shutil.copytree(source, logs / source.name)
    return source.name.partition("-")[2]


def copies_of_state(saved: Path) -> tuple[Path, Path]:
    """Return the folder of a saved state, and the folder of the previous copy, for use if the first does not exist."""
    return saved, _previous(saved)


def _previous(target: Path) -> Path:
    return target.with_name(f".{target.name}-previous")


def _copy_cluster(source: Path, target: Path) -> None:
    (target / "controller").mkdir(parents=True)
    for database in sorted((source / "controller").glob("*.sqlite")):
        _copy_database(database, target / "controller" / database.name)
    if (sources := Path(sources_folder(str(source)))).is_dir():  # of the modules that requests in the journals used
        shutil.copytree(sources, sources_folder(str(target)))
    now = time.time()
    for folder in sorted(source.iterdir()):
        if match := _JOURNAL.fullmatch(folder.name):
            # The copies get the names that the journal replica gives: the next engines run on other nodes, and ask the
            # replica for their journals.
            _copy_journal(folder, target / f"{match[1]}.kept")
            # If this job has continued from a copy, and its engine is not recovered yet, the copy keeps its time.
            before = saved_at(os.fspath(folder))
            note_saved(os.fspath(target / f"{match[1]}.kept"), now if before is None else before)


def _cluster_folder(parent: Path) -> Path:
    for folder in parent.iterdir():
        if _FOLDER.fullmatch(folder.name) and (folder / "controller").is_dir():
            return folder
    raise FileNotFoundError(f"no controller of a cluster has written anything into {parent}")


def _copy_database(source: Path, target: Path) -> None:
    target.touch(mode=0o600)
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
        old.backup(new)


def _copy_journal(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    copied: set[Path] = set()
    while segments := sorted(set(source.glob("*.journal")) - copied):
        for segment in segments:
            with contextlib.suppress(FileNotFoundError):  # a snapshot has just replaced the segment: list again
                shutil.copy2(segment, target / segment.name)
                copied.add(segment)


LOOK_S = 0.5
JOIN_S = 60.0  # limit for the nodes of a continued job to join: all its engines start at the same time
SNAPSHOT_S = 60.0
STOP_GRACE_S = 3.0  # some batch systems leave 10 s between SIGTERM and SIGKILL, for the copy of the state as well
STOP_S = STOP_GRACE_S + 2.0
LOOK_STOPPED_S = 0.05

_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)  # Grid Engine's is the second
_ENDS = (signal.SIGTERM, signal.SIGINT)
_RAY_ENDED = 0
_SHORTER = -1  # the engines have shortened their journals

# At the time limit, a batch system signals all processes of a job at the same time, Ray's among them: engines would be
# killed with their files unwritten. So the job itself ends the engines this many seconds earlier, which is time enough
# for the grace period and one more copy of the state.
END_EARLY_S = STOP_S + 7.0
ASK_S = 5.0
NOTIFY_S = 60.0  # between Grid Engine's warning and its SIGKILL, unless the queue says otherwise


@frozen
class JobPlan:
    """The plan of a job, which its process reads.

    Attributes:
        name: the cluster's name.
        nodes: the number of nodes.
        engines: the number of engines on each node; 0 for one per core.
        store_bytes: the size of each node's object store in bytes; None for Ray's default.
        options: the options of the engines; see ``EngineKeywords``.
        warning_s: seconds before the time limit at which the batch system sends its warning; 0 if unknown.
    """

    name: str
    nodes: int
    engines: int
    store_bytes: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    warning_s: float = 0.0

    def save(self, folder: Path) -> None:
        """Write the plan into a job's folder."""
        write_private(folder / "job.json", json.dumps(asdict(self), indent=2))

    @classmethod
    def load(cls, folder: Path) -> JobPlan:
        """Read the plan from a job's folder.

        Raises:
            ValueError: if the file holds no plan.
        """
        return from_fields(cls, json.loads((folder / "job.json").read_text()))


def run_job(folder: Path) -> int:
    """Run the cluster until the job ends, a user stops it, or Ray ends; return the exit status.

    Args:
        folder: the job's folder.
    """
    use_short_paths()
    plan = JobPlan.load(folder)
    happened: SimpleQueue[int] = SimpleQueue()
    _listen(happened)
    registry, copies = Registry(), folder / COPIES
    shutil.rmtree(copies, ignore_errors=True)  # the files of a job that was killed
    record = registry.reserve(
        plan.name,
        origin=os.environ.get("NSACTORS_ORIGIN", "a batch job"),
        log=str(folder / "job.log"),
        stop_with=tuple(shlex.split(os.environ.get("NSACTORS_STOP_WITH", ""))),
        enter_with=tuple(shlex.split(os.environ.get("NSACTORS_ENTER_WITH", ""))),
        options=dict(plan.options),
    )
    token = secrets.token_hex(32)
    token_path, join_path = folder / "token", folder / "node.json"
    write_private(token_path, token)
    os.environ[MARK] = record.mark
    node = NodePlan(token, plan.engines or None, store_bytes=plan.store_bytes)

    def withdraw() -> None:
        """Remove the files by which clients and nodes find the cluster."""
        shutil.rmtree(copies, ignore_errors=True)
        for path in (join_path, token_path):
            path.unlink(missing_ok=True)
        registry.remove(record)

    try:
        with (
            RayNode(node.with_cores(available_cores()), ended=lambda: happened.put(_RAY_ENDED)) as head,
            # Before Ray ends: its end takes seconds on a busy machine, in which the batch system may kill this process,
            # and a process whose Ray has ended may be ended by Ray.
            contextlib.ExitStack() as at_end,
        ):
            at_end.callback(withdraw)
            replace(node, address=head.address).save(join_path)
            job = _Job(plan, folder, head, happened)
            return job.run(lambda info: _publish(replace(record, connection=info), registry, copies))
    finally:
        withdraw()  # also if Ray has not started
        end_leftovers(record.mark)


def _publish(record: ClusterRecord, registry: Registry, copies: Path) -> None:
    """List the cluster here, and leave a copy of its record for machines with another home folder."""
    registry.update(record)
    private_folder_at(copies)
    Registry(copies).update(record)


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
        self._saving = _Saving(self._copy_state, self._state)

    def run(self, publish: Callable[[ConnectionInfo], object]) -> int:
        """Run the cluster; return the exit status.

        Args:
            publish: called with the connection information when clients can connect.
        """
        ray = ray_runtime.join(self._head.address, ray_settings(str(self._folder / "token")))
        try:
            if self._cluster_id is not None:
                self._await_nodes(ray)
            client = self._cluster.start_cluster_sync().client
            _listen(self._happened)  # again: Ray has installed its own handlers
            ray_runtime.leave_servers_unwatched()  # the head's `ended` reports the end of Ray
            if self._cluster_id is not None:
                directory = client.session.directory
                self._asked = len({*directory.known, *directory.starting, *directory.away})
            publish(self._cluster.connection_info())
            return self._follow(ray, client)
        finally:
            # A graceful stop notifies clients and lets engines close their files. At the end of a job the batch system
            # may have ended Ray already: the stop would hang, and Ray would end this process before its clean-up. So
            # the stop has a thread and a limit.
            stop = partial(self._cluster.stop_cluster_sync, grace=STOP_GRACE_S)
            stopping = threading.Thread(target=stop, daemon=True)
            stopping.start()
            give_up = time.monotonic() + STOP_S
            while stopping.is_alive() and self._head.is_running and time.monotonic() < give_up:
                stopping.join(LOOK_STOPPED_S)

    def _follow(self, ray: Any, client: Client) -> int:
        # This thread makes no calls to Ray: they may hang for a minute when the batch system ends Ray, and the time
        # between its signals is short.
        threading.Thread(target=self._look_after_engines, args=(ray, client), daemon=True).start()
        end_at: float | None = None
        while True:
            try:
                number = self._happened.get(timeout=None if end_at is None else max(0.0, end_at - time.monotonic()))
            except Empty:
                print("the time limit is near: the engines are ended gracefully", flush=True)
                self._copy_state()
                return 0
            if number in _WARNINGS:
                self._saving.begin()
                end_at = orderly_end(seconds_left(number, self._plan.warning_s, os.environ), time.monotonic())
            elif number == _SHORTER:
                self._copy_state()
            else:
                # Copy the state even if Ray has ended: at the end of a job the batch system may end Ray first.
                self._copy_state()
                return 1 if number == _RAY_ENDED else 0

    def _look_after_engines(self, ray: Any, client: Client) -> None:
        pause = threading.Event()
        while self._head.is_running:
            try:
                wanted = engines_wanted(ray.nodes())
                if wanted > self._asked:
                    self._cluster.start_engines(wanted - self._asked)
                    self._asked = wanted
                if self._saving.look(client):
                    self._happened.put(_SHORTER)
            except Exception:  # without this thread, no more engines would be started
                if self._head.is_running:
                    print_traceback()
            pause.wait(LOOK_S)

    def _copy_state(self) -> bool:
        """Save the state for the next job; return whether that succeeded. A full disk must not end this job."""
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
                return  # a signal ends the job
            except Empty:
                continue


def orderly_end(left_s: float | None, now: float) -> float | None:
    """Return the time at which a job that has been warned stops its engines; None if its limit is not known.

    Args:
        left_s: the time until the limit in seconds; None if the limit is not known.
        now: the time now, in seconds on the clock of the result.
    """
    return None if left_s is None else now + max(0.0, left_s - END_EARLY_S)


def seconds_left(number: int, warning_s: float, environment: Mapping[str, str]) -> float | None:
    """Return the seconds until the limit of a job that has just been warned; None if the limit is not known.

    Slurm may warn a minute early, and users send the same signal to save their engines, so ``squeue`` is asked for the
    end of the job. Grid Engine sends SIGUSR2 before it kills a job, at its limit or because a user deletes it, and
    SIGUSR1 before it suspends one. The configuration of the queue sets the time between the signal and the action.

    Args:
        number: the signal.
        warning_s: see :class:`JobPlan`.
        environment: the environment variables of the job.
    """
    if "SGE_TASK_ID" in environment:
        return _notify_s(environment) if number == signal.SIGUSR2 else None
    job_id = environment.get("SLURM_JOB_ID")
    if job_id is None:
        return NOTIFY_S if number == signal.SIGUSR2 else warning_s or None
    ask = ("squeue", "--noheader", "--format=%e", "--jobs", job_id)
    try:
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=ASK_S, check=True).stdout.strip()
        return datetime.fromisoformat(answer).timestamp() - time.time()
    except (OSError, subprocess.SubprocessError, ValueError) as error:  # ValueError: no limit
        text = "the job's time limit is not known, so its engines are not ended gracefully"
        print(f"{text}: {error}", file=sys.stderr, flush=True)
        return None


def _notify_s(environment: Mapping[str, str]) -> float:
    """Return the seconds between the warning and SIGKILL in the job's queue of Grid Engine, or the default."""
    ask = ("qconf", "-sq", f"{environment.get('QUEUE')}@{environment.get('HOSTNAME')}")
    try:
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=ASK_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # hosts of jobs may not be allowed to ask
        return NOTIFY_S
    found = re.search(r"^notify\s+(\d+):(\d+):(\d+)\s*$", answer, re.MULTILINE)
    if found is None:
        return NOTIFY_S
    hours, minutes, seconds = map(int, found.groups())
    return 3600.0 * hours + 60.0 * minutes + seconds


class _Saving:
    """Saves the engines before the job ends, so that the next job can continue; no method blocks.

    One thread calls :meth:`begin`, and another polls :meth:`look`.

    Args:
        copy: copies the journals in their present state; returns whether that succeeded.
        state: the folder of the copy.
    """

    def __init__(self, copy: Callable[[], bool], state: Path) -> None:
        self._copy = copy
        self._state = state
        self._has_begun = threading.Event()
        self._snapshots: AsyncResult | None = None
        self._give_up = 0.0

    def begin(self) -> None:
        """Copy the journals immediately, because the job may end at any moment; then `look` has them shortened."""
        if self._copy():
            print(f"the engines' namespaces are saved in {self._state}", flush=True)
            self._has_begun.set()

    def look(self, client: Client) -> bool:
        """Take snapshots, which shorten the journals; return True once, when they have been taken or the time is up."""
        if self._has_begun.is_set():
            self._has_begun.clear()
            self._give_up = time.monotonic() + SNAPSHOT_S
            try:
                self._snapshots = client[:].snapshot(block=False)
            except (ConnectionLost, TargetError) as error:
                print(f"the engines' namespaces are saved without snapshots: {error}", file=sys.stderr, flush=True)
        snapshots = self._snapshots
        if snapshots is None or not (snapshots.done() or time.monotonic() > self._give_up):
            return False
        self._snapshots = None
        return True


class _ContinuedCluster(Cluster):
    """A cluster that may continue from the saved state of one with the same id."""

    def __init__(self, cluster_id: str | None, address: str, options: Mapping[str, Any]) -> None:
        super().__init__(0, address=address, **options)
        self._cluster_id = cluster_id

    @property
    def client(self) -> Client:
        """The cluster's own client, once it runs."""
        return self._running()

    def _ray_backend(self) -> Backend:
        from nsactors.transport.ray.transport import RayBackend

        return RayBackend(
            num_cpus=0,
            environment={},
            startup=self._startup,
            stop_grace_s=self._stop_grace_s,
            cluster=self._cluster_id,
            **self._options,
        )


def _listen(happened: SimpleQueue[int]) -> None:
    for number in (*_WARNINGS, *_ENDS):
        signal.signal(number, lambda number, frame: happened.put(number))


def main(folder: Path) -> NoReturn:
    """Run the job, and exit without Ray's exit handlers, which would search for the cluster that has just ended."""
    status = 1
    try:
        status = run_job(folder)
    except BaseException:
        print_traceback()
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
