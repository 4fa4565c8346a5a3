"""Ray's cluster launcher brings up machines, and engines on them; it takes minutes."""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsactors.cluster.ray_launcher import example as example_text
from nsactors.testing import wait_until
from tests.cluster.machines import Machine
from tests.cluster.ssh import SshMachines, why_not

REASON = why_not() or (None if shutil.which("rsync") else "needs rsync, by which Ray's launcher sends files")
ROOT = Path(__file__).parents[2]
FILE = "local.yaml"
RUN_LIMIT_S = 450.0  # busy cores: Ray starts twice, over ssh

pytestmark = [
    pytest.mark.ray,
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]

# Root gets a home folder of its own on each machine: the launcher writes into it. Login shells know nothing of Python.
HOME = r"""
set -e
sed "s#^\(root:.*\):/root:#\1:$PWD:#" /etc/passwd > passwd
mount --bind passwd /etc/passwd
mkdir bin .ssh
for command in nsactors:nsactors.cli ray:ray.scripts.scripts; do
    printf '#!/bin/sh\nexec %s -c "from %s import main; main()" "$@"\n' "$0" "${command#*:}" > "bin/${command%%:*}"
done
chmod 755 bin/*
cp "$1" .ssh/id_ed25519
# Ray gives up on servers that are not there after half a minute, which a busy machine needs.
echo "export PATH=$PWD/bin:\$PATH PYTHONPATH=$2 TMPDIR=$PWD RAY_TMPDIR=$PWD RAY_raylet_start_wait_time_s=300" > .bashrc
"""
PLACES = """
import socket
from nsactors import Client
rc = Client("lab")
rc.wait_for_engines(4, timeout=240)
print(*rc[:].apply_sync(socket.gethostname))
"""


@pytest.fixture
def machines() -> Iterator[SshMachines]:
    with SshMachines(2) as machines:
        for machine in (machines.desk, *machines.hosts):
            run(machines, machine, "sh", "-c", HOME, sys.executable, str(machines.key), str(ROOT))
        yield machines
    shared = hashlib.sha256(cluster_name(machines).encode()).hexdigest()[:10]
    for folder in Path("/tmp").glob(f"ray_ssh_*/{shared}"):
        shutil.rmtree(folder)


def run(machines: SshMachines, machine: Machine, *command: str) -> str:
    """Run a command as in a shell there, and return what it wrote to stdout."""
    path = {"PATH": f"{machines.private}/bin:{os.environ['PATH']}", "RAY_TMPDIR": str(machines.private)}
    with machine.popen(command, {**machines.environment, **path}) as process:
        try:
            output, errors = process.communicate(timeout=RUN_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
    assert process.returncode == 0, f"{shlex.join(command)}\n{output}\n{errors}"
    return output


def cluster_name(machines: SshMachines) -> str:
    """Of this run alone: connections of ssh are shared by those who have one name, through files in /tmp."""
    return machines.private.parent.name


def config(machines: SshMachines) -> str:
    """The example for machines of one's own, for these."""
    text = example_text("local")
    for example, real in {
        "192.0.2.10": machines.hosts[0].address,
        "192.0.2.11": machines.hosts[1].address,
        "ssh_user: ubuntu": "ssh_user: root",
        "cluster_name: nsactors": f"cluster_name: {cluster_name(machines)}",
        "ray start": "ray start --num-cpus=2 --object-store-memory=100000000",
    }.items():
        assert example in text
        text = text.replace(example, real)
    return text


def monitor_log(machines: SshMachines) -> str:
    """Return the log of the launcher's process on the head about the other machines."""
    return run(machines, machines.hosts[0], "sh", "-c", "tail -n 40 ray/session_latest/logs/monitor.*")


@pytest.mark.full_size
def test_engines_start_on_what_the_launcher_brings_up_and_end_with_it(machines: SshMachines) -> None:
    run(machines, machines.desk, "sh", "-c", f"echo {shlex.quote(config(machines))} > {FILE}")
    said = run(machines, machines.desk, "nsactors", "launch", "ray", FILE, "-n", "4", "--num-cpus", "1")
    assert "the cluster 'lab' is up" in said
    try:
        places = run(machines, machines.hosts[0], sys.executable, "-c", PLACES)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{monitor_log(machines)}") from None
    assert Counter(places.split()) == {"host-1": 2, "host-2": 2}
    run(machines, machines.desk, "ray", "exec", FILE, "nsactors stop lab")
    run(machines, machines.desk, "ray", "down", "--yes", FILE)
    # On the other machine Ray ends by itself, when it has not heard of its head for a minute.
    wait_until(lambda: not any("ray" in title for title in machines.titles(machines.hosts[0])))
