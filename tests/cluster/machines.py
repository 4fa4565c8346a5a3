"""Machines made of Linux namespaces: each with its own network card, name, processes, shared memory and folder.

A machine lives as long as this process holds a pipe open: when it ends, however it does, the kernel ends every process
of the machine and takes its network away. No name and no address is shared with the real machine or with another run.

Processes are apart too, for what looks around among them: a Ray driver takes the first raylet that it sees for its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Machine", "MachineProcess", "Switch", "why_not"]

CARD = "eth0"
NAMESPACES = ("--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc")

# The first process of a machine. Like every init it adopts orphans and reaps them; it ends when its stdin is closed.
INIT = r"""
set -e
hostname "$1"
mount -t tmpfs shm /dev/shm
mount -t tmpfs private "$2"
printf '127.0.0.1 localhost\n%s %s\n' "$3" "$1" > "$2/hosts"
mount --bind "$2/hosts" /etc/hosts
rm "$2/hosts"
ip link set lo up
echo up
read
"""


def why_not() -> str | None:
    """Why there can be no machines here; None if there can."""
    needed = ("ip", "unshare", "nsenter", "bash")
    if os.geteuid() != 0 or not all(map(shutil.which, needed)):
        return f"needs root, and the commands {', '.join(needed)}"
    trial = subprocess.run(
        ["unshare", *NAMESPACES, "ip", "link", "add", "x", "type", "veth"], capture_output=True, text=True, check=False
    )
    return f"needs namespaces and virtual network cards: {trial.stderr.strip()}" if trial.returncode else None


class MachineProcess(subprocess.Popen[str]):
    """A process on a machine.

    ``pid`` is that of a shell beside the machine, whose child it is and which ends with it: its ``returncode`` is the
    process's own, or 128 and the number of the signal that has ended it. Both are in a process group of their own.
    """

    def send_signal(self, sig: int) -> None:
        """Signal the process itself; ``terminate`` and ``kill`` do so too."""
        if self.poll() is None:
            for pid in _children(self.pid) or [self.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sig)

    def read_line(self) -> str:
        """The next line that it writes to stdout.

        Raises:
            EOFError: if there is none; the message holds what it wrote to stderr.
        """
        assert self.stdout is not None
        line = self.stdout.readline()
        if not line:
            raise EOFError(f"the process has ended with status {self.wait()}\n{self.stderr and self.stderr.read()}")
        return line.removesuffix("\n")


class Machine:
    """A machine that is switched on.

    Args:
        name: its host name.
        folder: a folder that exists; the machine has an empty one of its own in its place, in memory.
        address: the IPv4 address of its network card, once it is plugged in.
    """

    def __init__(self, name: str, folder: Path, address: str) -> None:
        self.name = name
        self.address = address
        self._folder = folder
        # `unshare` is the parent of the first process, and ends with it.
        self._power = subprocess.Popen(
            ["unshare", *NAMESPACES, "bash", "-c", INIT, "init", name, str(folder), address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # no Ctrl-C of ours
        )
        assert self._power.stdout is not None
        if self._power.stdout.readline() != "up\n":
            self.end()
            raise OSError(f"the machine {name} does not start: what it wrote is on stderr")
        self._init = _children(self._power.pid)[0]

    def popen(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        stderr: int = subprocess.PIPE,
    ) -> MachineProcess:
        """Start a process on the machine, in its folder; its streams are pipes."""
        # A shell between: `nsenter` itself would stop when its child is stopped, and be left if we ended then.
        enter = ["nsenter", "--all", "--no-fork", f"--target={self._init}", "--"]
        return MachineProcess(
            [*enter, "sh", "-c", 'cd "$0" && "$@"; exit "$?"', str(self._folder), *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )

    def ip(self, *commands: str) -> None:
        """Run commands of ``ip`` in the machine's network."""
        batch = ["nsenter", f"--net=/proc/{self._init}/ns/net", "ip", "-batch", "-"]
        subprocess.run(batch, input="\n".join(commands), text=True, check=True)

    @property
    def pid(self) -> int:
        """Of the machine's first process, as the real machine counts them."""
        return self._init

    def processes(self) -> list[int]:
        """Return the process ids, as on the real machine, of all processes but the first one."""
        mine = os.stat(f"/proc/{self._init}/ns/pid")
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended by now
                if os.path.samestat(os.stat(entry / "ns" / "pid"), mine) and entry.name != str(self._init):
                    found.append(int(entry.name))
        return found

    def freeze(self) -> None:
        """Stop every process, and the processes that these start until they are stopped.

        The first process goes on: it does nothing, and ends the others if this process ends.
        """
        stopped: set[int] = set()
        while running := set(self.processes()) - stopped:
            _signal(running, signal.SIGSTOP)
            stopped |= running

    def thaw(self) -> None:
        """Let every process go on."""
        _signal(self.processes(), signal.SIGCONT)

    def traffic(self) -> tuple[int, int]:
        """Bytes that the network card has received and sent, frames and headers included."""
        for line in Path(f"/proc/{self._init}/net/dev").read_text().splitlines():
            card, _, counters = line.partition(":")
            if card.strip() == CARD:
                received, *_, sent = counters.split()[:9]
                return int(received), int(sent)
        raise LookupError(f"the machine {self.name} is not plugged in")

    def end(self) -> None:
        """Switch the machine off: all its processes are killed at once, and have gone when this returns."""
        # The first process ends, its stdin being closed; the kernel then kills the others, and it is not over before.
        self._power.communicate()


class Switch(Machine):
    """A switch to which machines are connected: a machine whose network is a bridge."""

    def __init__(self, folder: Path) -> None:
        super().__init__("switch", folder, "127.0.1.1")
        self.ip("link add bridge type bridge", "link set bridge up")

    def plug_in(self, machine: Machine, port: str) -> None:
        """Connect a machine; all of them belong to one /24 network, from which nothing leads out.

        Args:
            machine: what to connect.
            port: a name for the place where it is plugged in.
        """
        # A machine that is started anew has the card that it had: others remember its number.
        hardware = ":".join(f"{byte:02x}" for byte in (2, 0, *map(int, machine.address.split("."))))
        self.ip(
            f"link add {port} type veth peer name {CARD} address {hardware} netns {machine.pid}",
            f"link set {port} master bridge up",
        )
        machine.ip(f"addr add {machine.address}/24 dev {CARD}", f"link set {CARD} up")

    def unplug(self, port: str) -> None:
        """Remove the connection and the machine's card."""
        self.ip(f"link delete {port}")

    def set_link(self, port: str, state: str) -> None:
        """``"down"`` pulls the cable out, ``"up"`` puts it in again; the machine keeps card and address."""
        self.ip(f"link set {port} {state}")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _signal(pids: Sequence[int] | set[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
