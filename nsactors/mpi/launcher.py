"""The launcher of a site's MPI, such as ``mpiexec`` or ``srun``: it starts placeholders, whose places engines take.

The launcher is started by the client. It needs the nodes of the engines in the order of the ranks: ``srun`` gets them
in a file. Other launchers use this machine alone, or the nodes that the user's options name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from nsactors.mpi.library import OPEN_MPI, Library
from nsactors.namespace.mpi_guard import ONE_MACHINE, OPEN_MPI_ONE_MACHINE

VARIABLE = "NSACTORS_MPI"
"""The environment variable of engines that names the launcher of their site."""
ASK_S = 10.0
END_S = 5.0
TOLD_CHARACTERS = 1_500
# Variables that a launcher gives to its ranks. A client that a launcher has started has such variables too.
_OF_A_RANK = ("PMI", "OMPI_COMM_WORLD", "OMPI_MCA_ess", "OMPI_MCA_orte", "HYDI_")
_ONE_MACHINE = {**ONE_MACHINE, **OPEN_MPI_ONE_MACHINE, "OMPI_MCA_oob_tcp_if_include": "lo"}
# Placeholders need no core each, and an engine does not take over the cores to which its placeholder is bound.
_OPEN_MPI_OPTIONS = ("--oversubscribe", "--bind-to", "none")
_OPEN_MPI_NAMES = ("orterun", "prterun", "mpirun.openmpi", "mpirun", "mpiexec")


def launcher_of(library: Library) -> tuple[str, ...]:
    """Return the command that starts ranks of a library on this machine; empty if it is not Open MPI's, or not here."""
    if library.name != OPEN_MPI:
        return ()
    beside = os.pathsep.join(str(folder / "bin") for folder in Path(library.path).parents[1:4])
    for folders in filter(None, (library.path and beside, os.environ.get("PATH"))):
        for name in _OPEN_MPI_NAMES:
            found = shutil.which(name, path=folders)
            if found is not None and _is_open_mpi(found):
                return (found, *_OPEN_MPI_OPTIONS)
    return ()


def _is_open_mpi(path: str) -> bool:
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=ASK_S, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return any(name in answer for name in (OPEN_MPI, "OpenRTE", "PRRTE"))


class MpiLauncher:
    """A running launcher.

    The launcher ends when its placeholders have ended, that is, when no engine of the world is left.

    Args:
        command: the launcher's command and options.
        placeholder: the command of a placeholder.
        nodes: the node of each rank.
        together: whether all ranks are on this machine.
        failed: called with the launcher's output if it ends before :meth:`close`, from a thread.

    Raises:
        OSError: if the command cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        placeholder: Sequence[str],
        nodes: Sequence[str],
        *,
        together: bool,
        failed: Callable[[str], object],
    ) -> None:
        self._failed = failed
        self._closing = threading.Event()
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_OF_A_RANK)}
        if together:
            environment = {**_ONE_MACHINE, **environment}
        options = ["-n", str(len(nodes))]
        with contextlib.ExitStack() as files:
            if is_srun(command):
                environment["SLURM_HOSTFILE"] = files.enter_context(_host_file(nodes))
                options += [f"--nodes={len(set(nodes))}", "--distribution=arbitrary"]
            # The output goes to a file: the launcher may outlive this process, which would read a pipe.
            self._output = files.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(
                [*command, *options, *placeholder],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C at a terminal is meant for this process
            )
            self._files = files.pop_all()
        threading.Thread(target=self._watch, name="nsactors-mpi-launcher", daemon=True).start()

    def let_go(self) -> None:
        """Leave the launcher to the engines of its world; some MPI libraries end a process without its launcher."""
        self._closing.set()

    def close(self) -> None:
        """End the launcher, and so the placeholders; a second call does nothing."""
        self._closing.set()
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _watch(self) -> None:
        with self._files:
            status = self._process.wait()
            if not self._closing.is_set():
                self._output.seek(0)
                self._failed(told_by(self._output.read().decode(errors="replace")) or f"with status {status}")


@contextmanager
def _host_file(nodes: Sequence[str]) -> Iterator[str]:
    """Write a file with which ``srun`` places tasks, a line for each rank; the file is removed after the block."""
    with tempfile.NamedTemporaryFile("w", prefix="nsactors-mpi-") as file:
        file.writelines(f"{node}\n" for node in nodes)
        file.flush()
        yield file.name


def is_srun(command: Sequence[str]) -> bool:
    """Return whether a command is Slurm's launcher."""
    return os.path.basename(command[0]) == "srun"


def in_job(command: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return a launcher's command for use outside of the job of the engines.

    Args:
        command: the command.
        environment: the environment of an engine.
    """
    job = environment.get("SLURM_JOB_ID")
    if not is_srun(command) or job is None or any(word.startswith("--jobid") for word in command):
        return tuple(command)
    return (command[0], f"--jobid={job}", *command[1:])


def told_by(text: str) -> str:
    r"""Return the text that a launcher has written, in one line and without rulers.

    Example:
        >>> told_by("-------\nThere are not enough slots\n\nin the system.\n-------\n")
        'There are not enough slots in the system'
    """
    words = " ".join(word for word in text.split() if word.strip("-=")).rstrip(".")
    return words if len(words) <= TOLD_CHARACTERS else f"{words[:TOLD_CHARACTERS]} …"
