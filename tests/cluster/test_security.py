"""Who is let in: nobody without the token, by nsactors, by Ray or by hand, at any endpoint that listens."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nsactors.system.processes import marked_processes
from nsactors.transport.base import ConnectionInfo
from nsactors.transport.ray.access import UNAUTHENTICATED, NotRay, answer_to
from tests.cluster.background import IMPORT_RAY, CommandLine

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(450)]

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
REQUESTS = [
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.InternalKVGcsService/InternalKVPut",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/PushTask",
]
UNIMPLEMENTED = 12
REFUSED_S = 2.0
SLOW = 10  # a machine that has other things to do

TRY = """
import sys, time
from nsactors import Client
from nsactors.errors import ConnectionLost, RayImportedFirst
began = time.monotonic()
try:
    Client(sys.argv[1])
except (ConnectionLost, RayImportedFirst) as error:
    print(f"{time.monotonic() - began:.3f} {type(error).__name__}: {error}")
else:
    print("let in")
"""


@pytest.fixture(scope="module")
def info(lab: CommandLine) -> ConnectionInfo:
    """The connection info of the cluster."""
    info = lab.record("lab").connection
    assert info is not None
    return info


@pytest.fixture(scope="module")
def token(info: ConnectionInfo) -> str:
    return Path(info.settings["RAY_AUTH_TOKEN_PATH"]).read_text()


@pytest.fixture(scope="module")
def processes(lab: CommandLine) -> list[psutil.Process]:
    """All processes of the cluster; some may have gone when they are looked at, for Ray ends its idle workers."""
    record = lab.record("lab")
    found = []
    for pid in [record.owner.pid, *marked_processes(record.mark)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return found


@pytest.fixture(scope="module")
def endpoints(processes: list[psutil.Process]) -> list[tuple[str, int]]:
    """Return the addresses at which the processes listen."""
    listening = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            connections = process.net_connections("inet")
            listening += [tuple(one.laddr) for one in connections if one.status == psutil.CONN_LISTEN]
    assert len(listening) >= 7  # GCS, raylet, object manager, agent, owner, controller and engines
    return listening


@pytest.fixture
def changed(lab: CommandLine) -> Iterator[str]:
    """The name under which ``change`` writes down something else."""
    yield "changed"
    for record in lab.registry.records():
        if record.name == "changed":
            lab.registry.remove(record)


def refusal(done_stdout: str) -> str:
    """Why somebody was refused, which was to be quick."""
    assert done_stdout != "let in\n"
    took, _, why = done_stdout.partition(" ")
    assert float(took) < REFUSED_S * SLOW
    return why


def test_everything_listens_on_this_machine_alone(endpoints: list[tuple[str, int]]) -> None:
    assert {address for address, _ in endpoints} <= LOOPBACK


@pytest.mark.parametrize("shown", ["", "ab" * 32], ids=["without a token", "with a wrong token"])
def test_ray_requests_are_refused_everywhere(endpoints: list[tuple[str, int]], shown: str) -> None:
    for _, port in endpoints:
        answers = set()
        for request in REQUESTS:
            try:
                answers.add(answer_to(f"127.0.0.1:{port}", shown, {}, request))
            except (NotRay, OSError):
                answers.add(None)
        assert answers == {None} or UNAUTHENTICATED in answers, f"{port} answers {answers}"
        assert answers <= {None, UNAUTHENTICATED, UNIMPLEMENTED}, f"{port} answers {answers}"


def test_with_the_token_they_are_answered(info: ConnectionInfo, token: str) -> None:
    """Or the test above would prove nothing."""
    assert answer_to(info.address, token, {}, REQUESTS[0]) == 0


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/version", "/get_or_create_runtime_env"])
def test_web_requests_are_refused_everywhere_and_there_are_no_metrics(
    endpoints: list[tuple[str, int]], path: str
) -> None:
    for _, port in endpoints:
        for method in ("GET", "POST"):
            line = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                line.request(method, path)
                status = line.getresponse().status
            except (http.client.HTTPException, OSError):  # it speaks something else
                continue
            finally:
                line.close()
            assert status in (401, 403, 404, 405), f"{port} answers {status} to {method} {path}"


def test_noise_does_no_harm(lab: CommandLine, endpoints: list[tuple[str, int]]) -> None:
    for _, port in endpoints:
        # Some hang up at once, and an idle worker of Ray's may have gone with its endpoint.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as line:
            line.sendall(os.urandom(1000))
    assert "5" in lab("exec", "2 + 3").stdout


@pytest.mark.parametrize(
    ("path", "said"),
    [("wrong", "the token is wrong"), ("missing", "cannot be read here (No such file"), ("empty", "you have none")],
)
def test_our_client_is_told_at_once_what_is_wrong_with_its_token(
    lab: CommandLine, info: ConnectionInfo, changed: str, tmp_path: Path, path: str, said: str
) -> None:
    (tmp_path / "wrong").write_text("ab" * 32)
    (tmp_path / "empty").write_text("")
    lab.change("lab", settings={**info.settings, "RAY_AUTH_TOKEN_PATH": str(tmp_path / path)})
    assert said in refusal(lab.python(TRY, changed).stdout)


def test_a_client_that_wants_no_tokens_is_refused(lab: CommandLine, changed: str) -> None:
    lab.change("lab", settings={"RAY_AUTH_MODE": "disabled"})
    assert "AccessRefused" in refusal(lab.python(TRY, changed).stdout)


def test_ray_imported_first_is_told_at_once(lab: CommandLine) -> None:
    assert refusal(lab.python(IMPORT_RAY + TRY, "lab").stdout).startswith("RayImportedFirst: Ray was imported before")


def test_a_token_in_the_environment_does_not_get_in_the_way(lab: CommandLine) -> None:
    environment = {**lab.environment, "RAY_AUTH_TOKEN": "of something else", "RAY_AUTH_TOKEN_PATH": "/no/such"}
    assert lab.python(TRY, "lab", env=environment).stdout == "let in\n"


def test_files_are_for_their_user_alone(lab: CommandLine, info: ConnectionInfo) -> None:
    token = Path(info.settings["RAY_AUTH_TOKEN_PATH"])
    for folder, file in ((token.parent, token), (lab.registry.folder, lab.registry.folder / "lab.json")):
        assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, file)] == [0o700, 0o600]


def test_the_token_is_on_no_command_line_and_in_no_file_but_its_own(
    lab: CommandLine, info: ConnectionInfo, processes: list[psutil.Process], token: str
) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            assert token not in " ".join(process.cmdline())
    own = Path(info.settings["RAY_AUTH_TOKEN_PATH"])
    for folder in (own.parent, lab.registry.folder):
        files = [path for path in folder.rglob("*") if path.is_file() and path != own]
        assert files
        assert not [path for path in files if token.encode() in path.read_bytes()]


def test_with_encryption_nobody_gets_a_word_in_without_a_certificate(nsactors_command: CommandLine) -> None:
    nsactors_command("start", "-n", "1", "--name", "secret", "--tls")
    try:
        assert "42" in nsactors_command("exec", "-c", "secret", "6 * 7").stdout
        info = nsactors_command.record("secret").connection
        assert info is not None
        token = Path(info.settings["RAY_AUTH_TOKEN_PATH"]).read_text()
        with pytest.raises((NotRay, OSError)):
            answer_to(info.address, token, {})
        nsactors_command.change("secret", settings={**info.settings, "RAY_USE_TLS": "0"})
        assert "requires encryption" in refusal(nsactors_command.python(TRY, "changed").stdout)
        nsactors_command.registry.remove(nsactors_command.registry.find("changed"))
    finally:
        nsactors_command("stop", "secret")
    assert not Path(info.settings["RAY_TLS_SERVER_KEY"]).exists()
