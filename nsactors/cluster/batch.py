"""Batch systems: their scripts, commands and answers.

A script is made from a template with ``@name`` in place of each value, since ``$`` belongs to the shell; ``@@`` is an
``@``. The names are:

    name          the cluster's name
    nodes         the number of nodes
    cores         the number of cores to request on each node: one for each engine
    slots         the number of cores to request on all nodes together
    folder        the folder of the job's files, on a file system that all nodes see
    package       the folder with the copy of nsactors that the job runs, for PYTHONPATH
    python        the interpreter, as a word of the shell
    warning_s     the time before the limit, in seconds, at which engines begin to save their namespaces
    warning_min   the same in minutes, rounded up
    options       the user's options of the batch system, one directive on each line
"""

from __future__ import annotations

import importlib.resources
import os
import re
import shlex
import shutil
import string
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nsactors._frozen import frozen
from nsactors.cluster.batch_job import COPIES, JobPlan, copies_of_state
from nsactors.cluster.own_wheel import unpack_own_wheel
from nsactors.errors import ClusterNotFound, LaunchError
from nsactors.system.private_files import make_private
from nsactors.transport.registry import ClusterRecord, Registry


@frozen
class BatchJob:
    """The values of a batch script.

    Attributes:
        name: the cluster's name.
        nodes: the number of nodes.
        engines: the number of engines on each node; 0 for one on each core that the job has on the node.
        folder: the folder of the job's files, an absolute path on a file system that all nodes see.
        python: the path of the interpreter.
        options: options of the batch system's submit command, as words.
        warning_s: the time before the limit, in seconds, at which the engines begin to save their namespaces.
    """

    name: str
    nodes: int
    engines: int
    folder: str
    python: str
    options: tuple[str, ...] = ()
    warning_s: int = 120


@frozen
class BatchSystem:
    """The commands of a batch system.

    Attributes:
        name: the name of the system, as in ``nsactors launch NAME``.
        directive: the prefix of directives in a script.
        submit: the command that reads a script from stdin and prints the job's id.
        job_id: a regular expression whose first group is the id in the output of ``submit``.
        cancel: the command that ends a job; the id is appended.
        state: the command that prints the state of a job; the id is appended. See also ``lists``.
        unknown: a regular expression for the message with which ``state`` fails if the job has ended or never existed.
            If ``state`` fails with another message, the batch system does not answer.
        ended: a regular expression for the output of ``state`` if the job has ended but is still known.
        lists: True if ``state`` prints the user's jobs that wait or run, and no id is appended. The first word of a
            line is the id of a job.
    """

    name: str
    directive: str
    submit: tuple[str, ...]
    job_id: str
    cancel: tuple[str, ...]
    state: tuple[str, ...]
    unknown: str = ""
    ended: str = ""
    lists: bool = False

    def job_of(self, answer: str) -> str:
        """Return the id of a submitted job.

        Args:
            answer: the output of the submit command.

        Raises:
            ValueError: if the output contains no id.
        """
        found = re.search(self.job_id, answer)
        if found is None:
            raise ValueError(f"{self.submit[0]} printed no job id: {answer.strip()!r}")
        return found[1]

    def state_of(self, job_id: str) -> tuple[str, ...]:
        """Return the command that prints the state of a job."""
        return self.state if self.lists else (*self.state, job_id)

    def is_there(self, job_id: str, answer: str) -> bool:
        """Return whether a job waits or runs.

        Args:
            job_id: the id of the job.
            answer: the output of the command of :meth:`state_of`.
        """
        if self.lists:
            return any(line.split()[:1] == [job_id] for line in answer.splitlines())
        return bool(answer.strip()) and not re.search(self.ended or r"(?!)", answer, re.MULTILINE)

    def does_not_know(self, failure: str) -> bool:
        """Return whether the command of :meth:`state_of` has failed because the job has ended or never existed.

        Args:
            failure: the message of the command.
        """
        return bool(self.unknown) and re.search(self.unknown, failure) is not None


