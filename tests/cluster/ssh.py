"""Machines that are reached over ssh, and a desk to reach them from::

    with SshMachines(3) as machines:
        with machines.desk.popen([sys.executable, "-c", PROGRAM], machines.environment) as program: ...

They share the files of this machine, except for the folder of the test, which each has for itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster import machines
from tests.cluster.machines import Machine, MachineProcess, Switch

__all__ = ["SshMachines", "why_not"]

ROOT = Path(__file__).parents[2]

SERVER = """
HostKey {keys}/host
AuthorizedKeysFile {keys}/client.pub
PidFile none
StrictModes no
UsePAM no
SetEnv TMPDIR={private}
"""
# The hosts do not know the key of `stranger`.
CLIENT = """
Host stranger
    HostName 10.78.0.2
    IdentityFile {keys}/host
Host * !stranger
    IdentityFile {keys}/client
Host *
    IdentitiesOnly yes
    UserKnownHostsFile /dev/null
    StrictHostKeyChecking no
    LogLevel ERROR
"""
# sshd wants a folder of its own in /run; and ssh takes its configuration from the user's real home folder.
SERVE = "mount -t tmpfs run /run && mkdir /run/sshd && exec /usr/sbin/sshd -D -e -f {keys}/sshd_config"
SSH = '#!/bin/sh\nexec /usr/bin/ssh -F {keys}/ssh_config "$@"\n'


def why_not() -> str | None:
    """Why there can be no such machines here; None if there can."""
    if not all(map(shutil.which, ("/usr/sbin/sshd", "ssh", "ssh-keygen"))):
        return "needs ssh and sshd"
    return machines.why_not()


class SshMachines:
    """A desk, and machines ``host-1``, ``host-2`` and so on, by these names.

    Args:
        count: how many beside the desk.
    """

    def __init__(self, count: int) -> None:
        # Short: the paths of sockets in it are limited to 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="ns-", dir="/tmp"))
        self._keys, self.private = self._folder / "keys", self._folder / "o"
        self._keys.mkdir(mode=0o700)
        self.private.mkdir()
        self._write_keys()
        self._switch = Switch(self.private)
        self._servers: list[MachineProcess] = []
        self.desk, *self.hosts = [self._plug_in(number) for number in range(count + 1)]
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SSH_"))},
            "HOME": str(self.private),
            "PATH": f"{self._keys}:{os.environ['PATH']}",
            "RAY_health_check_failure_threshold": "8",  # all machines share one, which may be busy
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "TMPDIR": str(self.private),
        }

    @property
    def key(self) -> Path:
        """The key for all hosts."""
        return self._keys / "client"

    def lose(self, number: int) -> None:
        """The power of a host fails: its connections are not closed, and its processes end."""
        self._switch.unplug(f"port{number}")
        self.hosts[number - 1].end()

    def start_host(self, number: int) -> None:
        """Switch on a host that was lost."""
        self.hosts[number - 1] = self._plug_in(number)

    def titles(self, machine: Machine) -> list[str]:
        """The command lines of what runs on a machine, sshd left out."""
        found = []
        for pid in machine.processes():
            try:
                title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except OSError:  # it has ended by now
                continue
            if title and "sshd" not in title.split()[0]:
                found.append(title)
        return found

    def files(self, machine: Machine) -> list[str]:
        """Return the files in a machine's own folder."""
        with machine.popen(["ls", "-A"]) as listing:
            return listing.communicate()[0].split()

    def close(self) -> None:
        """Switch everything off; nothing of it stays."""
        for machine in (self.desk, *self.hosts):
            machine.end()
        self._switch.end()
        for server in self._servers:
            server.communicate()
        shutil.rmtree(self._folder)

    def _plug_in(self, number: int) -> Machine:
        name = f"host-{number}" if number else "desk"
        machine = Machine(name, self.private, f"10.78.0.{number + 1}")
        self._switch.plug_in(machine, f"port{number}")
        if number:
            server = machine.popen(["sh", "-c", SERVE.format(keys=self._keys)])
            assert server.stderr is not None
            while "listening on" not in (line := server.stderr.readline()):
                assert line, "sshd does not start"
            self._servers.append(server)
        return machine

    def _write_keys(self) -> None:
        for name in ("host", "client"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._keys / name)]
            subprocess.run(command, check=True)
        for name, text in {"sshd_config": SERVER, "ssh_config": CLIENT, "ssh": SSH}.items():
            (self._keys / name).write_text(text.format(keys=self._keys, private=self.private))
        (self._keys / "ssh").chmod(0o755)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
