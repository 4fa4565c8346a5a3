"""Clusters as jobs of a real Grid Engine: they start, lose a host, end by themselves, and go on in the next job."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.grid_engine import NAMES, ROOT, GridEngine, why_not
from tests.cluster.interpreters import interpreter_without_nsactors

REASON = why_not()

pytestmark = [
    pytest.mark.ray,
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]

# Not by PYTHONPATH, which jobs would inherit.
NSACTORS = [
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); from nsactors.cli import main; main()",
]
LAUNCH = [
    *NSACTORS,
    "launch",
    "sge",
    "--name=lab",
    "--nodes=2",
    "--engines-per-node=2",
    "--object-store-memory=100MB",
    "--recovery=replay",
    "--journal=sync",
]
# Two hosts, with the first one as the head.
NODES = ["-pe", "nodes", "2", "-masterq", "all.q@n1"]
JOB_FILES = {"job.sh", "job.json", "job.log", "job_id", "package", "state"}

PROGRAM = """
from nsactors import Client
rc = Client("lab")
rc.wait_for_engines(4, timeout=240)
everyone = rc[:]
everyone.block = True

def show():
    import socket
    hosts = sorted(set(everyone.apply(socket.gethostname)))
    print(rc.ids, *hosts, everyone["square"], everyone["part"], flush=True)
"""
SHARE = (
    PROGRAM
    + """
everyone.scatter("part", list(range(8)))
everyone.execute("square = sum(n * n for n in part)")
"""
)
START = f"{SHARE}\nshow()"
# Says how things are, and again when two engines have come back.
STAY = (
    SHARE
    + """
import threading
back = threading.Semaphore(0)
rc.on_join(lambda engine_id: back.release())
show()
for engine in range(2):
    assert back.acquire(timeout=240)
show()
"""
)
GO_ON = (
    PROGRAM
    + """
show()
everyone.execute("import os; log = open(f'/var/tmp/log-{len(part)}-{os.getpid()}', 'w'); log.write('unwritten')")
print(*everyone["log.name"])
"""
)
VALUES = "[1, 13, 41, 85] [[0, 1], [2, 3], [4, 5], [6, 7]]"


@pytest.fixture(scope="module")
def engine() -> Iterator[GridEngine]:
    folder = Path(tempfile.mkdtemp(prefix="ns-", dir="/var/tmp"))  # each host has a /tmp of its own
    try:
        with GridEngine(folder) as engine:
            yield engine
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def python(engine: GridEngine) -> str:
    """The interpreter of the hosts, which lacks nsactors."""
    return interpreter_without_nsactors(engine.home / "environment")


def launch(engine: GridEngine, python: str, *words: str) -> str:
    """Return the id of a job whose cluster is up; options of ``qsub`` are behind ``--``."""
    said = engine.run(*LAUNCH, f"--python={python}", *words, timeout_s=300)
    assert "the cluster 'lab' is up" in said
    return said.split()[1]


def client(engine: GridEngine, code: str) -> list[str]:
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]


def wait_gone(engine: GridEngine, *hosts: str) -> None:
    """Wait for the end of a job, and check that only the files are left that users read or continue from."""
    for host in hosts:
        engine.wait_for(lambda host=host: not engine.titles(host))
        assert engine.temporary_files(host) == set()
    assert engine.listing("clusters") <= {"lock"}
    assert engine.listing("jobs/lab") == JOB_FILES


def test_a_job_starts_on_both_hosts_and_is_deleted(engine: GridEngine, python: str) -> None:
    job = launch(engine, python, "--fresh", "--", *NODES)
    assert engine.run(*client(engine, START), timeout_s=300) == f"[0, 1, 2, 3] n1 n2 {VALUES}\n"
    engine.run("qdel", job)
    wait_gone(engine, *NAMES)
    assert "ended gracefully" in engine.read("jobs/lab/job.log")


@pytest.mark.full_size
def test_a_job_loses_a_host_is_deleted_and_goes_on_as_another_job_until_its_limit(
    engine: GridEngine, python: str
) -> None:
    first = launch(engine, python, "--fresh", "--", *NODES)
    with engine.popen(*client(engine, STAY)) as program:
        assert program.read_line() == f"[0, 1, 2, 3] n1 n2 {VALUES}"
        engine.lose("n2")
        assert program.read_line() == f"[0, 1, 2, 3] n1 {VALUES}"
        program.communicate()
    engine.run("qdel", first)  # warns first, which is what -notify means
    wait_gone(engine, "n1")
    log = engine.read("jobs/lab/job.log")
    assert "are saved in" in log
    assert "ended gracefully" in log
    ended = log.count("ended gracefully")
    engine.start_host("n2")
    engine.run("qdel", "-f", first, check=False)  # which waited for word from the host that was lost
    engine.wait_for(lambda: not engine.run("qstat"))

    launch(engine, python, "--continue", "--", *NODES, "-l", "h_rt=0:4:00")
    shown, paths = engine.run(*client(engine, GO_ON), timeout_s=300).splitlines()
    assert shown == f"[0, 1, 2, 3] n1 n2 {VALUES}", engine.read("jobs/lab/job.log")
    assert "time limit of the job: in " in engine.run(*NSACTORS, "status", "lab")
    wait_gone(engine, *NAMES)  # by itself, between the warning and the end
    assert engine.read("jobs/lab/job.log").count("ended gracefully") == ended + 1
    files = [Path(path) for path in paths.split()]
    assert [file.read_text() for file in files] == ["unwritten"] * 4
    for file in files:
        file.unlink()
