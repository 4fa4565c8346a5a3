"""Clusters on a Slurm whose login machine allows little, and in allocations; no machine shares a home folder."""

import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.interpreters import interpreter_without_nsactors
from tests.cluster.slurm import ROOT, SlurmSite, why_not

REASON = why_not()

pytestmark = [
    pytest.mark.ray,
    pytest.mark.cluster,
    pytest.mark.full_size,
    pytest.mark.timeout(900),
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]

USER = "games"  # a user that every Debian has, and that never logs in
FEW = 10  # processes and threads: a shell, Python, and a command of Slurm
PATH = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
# Not by PYTHONPATH, which jobs would inherit.
NSACTORS = ["env", "-u", "PYTHONPATH", sys.executable, "-c", f"{PATH}from nsactors.cli import main; main()"]
# In an allocation, as in a notebook.
PROGRAM = f"""{PATH}
import socket
from nsactors import Cluster
from nsactors.cluster.ssh_hosts import SshHosts, hosts_from_text
with SshHosts(hosts_from_text("slurm:2"), store_bytes=100_000_000, python=sys.argv[1]) as hosts:
    with Cluster(hosts.engines, address=hosts.address) as rc:
        print(*sorted(rc[:].apply_sync(socket.gethostname)))
"""


@pytest.fixture(scope="module")
def site() -> Iterator[SlurmSite]:
    folder = Path(tempfile.mkdtemp(prefix="ns-", dir="/tmp"))  # short, for sockets in it
    try:
        with SlurmSite(folder) as site:
            yield site
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """A folder that all machines see, and that any user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="ns-", dir="/var/tmp"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def python(shared: Path) -> str:
    """The interpreter of the nodes."""
    return interpreter_without_nsactors(shared / "environment")


def refused(site: SlurmSite, *command: str) -> str:
    """Run a command that fails as the user on the login machine, and return what it says."""
    with site.popen_as(USER, *command, processes=FEW) as process:
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 1, output + errors
    return errors


def run(site: SlurmSite, *command: str) -> str:
    """Run a command as the user on the login machine, with few processes, and return its output."""
    with site.popen_as(USER, *command, processes=FEW) as process:
        output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    return output


def test_a_login_machine_with_few_processes_and_no_way_to_the_nodes_submits_a_job_and_says_how_to_use_it(
    site: SlurmSite, shared: Path, python: str
) -> None:
    job = shared / "job"
    job.mkdir()
    os.chown(job, pwd.getpwnam(USER).pw_uid, pwd.getpwnam(USER).pw_gid)
    launch = [*NSACTORS, "launch", "slurm", "--name=lab", "--nodes=2", "--engines-per-node=1", f"--folder={job}"]
    said = run(site, *launch, "--object-store-memory=100MB", f"--python={python}")
    assert "the cluster 'lab' is up" in said, (job / "job.log").read_text()
    inside = f"srun --jobid={said.split()[1]} --nodes=1 --ntasks=1 --overlap --propagate=NONE --pty"
    advice = f"`{inside} nsactors console lab` opens a prompt on a machine of the cluster"
    outside = refused(site, *NSACTORS, "status", "lab")
    assert "this machine does not belong to the cluster" in outside
    assert advice in outside
    few = refused(site, *NSACTORS, "launch", "join", "lab", f"--folder={job}")
    assert f"and you may have {FEW} (`ulimit -u`)" in few
    assert advice in few
    site.close_way_to_nodes()
    try:
        cut_off = refused(site, *NSACTORS, "status", "lab")
        assert "nothing listens there" in cut_off
        assert advice in cut_off
        ask = ["exec", "-c", "lab", "import socket; socket.gethostname()"]
        answers = run(site, *inside.replace(" --pty", "").split(), *NSACTORS, *ask)
        assert answers.split() == ["Out[0:1]:", "'n1'", "Out[1:1]:", "'n2'"]
        run(site, *NSACTORS, "stop", "lab")
        site.wait_for(lambda: not site.titles())
    finally:
        site.open_way_to_nodes()


@pytest.mark.parametrize("inside", [[], ["srun", "--nodes=1", "--ntasks=1"]], ids=["login", "node"])
def test_a_program_in_an_allocation_has_engines_on_all_its_nodes(
    site: SlurmSite, python: str, inside: list[str]
) -> None:
    before = site.listing()
    program = ["env", "-u", "PYTHONPATH", sys.executable, "-c", PROGRAM, python]
    assert site.run("salloc", "--nodes=2", *inside, *program, timeout_s=300).split() == ["n1", "n1", "n2", "n2"]
    site.wait_for(lambda: not site.titles())
    assert site.listing() == before


def test_a_cluster_in_the_background_may_be_that_of_an_allocation(site: SlurmSite) -> None:
    ask = 'from nsactors import Client; import socket; print(*sorted(Client("lab")[:].apply_sync(socket.gethostname)))'
    script = '"$@" start --hosts slurm:1 --name lab >&2 && "$0" -c "$ASK" && "$@" stop lab >&2'
    command = [sys.executable, "-c", f"{PATH}from nsactors.cli import main; main()"]
    with site.popen("salloc", "--nodes=2", "sh", "-c", script, sys.executable, *command, ASK=ask) as process:
        output, errors = process.communicate(timeout=300)
    assert output.split() == ["n1", "n2"], errors
    site.wait_for(lambda: not site.titles())


def test_outside_of_an_allocation_there_is_none(site: SlurmSite) -> None:
    with site.popen(*NSACTORS[3:], "start", "--hosts=slurm") as process:
        _, errors = process.communicate()
    assert "this process is in no allocation of Slurm: `salloc --nodes=2` makes one" in errors
