"""Two users of one machine start clusters at the same moment, and do not meet."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nsactors.system.processes import marked_processes
from nsactors.testing import wait_until
from tests.cluster.background import IMPORT_RAY, CommandLine
from tests.cluster.interpreters import OPEN, closed_to_others

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(900)]

USERS = (f"nsatest-{os.getpid()}-ann", f"nsatest-{os.getpid()}-ben")  # another run may be under way
CHECKOUT = Path(__file__).parents[2]

# Becomes a user and runs a command.
AS_USER = (
    OPEN
    + """
os.setgroups([])
os.setgid(what["gid"])
os.setuid(what["uid"])
os.chdir(what["cwd"])
os.execv(sys.argv[2], sys.argv[2:])
"""
)

STRANGER = """
import json, os, sys
from nsactors import Client
from nsactors.errors import AccessRefused
from nsactors.transport.base import ConnectionInfo
file, fields = sys.argv[1], json.loads(sys.argv[2])
token = fields["settings"]["RAY_AUTH_TOKEN_PATH"]
for path in (file, token, os.path.dirname(token)):
    try:
        os.listdir(path) if os.path.isdir(path) else open(path)
    except PermissionError:
        print("closed")
for cluster in (file, ConnectionInfo(**fields)):
    try:
        Client(cluster)
    except AccessRefused as error:
        print("refused")
"""


def why_not() -> str:
    """Why there cannot be other users here; empty if there can."""
    if os.getuid() != 0 or not all(map(shutil.which, ("useradd", "unshare", "mount"))):
        return "only root can make users"
    return "" if subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0 else "no mount namespaces"


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[CommandLine]]:
    """The command, for two users that exist only during these tests."""
    if reason := why_not():
        pytest.skip(reason)
    stage = tmp_path_factory.mktemp("stage")
    made = []
    try:
        for name in USERS:
            subprocess.run(["useradd", "--create-home", name], check=True)
            made.append(name)
        commands = [command_of(pwd.getpwnam(name), stage) for name in made]
        if failure := commands[0].python(IMPORT_RAY).stderr:
            pytest.skip(f"another user cannot run this Python: {failure}")
        yield commands
    finally:
        for name in made:
            subprocess.run(["userdel", "--remove", name], check=True, stderr=subprocess.DEVNULL)


def command_of(user: pwd.struct_passwd, stage: Path) -> CommandLine:
    what = {
        **closed_to_others(stage),
        "uid": user.pw_uid,
        "gid": user.pw_gid,
        "cwd": user.pw_dir,
    }
    enter = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", AS_USER, json.dumps(what)]
    command = CommandLine(Path(user.pw_dir) / ".local" / "state", prefix=enter)
    command.environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
    }
    return command


def test_many_clusters_of_two_users_start_at_once_and_do_not_meet(
    users: list[CommandLine], request: pytest.FixtureRequest
) -> None:
    counts = (10, 10) if request.config.getoption("--full-size") else (2, 1)
    starting = [user.spawn("start", "-n", "1") for user, count in zip(users, counts, strict=True) for _ in range(count)]
    try:
        came_of_it = [(process.communicate(timeout=800), process.returncode) for process in starting]
        assert [status for _, status in came_of_it] == [0] * len(starting), came_of_it
        for user, other, count in zip(users, users[::-1], counts, strict=True):
            names = [cluster["name"] for cluster in user.json("list")]
            assert sorted(names) == sorted(f"cluster-{number}" for number in range(1, count + 1))
            raylets = {user("exec", "-c", name, "import os; (os.getuid(), os.getppid())").stdout for name in names}
            assert len(raylets) == count  # each has its own
            refused = user.python(STRANGER, str(file_of(other)), json.dumps(written_in(file_of(other))["connection"]))
            assert refused.stdout.split() == ["closed", "closed", "closed", "refused", "refused"], refused.stderr
        mark = written_in(file_of(users[1]))["mark"]
        users[0]("stop", "--all")
        assert users[0].json("list") == []
        assert len(users[1].json("list")) == counts[1]
        assert marked_processes(mark)
    finally:
        for user in users:
            user("stop", "--all")
    for name in USERS:
        wait_until(lambda name=name: processes_of(name) == "")


def file_of(user: CommandLine) -> Path:
    return user.registry.folder / "cluster-1.json"


def written_in(file: Path) -> Any:
    return json.loads(file.read_text())


def processes_of(name: str) -> str:
    """Its processes, but for those that have ended and that nobody has asked how."""
    listing = ["ps", "-o", "stat=,args=", "-u", name]
    lines = subprocess.run(listing, capture_output=True, text=True, check=False).stdout.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("Z"))
