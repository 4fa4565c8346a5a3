"""Batch systems: what a script for one says, and what its commands answer.

A script is a template with ``@name`` where a value goes, since ``$`` belongs to the shell; ``@@`` is an ``@``. These
names there are:

    name          of the cluster
    nodes         how many
    cores         how many to ask for on each node: one for each engine
    slots         the same on all nodes together
    folder        of the job's files, on a file system that all nodes see
    python        the interpreter, as a word of the shell
    warning_s     seconds before the time limit at which engines are to save their namespaces
    warning_min   the same in minutes, rounded up
    options       what the user wants of the batch system: one directive a line
"""

from __future__ import annotations

import re
import shlex
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["SCHEDULERS", "BatchJob", "Scheduler", "batch_script"]


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A cluster that is to run as a batch job.

    Attributes:
        name: of the cluster.
        nodes: how many.
        engines: how many on each node; 0 for one on each core that the job has there.
        folder: of its files, an absolute path on a file system that all nodes see.
        python: the path of the interpreter.
        options: of the batch system's submitting command, as words.
        warning_s: how long before the time limit the engines are to save their namespaces.
    """

    name: str
    nodes: int
    engines: int
    folder: str
    python: str
    options: tuple[str, ...] = ()
    warning_s: int = 120


@dataclass(frozen=True, slots=True)
class Scheduler:
    """A batch system, by its commands.

    Attributes:
        name: what people call it.
        directive: what a line of a script begins with that is meant for it.
        submit: the command that takes a script as its stdin, and says the job's id.
        job_id: what is found of that answer.
        cancel: the command that ends a job, without the id that it ends with.
        state: the command that says the state of a job that there is, without the id.
    """

    name: str
    directive: str
    submit: tuple[str, ...]
    job_id: str
    cancel: tuple[str, ...]
    state: tuple[str, ...]

    def job_of(self, answer: str) -> str:
        """The id of a job that has been submitted.

        Args:
            answer: what the submitting command wrote.

        Raises:
            ValueError: if no id is in it.
        """
        found = re.search(self.job_id, answer)
        if found is None:
            raise ValueError(f"{self.submit[0]} says no job's id: {answer.strip()!r}")
        return found[1]


SCHEDULERS: Mapping[str, Scheduler] = {
    scheduler.name: scheduler
    for scheduler in (
        Scheduler(
            "slurm",
            "#SBATCH",
            ("sbatch", "--parsable"),
            r"^(\d+)",
            ("scancel",),
            ("squeue", "--noheader", "--format=%T", "--jobs"),
        ),
        Scheduler("pbs", "#PBS", ("qsub",), r"^(\d+\S*)", ("qdel",), ("qstat", "-f")),
        Scheduler("sge", "#$", ("qsub", "-terse"), r"^(\d+)", ("qdel",), ("qstat", "-j")),
        Scheduler("lsf", "#BSUB", ("bsub",), r"Job <(\d+)>", ("bkill",), ("bjobs", "-noheader", "-o", "stat")),
    )
}


class _Template(string.Template):
    delimiter = "@"


def batch_script(template: str, job: BatchJob, scheduler: Scheduler) -> str:
    r"""The text of a batch script.

    Args:
        template: see this module.
        job: what goes into it.
        scheduler: whose directives the job's options become.

    Raises:
        ValueError: if the template has other names, an ``@`` that belongs to none, or a value would break a line.

    Example:
        >>> job = BatchJob("lab", 2, 8, "/home/me/lab", "/usr/bin/python3", ("--time=1:00:00",))
        >>> print(batch_script("#SBATCH --nodes=@nodes\n@options", job, SCHEDULERS["slurm"]))
        #SBATCH --nodes=2
        #SBATCH --time=1:00:00
    """
    values = {
        "name": job.name,
        "nodes": job.nodes,
        "cores": max(1, job.engines),
        "slots": job.nodes * max(1, job.engines),
        "folder": shlex.quote(job.folder),
        "python": shlex.quote(job.python),
        "warning_s": job.warning_s,
        "warning_min": -(-job.warning_s // 60),
        "options": "\n".join(f"{scheduler.directive} {option}" for option in _directives(job.options)),
    }
    if any("\n" in text for text in (job.name, job.folder, job.python, *job.options)):
        raise ValueError("a value with a line break would be a line of its own in the batch script")
    try:
        return _Template(template).substitute(values)
    except KeyError as error:
        raise ValueError(f"the template asks for @{error.args[0]}; there are {', '.join(sorted(values))}") from None


def _directives(options: Sequence[str]) -> list[str]:
    """Words as they are typed behind a command, one option with its value a line: ``-p debug`` belongs together."""
    lines: list[str] = []
    for word in options:
        if word.startswith("-") or not lines:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += " " + shlex.quote(word)
    return lines
