"""Batch jobs that are clusters: written, submitted, waited for."""

from __future__ import annotations

import importlib.resources
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

from nsactors.cluster.job import JobPlan
from nsactors.core.batch import SCHEDULERS, BatchJob, Scheduler, batch_script
from nsactors.errors import ClusterNotFound, LaunchError
from nsactors.transport.registry import ClusterRecord, Registry

__all__ = ["Submission", "template_of"]

LOOK_S = 1.0
GONE_AFTER_S = 5.0  # without a job in the queue: a scheduler that is busy may not know it at once


def template_of(scheduler: str) -> str:
    """The usual template of a batch script."""
    return (importlib.resources.files("nsactors.cluster") / "templates" / f"{scheduler}.sh").read_text()


class Submission:
    """A cluster that is to be a batch job.

    Args:
        scheduler: the batch system's name.
        job: what the script says.
        plan: what the job's process is told.
        template: of the script.

    Raises:
        ValueError: if that makes no script.
    """

    def __init__(self, scheduler: str, job: BatchJob, plan: JobPlan, template: str | None = None) -> None:
        self._scheduler: Scheduler = SCHEDULERS[scheduler]
        self._plan = plan
        self.folder = Path(job.folder)
        self.script = batch_script(template or template_of(scheduler), job, self._scheduler)
        self.job_id = ""

    @property
    def saved(self) -> bool:
        """Whether an earlier job has left something to go on from."""
        return (self.folder / "state").is_dir()

    def forget(self) -> None:
        """Remove what an earlier job has left."""
        shutil.rmtree(self.folder / "state", ignore_errors=True)

    def submit(self) -> str:
        """Write the script, and hand it to the batch system; the job's id.

        Raises:
            LaunchError: if the batch system does not take it, or there is none.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._plan.save(self.folder)
        path = self.folder / "job.sh"
        path.write_text(self.script)
        with open(path) as script:
            answer = self._run(*self._scheduler.submit, stdin=script.fileno())
        try:
            self.job_id = self._scheduler.job_of(answer)
        except ValueError as error:
            raise LaunchError(str(error)) from None
        return self.job_id

    def wait(self, registry: Registry, timeout_s: float | None = None) -> ClusterRecord:
        """Return when clients can attach.

        Args:
            registry: where the job says so.
            timeout_s: how long at most; None: as long as the job is in the queue.

        Raises:
            LaunchError: if the job has ended before; the message holds the end of its log.
            TimeoutError: if it takes longer. The job stays.
        """
        began = seen = time.monotonic()
        pause = threading.Event()
        while True:
            try:
                record = registry.find(self._plan.name)
            except ClusterNotFound:
                record = None
            if record is not None and record.connection is not None:
                return record
            now = time.monotonic()
            if self._is_there():
                seen = now
            elif now - seen > GONE_AFTER_S:
                raise LaunchError(f"job {self.job_id} has ended before its cluster was up", self._end_of_log())
            if timeout_s is not None and now - began > timeout_s:
                raise TimeoutError(f"job {self.job_id} is not up after {timeout_s:g} s; it stays in the queue")
            pause.wait(LOOK_S)

    @property
    def cancel_command(self) -> str:
        """What ends the job."""
        return " ".join((*self._scheduler.cancel, self.job_id))

    def _is_there(self) -> bool:
        try:
            return bool(self._run(*self._scheduler.state, self.job_id).strip())
        except LaunchError:
            return False

    def _end_of_log(self) -> str:
        log = self.folder / "job.log"
        return "".join(log.read_text(errors="replace").splitlines(keepends=True)[-20:]) if log.exists() else ""

    def _run(self, *command: str, stdin: int = subprocess.DEVNULL) -> str:
        try:
            done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False, env=os.environ)
        except FileNotFoundError:
            raise LaunchError(f"there is no {command[0]} on this machine: is this where jobs are submitted?") from None
        if done.returncode:
            raise LaunchError(f"{' '.join(command)} has failed", done.stderr or done.stdout)
        return done.stdout
