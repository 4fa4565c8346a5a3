"""Stand-ins for the commands of PBS and LSF, which run real processes on hosts that ssh reaches.

They keep to the manuals where a cluster depends on it: which variables a job has, where its output goes, how its other
hosts are reached, and which signals come, in which order and how long before SIGKILL. They schedule nothing: a job
starts at once, on the first hosts of the list. ``BATCH_FOLDER`` is a folder that all machines see; it holds ``hosts``,
a list of addresses, and a folder for each job. A file ``limit`` in the latter gives a running job another time limit in
seconds, as operators do with ``qalter`` and ``bmod``.

This file is a program, whose first argument is the command: ``qsub``, ``bsub`` and so on.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

COMMANDS = ("qsub", "qdel", "qstat", "pbsdsh", "bsub", "bkill", "bjobs", "blaunch")
LOOK_S = 0.2
# Between the signals that end a job. By default it is ten seconds in both systems, which is little for the stop of a
# cluster on a busy machine. Sites set it: `kill_delay` of a queue, JOB_TERMINATE_INTERVAL.
KILL_DELAY_S = 60.0

# Seconds after which each signal comes, for a job that is deleted or has reached its limit.
PBS_END = ((0.0, signal.SIGTERM), (KILL_DELAY_S, signal.SIGKILL))
LSF_END = ((0.0, signal.SIGINT), (KILL_DELAY_S, signal.SIGTERM), (2 * KILL_DELAY_S, signal.SIGKILL))
# What a job of PBS has of the variables of the user, unless it was submitted with -V.
LOGIN = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "USER")

FOLDER = Path(os.environ.get("BATCH_FOLDER", "/nowhere"))
SELF = Path(__file__).resolve()


def job_folder(job: str) -> Path:
    """Return the folder of a job."""
    return FOLDER / job.partition(".")[0]


def load(job: str) -> dict:
    """Return what is known of a job."""
    return json.loads((job_folder(job) / "job.json").read_text())


def submit(directive: str) -> str:
    """Start the job in the script on stdin, and return its number."""
    script = sys.stdin.read()
    words = [word for line in script.splitlines() if line.startswith(f"{directive} ") for word in shlex.split(line)[1:]]
    given = dict(zip(words[::2], words[1::2], strict=True)) if directive == "#BSUB" else {}
    resources = dict(word.split("=", 1) for word in words if "=" in word)
    hosts = (FOLDER / "hosts").read_text().split()
    if given:
        per_host = int(re.search(r"ptile=(\d+)", given["-R"])[1])
        hosts = [host for host in hosts[: int(given["-n"]) // per_host] for _ in range(per_host)]
        limit, ahead = float(given.get("-W", "inf")) * 60, float(given["-wt"]) * 60
        output, environment = given["-o"], dict(os.environ)
    else:
        hosts = hosts[: int(resources["select"].partition(":")[0])]
        limit, ahead = (
            sum(int(n) * 60**i for i, n in enumerate(reversed(resources.get("walltime", "9999:0:0").split(":")))),
            0,
        )
        output, environment = (
            words[words.index("-o") + 1],
            {name: os.environ[name] for name in LOGIN if name in os.environ},
        )
    number = str(1 + sum(path.is_dir() for path in FOLDER.iterdir()))
    folder = FOLDER / number
    folder.mkdir()
    (folder / "script").write_text(script)
    job = {
        "hosts": hosts,
        "limit": limit,
        "ahead": ahead,
        "output": output,
        "environment": environment,
        "lsf": bool(given),
    }
    (folder / "job.json").write_text(json.dumps(job))
    null = subprocess.DEVNULL
    subprocess.Popen(
        [sys.executable, SELF, "control", number], stdin=null, stdout=null, stderr=null, start_new_session=True
    )
    return number


def control(number: str) -> None:
    """Run a job to its end: the batch system's own process."""
    job, folder = load(number), job_folder(number)
    signals = LSF_END if job["lsf"] else PBS_END
    main = on_host(job["hosts"][0], "task", number)
    began, pause = time.monotonic(), threading.Event()
    warned, ending, sent = not job["ahead"], None, 0
    while main.poll() is None and sent < len(signals):
        now = time.monotonic() - began
        limit = float((folder / "limit").read_text()) if (folder / "limit").exists() else job["limit"]
        if not warned and now > limit - job["ahead"]:
            warned = True
            signal_all(number, signal.SIGUSR1)
        if ending is None and (now > limit or (folder / "deleted").exists()):
            ending = now
        if ending is not None and now >= ending + signals[sent][0]:
            signal_all(number, signals[sent][1])
            sent += 1
        pause.wait(LOOK_S)
    signal_all(number, signal.SIGKILL)
    main.wait()
    with open(job["output"], "ab") as log:
        log.write((folder / "output").read_bytes())
    (folder / "ended").touch()