BATCH_SYSTEMS: Mapping[str, BatchSystem] = {
    system.name: system
    for system in (
        BatchSystem(
            "slurm",
            "#SBATCH",
            ("sbatch", "--parsable"),
            r"^(\d+)",
            ("scancel",),
            ("squeue", "--noheader", "--format=%T", "--jobs"),
            "Invalid job id",
            # Where the environment has SQUEUE_STATES=all, jobs that have ended are listed for some minutes. A job that
            # is COMPLETING has not ended: its processes may still be saving the engines.
            r"^(BOOT_FAIL|CANCELLED|COMPLETED|DEADLINE|FAILED|NODE_FAIL|OUT_OF_MEMORY|PREEMPTED|TIMEOUT)\b",
        ),
        BatchSystem(
            "pbs",
            "#PBS",
            ("qsub",),
            r"^(\d+\S*)",
            ("qdel",),
            ("qstat", "-f"),
            "Unknown Job|Job has finished",
            r"^\s*job_state = [CF]\b",  # C: Torque keeps jobs that have ended for some minutes
        ),
        BatchSystem(
            "sge",
            "#$",
            ("qsub", "-terse"),
            r"^(\d+)",
            ("qdel",),
            # `qstat -j` is not used: it knows a job that was deleted by force until all hosts of the job have reported.
            ("qstat", "-u", "$user", "-s", "prs"),
            lists=True,
        ),
        BatchSystem(
            "lsf",
            "#BSUB",
            ("bsub",),
            r"Job <(\d+)>",
            ("bkill",),
            ("bjobs", "-noheader", "-o", "stat"),
            "is not found",
            r"^\s*(DONE|EXIT|POST_DONE|POST_ERR)\b",  # jobs that have ended are listed for an hour
        ),
    )
}


PACKAGE, JOB_ID = "package", "job_id"  # names in the job's folder


class AtTemplate(string.Template):
    """A template with ``@name`` in place of each value, and ``@@`` for an ``@``."""

    delimiter = "@"


