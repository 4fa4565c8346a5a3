"""The time that a batch job has left, from the answers of its batch system."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable

from nsactors._frozen import frozen
from nsactors.transport.registry import ClusterRecord

ASK_S = 5.0


@frozen
class _Limit:
    """The command that asks a batch system for the time of a job, and the form of its answer.

    Attributes:
        command: the command; the job's id is appended.
        answer: a regular expression for the time in the answer, which is its first group.
        is_left: True if that is the time left, and False if it is the time limit.
    """

    command: tuple[str, ...]
    answer: str
    is_left: bool


_LIMITS = {
    "Slurm": _Limit(("squeue", "--noheader", "--format=%L", "--jobs"), r"^([\d:-]+)\s*$", True),
    "LSF": _Limit(("bjobs", "-noheader", "-o", "time_left"), r"^(\d+:\d+)\b", True),
    "PBS": _Limit(("qstat", "-f"), r"Resource_List\.walltime = ([\d:]+)", False),
    "Grid Engine": _Limit(("qstat", "-j"), r"^hard resource_list:.*\bh_rt=([\d:]+)", False),
}
_ORIGIN = re.compile(rf"({'|'.join(_LIMITS)}) job (\S+)")


def time_left_s(origin: str, age_s: float) -> float | None:
    """Return the seconds until the time limit of a cluster's batch job; None without a job, a limit or an answer.

    Args:
        origin: how the cluster was started, such as ``"Slurm job 4711"``.
        age_s: its age in seconds.
    """
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return None
    command = (*_LIMITS[match[1]].command, match[2])
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return left_in_answer(match[1], answer, age_s)


def time_left_of(namespace: str, records: Iterable[ClusterRecord], now: float) -> float | None:
    """Return the seconds that the batch job of a client's cluster has left; for None, see :func:`time_left_s`.

    Args:
        namespace: the namespace of the client's transport.
        records: the user's clusters in the background.
        now: seconds since the epoch.
    """
    for record in records:
        if record.connection is not None and record.connection.namespace == namespace:
            return time_left_s(record.origin, now - record.started)
    return None


def time_in_words(duration_s: float) -> str:
    """Return a time in its two largest units, such as ``1 h 30 min``."""
    minutes, seconds = divmod(int(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    match days, hours, minutes:
        case 0, 0, 0:
            return f"{seconds} s"
        case 0, 0, _:
            return f"{minutes} min"
        case 0, _, _:
            return f"{hours} h {minutes} min"
    return f"{days} d {hours} h"


def left_in_answer(system: str, answer: str, age_s: float) -> float | None:
    """Return the seconds that a batch system's answer leaves a job; None if there is no limit in it.

    Args:
        system: the batch system: Slurm, PBS, Grid Engine or LSF.
        answer: the output of its command.
        age_s: the age of the cluster in seconds, for batch systems that report only the limit.

    Example:
        >>> left_in_answer("Slurm", "1-02:00:30", 0.0)
        93630.0
    """
    limit = _LIMITS[system]
    found = re.search(limit.answer, answer, re.MULTILINE)
    if found is None:
        return None
    try:
        seconds = _seconds(found[1], minutes_last=system == "LSF")
    except ValueError:
        return None
    return seconds if limit.is_left else max(0.0, seconds - age_s)


def _seconds(text: str, *, minutes_last: bool) -> float:
    """Return a time such as ``2:00:00`` or ``1-02:00:00`` in seconds; ``minutes_last``: ``2:00`` is two hours."""
    days, _, clock = text.rpartition("-")
    total = 0
    for part in clock.split(":"):
        total = 60 * total + int(part)
    return 86400.0 * int(days or 0) + (60.0 * total if minutes_last else total)