def signal_all(number: str, which: int) -> None:
    """Send a signal to every process of each session of a job."""
    for host in dict.fromkeys(load(number)["hosts"]):
        on_host(host, "signal", number, str(int(which))).wait()


def on_host(host: str, *words: str) -> subprocess.Popen[bytes]:
    """Run this file on a host."""
    command = ["env", f"BATCH_FOLDER={FOLDER}", sys.executable, str(SELF), *words]
    ssh = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", host, "--"]  # a host may have been lost
    return subprocess.Popen([*ssh, shlex.join(command)], stdin=subprocess.DEVNULL)


def task(number: str, *command: str) -> None:
    """Become the job's script, or a command of the job on this host."""
    job, folder = load(number), job_folder(number)
    host = os.uname().nodename
    environment = {**job["environment"], "HOSTNAME": host, "TMPDIR": os.environ.get("TMPDIR", "/tmp")}
    names = [line.split()[0] for line in job["hosts"]]
    if job["lsf"]:
        environment |= {"LSB_JOBID": number, "LSB_HOSTS": " ".join(names)}
    else:
        nodes = folder / "nodes"
        nodes.write_text("".join(f"{name}\n" for name in names))
        environment |= {"PBS_JOBID": f"{number}.desk", "PBS_NODEFILE": str(nodes), "PBS_ENVIRONMENT": "PBS_BATCH"}
    environment |= {"BATCH_FOLDER": str(FOLDER)}
    if os.getpid() != os.getsid(0):
        if os.fork():  # the session's first process must be another
            os.wait()
            os._exit(0)
        os.setsid()
    (folder / f"session-{host}-{os.getpid()}").touch()
    out = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    words = list(command) or ["/bin/bash", str(folder / "script")]
    os.execvpe(words[0], words, environment)


def signal_here(number: str, which: str) -> None:
    """Send a signal to the job's sessions on this host."""
    sessions = {
        int(path.name.rpartition("-")[2]) for path in job_folder(number).glob(f"session-{os.uname().nodename}-*")
    }
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getsid(int(entry)) in sessions:
                os.kill(int(entry), int(which))
        except ProcessLookupError:
            continue


def is_there(job: str) -> bool:
    """Return whether a job is known and has not ended."""
    return job_folder(job).is_dir() and not (job_folder(job) / "ended").exists()


def main(name: str, *words: str) -> int:
    """Act as a command; return the exit status."""
    match name:
        case "control":
            control(*words)
        case "task":
            task(*words)
        case "signal":
            signal_here(*words)
        case "qsub":
            print(f"{submit('#PBS')}.desk")
        case "bsub":
            print(f"Job <{submit('#BSUB')}> is submitted to default queue <normal>.")
        case "qdel" | "bkill":
            (job_folder(words[-1]) / "deleted").touch()
        case "qstat":
            if not is_there(words[-1]):
                print(f"qstat: Unknown Job Id {words[-1]}", file=sys.stderr)
                return 153
            print(f"Job Id: {words[-1]}\n    job_state = R")
        case "bjobs":  # which knows ended jobs for an hour
            print("RUN" if is_there(words[-1]) else "EXIT")
        case "pbsdsh":
            _, number, _, *command = words
            job = os.environ["PBS_JOBID"].partition(".")[0]
            return on_host(load(job)["hosts"][int(number)], "task", job, *command).wait()
        case "blaunch":
            host, *command = words
            return on_host(host, "task", os.environ["LSB_JOBID"], *command).wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