def batch_script(template: str, job: BatchJob, system: BatchSystem) -> str:
    r"""Return the text of a batch script.

    Args:
        template: the template; this module's docstring lists its names.
        job: the values.
        system: the batch system, for the prefix of directives.

    Raises:
        ValueError: if the template is empty, or has an unknown name or a stray ``@``, or a value contains a line break.

    Example:
        >>> job = BatchJob("lab", 2, 8, "/home/me/lab", "/usr/bin/python3", ("--time=1:00:00",))
        >>> print(batch_script("#SBATCH --nodes=@nodes\n@options", job, BATCH_SYSTEMS["slurm"]))
        #SBATCH --nodes=2
        #SBATCH --time=1:00:00
    """
    if not template.strip():
        raise ValueError("the template is empty")
    values = {
        "name": job.name,
        "nodes": job.nodes,
        "cores": max(1, job.engines),
        "slots": job.nodes * max(1, job.engines),
        "folder": shlex.quote(job.folder),
        "package": shlex.quote(f"{job.folder}/{PACKAGE}"),
        "python": shlex.quote(job.python),
        "warning_s": job.warning_s,
        "warning_min": -(-job.warning_s // 60),
        "options": "\n".join(f"{system.directive} {option}" for option in _directives(job.options)),
    }
    if any("\n" in text for text in (job.name, job.folder, job.python, *job.options)):
        raise ValueError("a value with a line break would be a line of its own in the batch script")
    try:
        return AtTemplate(template).substitute(values)
    except KeyError as error:
        raise ValueError(f"the template asks for @{error.args[0]}; there are {', '.join(sorted(values))}") from None


def _directives(options: Sequence[str]) -> list[str]:
    """Join each option with its value: one line for each directive, such as ``-p debug``."""
    lines: list[str] = []
    for word in options:
        if word.startswith("-") or not lines:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += " " + shlex.quote(word)
    return lines


LOOK_S = 1.0
GONE_AFTER_S = 5.0  # a job not listed for so long has ended; a busy batch system may not list a new job immediately


def template_of(system: str) -> str:
    """Return the default template of a batch system."""
    return (importlib.resources.files("nsactors.cluster") / "templates" / f"{system}.sh").read_text()


class Submission:
    """The submission of a cluster as a batch job.

    Args:
        system: the batch system's name.
        job: the values of the script.
        plan: the plan for the job's process.
        template: the template of the script; None for the batch system's default.

    Raises:
        ValueError: see :func:`batch_script`.
    """

    def __init__(self, system: str, job: BatchJob, plan: JobPlan, template: str | None = None) -> None:
        self._system: BatchSystem = BATCH_SYSTEMS[system]
        self._plan = plan
        self.folder = Path(job.folder)
        self.script = batch_script(template_of(system) if template is None else template, job, self._system)
        self.job_id = ""

    @property
    def saved(self) -> bool:
        """True if an earlier job has saved engines with which the new job can continue."""
        return any(folder.is_dir() for folder in copies_of_state(self.folder / "state"))

    def earlier_job(self) -> str | None:
        """Return the shell command that ends the job of an earlier submission; None if there is none.

        An earlier job that is just ending gets a few seconds to end.

        Raises:
            LaunchError: if the batch system does not answer.
        """
        try:
            name, job_id = (self.folder / JOB_ID).read_text().split()
            system = BATCH_SYSTEMS[name]
        except (FileNotFoundError, ValueError, KeyError):
            return None
        give_up, pause = time.monotonic() + GONE_AFTER_S, threading.Event()
        while True:
            failure = None
            try:
                if not self._is_known(system, job_id):
                    return None
            except LaunchError as error:
                failure = error
            if time.monotonic() >= give_up:
                break
            pause.wait(LOOK_S)
        if failure is not None:
            raise LaunchError(
                f"it is not known whether the cluster's earlier job {job_id} has ended. If it has, remove "
                f"{self.folder / JOB_ID}",
                str(failure),
            )
        return " ".join((*system.cancel, job_id))

    def submit(self, *, fresh: bool = False) -> str:
        """Write the script and a copy of nsactors, submit the script, and return the job's id.

        Args:
            fresh: delete the engines that an earlier job has saved, if the batch system accepts the new job.

        Raises:
            LaunchError: if the batch system does not accept the script, or there is no batch system.
        """
        make_private(self.folder)
        hidden = self._hide_state() if fresh else {}
        try:
            self.job_id = self._submit()
        except BaseException:
            for folder, aside in hidden.items():
                aside.rename(folder)
            raise
        for aside in hidden.values():
            shutil.rmtree(aside, ignore_errors=True)
        return self.job_id

    def _hide_state(self) -> dict[Path, Path]:
        """Rename the copies of the state, which the job would find when it begins; return their new names."""
        hidden = {}
        for folder in copies_of_state(self.folder / "state"):
            if folder.is_dir():
                hidden[folder] = aside = folder.with_name(f".forgotten-{folder.name}")
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
        return hidden

    def _submit(self) -> str:
        shutil.rmtree(self.folder / COPIES, ignore_errors=True)  # the files of a job that was killed
        self._plan.save(self.folder)
        unpack_own_wheel(self.folder / PACKAGE)
        path = self.folder / "job.sh"
        path.write_text(self.script)
        with open(path) as script:
            answer = self._run(*self._system.submit, stdin=script.fileno())
        try:
            job_id = self._system.job_of(answer)
        except ValueError as error:
            raise LaunchError(str(error)) from None
        (self.folder / JOB_ID).write_text(f"{self._system.name} {job_id}\n")
        return job_id

    def wait(
        self,
        registry: Registry,
        timeout_s: float | None = None,
        tell: Callable[[str], object] = lambda text: None,
    ) -> ClusterRecord:
        """Wait until clients can attach, and return the cluster's record.

        Args:
            registry: the list of clusters, to which the job adds its own.
            timeout_s: the limit in seconds; None waits as long as the job is in the queue, or the batch system does not
                answer.
            tell: called with a message when the batch system has not answered for a while.

        Raises:
            LaunchError: if the job ends first; the message includes the end of its log.
            TimeoutError: if the limit is reached. The job stays in the queue.
        """
        began = seen = answered = time.monotonic()
        pause, has_told = threading.Event(), False
        while True:
            record: ClusterRecord | None
            try:
                record = registry.find(self._plan.name)
            except ClusterNotFound:  # perhaps the cluster is listed only in the home folder that the job has
                record = registry.adopt(self.folder / COPIES / f"{self._plan.name}.json")
            if record is not None and record.connection is not None:
                return record
            now = time.monotonic()
            try:
                is_known = self._is_known(self._system, self.job_id)
            except LaunchError as error:
                if now - answered > GONE_AFTER_S and not has_told:
                    has_told = True
                    tell(f"it is not known whether job {self.job_id} is in the queue; waiting goes on: {error}")
                seen = now  # the job may be there
            else:
                answered = now
                if is_known:
                    seen = now
                elif now - seen > GONE_AFTER_S:
                    raise LaunchError(f"job {self.job_id} has ended before its cluster was up", self._end_of_log())
            if timeout_s is not None and now - began > timeout_s:
                raise TimeoutError(f"job {self.job_id} is not up after {timeout_s:g} s; it stays in the queue")
            pause.wait(LOOK_S)

    @property
    def cancel_command(self) -> str:
        """The shell command that ends the job."""
        return " ".join((*self._system.cancel, self.job_id))

    def _is_known(self, system: BatchSystem, job_id: str) -> bool:
        """Return whether a job is in the queue or runs.

        Raises:
            LaunchError: if the batch system does not answer.
        """
        try:
            return system.is_there(job_id, self._run(*system.state_of(job_id)))
        except LaunchError as error:
            if system.does_not_know(error.output):
                return False
            raise

    def _end_of_log(self) -> str:
        log = self.folder / "job.log"
        return "".join(log.read_text(errors="replace").splitlines(keepends=True)[-20:]) if log.exists() else ""

    def _run(self, *command: str, stdin: int = subprocess.DEVNULL) -> str:
        # A batch system may show the variables of a job to all users. The job has a token of its own, in a file.
        environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"}
        try:
            done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False, env=environment)
        except FileNotFoundError:
            raise LaunchError(f"there is no {command[0]} on this machine: run this where jobs are submitted") from None
        if done.returncode:
            raise LaunchError(f"{' '.join(command)} has failed", done.stderr or done.stdout)
        return done.stdout
