"""A cluster that would not let us in is recognised without Ray, by a server that stands in for it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.errors import AccessRefused, ClusterUnreachable, OutsideCluster
from nsactors.transport.ray import access
from nsactors.transport.ray.access import (
    _address_here,
    _length,
    check_access,
    check_machine,
    entry_settings,
    has_node,
    token_for,
)

TOKEN = "cd" * 32
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
FINE = SETTINGS + b"\0\0\x20\x01\x05\0\0\0\x01@\x0bgrpc-status\x010"
REFUSED = SETTINGS + b"\0\0\x20\x01\x05\0\0\0\x01\0\x0bgrpc-status\x0216"


class Server:
    """Answers each connection with the same bytes, and keeps what it was asked."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.mark_retrieved = b""
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            line, _ = self._listener.accept()
        except OSError:
            return
        with line:
            line.settimeout(10)
            while not self.mark_retrieved.endswith(b"\0\0\0\0\0"):  # an empty message
                self.mark_retrieved += line.recv(4096)
            line.sendall(self._answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@contextmanager
def serving(answer: bytes) -> Iterator[Server]:
    server = Server(answer)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(TOKEN + "\n")
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}


def test_the_token_is_shown_and_the_cluster_may_take_it(settings: dict[str, str]) -> None:
    with serving(FINE) as server:
        check_access(server.address, settings)
    assert server.mark_retrieved.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert f"Bearer {TOKEN}".encode() in server.mark_retrieved


def test_a_wrong_token_is_refused_in_plain_words(settings: dict[str, str]) -> None:
    with serving(REFUSED) as server, pytest.raises(AccessRefused, match="the token is wrong") as refused:
        check_access(server.address, settings)
    assert TOKEN not in str(refused.value)


def test_who_has_no_token_is_told_that_one_is_wanted() -> None:
    with serving(REFUSED) as server, pytest.raises(AccessRefused, match="you have none"):
        check_access(server.address, {})
    assert b"Bearer" not in server.mark_retrieved


def test_a_token_that_is_not_there_is_named(settings: dict[str, str]) -> None:
    with pytest.raises(AccessRefused, match="token, /no/such, cannot be read"):
        check_access("127.0.0.1:1", {**settings, "RAY_AUTH_TOKEN_PATH": "/no/such"})


def test_where_nobody_listens_there_is_no_cluster(settings: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as once:
        address = f"127.0.0.1:{once.getsockname()[1]}"
    with pytest.raises(ClusterUnreachable, match="nothing listens there"):
        check_access(address, settings)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x15\x03\x01\0\x02\x02"])
def test_what_is_no_ray_is_not_left_to_ray_which_would_wait_for_it(settings: dict[str, str], answer: bytes) -> None:
    with serving(answer) as server, pytest.raises(ClusterUnreachable, match="is not Ray, or requires encryption"):
        check_access(server.address, settings)


def test_a_server_that_says_nothing_is_given_up(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nsactors.transport.ray.access.ANSWER_S", 0.1)
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, pytest.raises(ClusterUnreachable, match="it does not answer"):
        check_access(f"127.0.0.1:{silent.getsockname()[1]}", settings)


def test_an_answer_that_is_not_understood_is_left_to_ray(settings: dict[str, str]) -> None:
    with serving(SETTINGS + b"\x0bgrpc-status\x02x6") as server:
        check_access(server.address, settings)


def test_without_a_file_of_its_own_rays_usual_token_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert token_for("here", {"RAY_AUTH_MODE": "token"}) == ""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("usual")
    (tmp_path / ".ray" / "auth_token").chmod(0o600)
    assert token_for("here", {"RAY_AUTH_MODE": "token"}) == "usual"


@given(st.integers(min_value=0, max_value=2**24))
def test_a_length_is_written_as_the_standard_reads_it(count: int) -> None:
    first, *rest = _length(count)
    value = first
    for position, octet in enumerate(rest):
        value += (octet & 0x7F) << (7 * position)
    assert value == count
    assert (first < 127) == (not rest)


# How a process gets into a Ray that it knows by address alone.


ADDRESS = "10.0.0.1:6379"


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The tokens that the Ray takes, by the settings that lead to them; empty: it takes everybody."""
    taken: set[str] = set()

    def check(address: str, settings: Mapping[str, str]) -> None:
        assert address == ADDRESS
        token = settings.get("RAY_AUTH_TOKEN_PATH", "") if settings.get("RAY_AUTH_MODE") == "token" else ""
        if taken and token not in taken:
            raise AccessRefused(address, "the token is wrong" if token else "it wants a token")

    monkeypatch.setattr(access, "check_access", check)
    return taken


def test_a_ray_without_a_token_needs_nothing(tokens: set[str]) -> None:
    assert entry_settings(ADDRESS, {}) == {}


def test_a_ray_that_wants_a_token_is_known_before_ray_is_imported(tokens: set[str]) -> None:
    tokens.add("right")
    assert entry_settings(ADDRESS, {"RAY_AUTH_TOKEN_PATH": "right"}) == {"RAY_AUTH_MODE": "token"}


@pytest.mark.parametrize("environment", [{}, {"RAY_AUTH_TOKEN_PATH": "wrong"}, {"RAY_AUTH_MODE": "token"}])
def test_without_the_right_token_it_is_said_at_once(tokens: set[str], environment: dict[str, str]) -> None:
    tokens.add("right")
    with pytest.raises(AccessRefused, match="token"):
        entry_settings(ADDRESS, environment)


def test_a_token_in_the_environment_is_ray_s_to_use(tokens: set[str]) -> None:
    tokens.add("right")
    assert entry_settings(ADDRESS, {"RAY_AUTH_TOKEN": "secret"}) == {"RAY_AUTH_MODE": "token"}


def test_what_the_user_has_said_stays(tokens: set[str]) -> None:
    tokens.add("right")
    assert entry_settings(ADDRESS, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "right"}) == {}


def test_nothing_is_asked_of_an_address_that_names_no_port(tokens: set[str]) -> None:
    tokens.add("right")
    assert entry_settings("local", {}) == {}


def processes(folder: Path, *addresses: str) -> Path:
    """A folder as /proc is, with a process for each address of a Ray and one of another kind."""
    for number, command in enumerate([b"bash", *(b"raylet\0--gcs-address=" + a.encode() for a in addresses)]):
        (folder / str(number)).mkdir()
        (folder / str(number) / "cmdline").write_bytes(command + b"\0--verbose\0")
    return folder


def test_auto_is_the_one_ray_that_runs_here(tmp_path: Path) -> None:
    assert _address_here({"RAY_TMPDIR": "/nowhere"}, processes(tmp_path, "10.0.0.1:6379", "10.0.0.1:6379")) == ADDRESS


def test_auto_is_the_one_of_several_that_was_started_last(tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.2:6379\n")
    found = processes(tmp_path, "10.0.0.1:6379", "10.0.0.2:6379")
    assert _address_here({"RAY_TMPDIR": str(tmp_path)}, found) == "10.0.0.2:6379"


def test_auto_without_any_ray_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ClusterUnreachable, match="no Ray cluster runs on this machine"):
        _address_here({"RAY_TMPDIR": str(tmp_path)}, processes(tmp_path))


def test_ray_client_is_refused_with_what_to_do() -> None:
    with pytest.raises(ClusterUnreachable, match="give the head node's address as host:port"):
        entry_settings("ray://10.0.0.1:10001", {})


@pytest.mark.parametrize("address", ["junk", "10.0.0.1", "10.0.0.1:", ":6379", "10.0.0.1:port"])
def test_what_is_no_address_is_refused_with_what_one_is(address: str) -> None:
    with pytest.raises(ClusterUnreachable, match="is written host:port, such as"):
        entry_settings(address, {})


RAYLET = ["/lib/ray/core/src/ray/raylet/raylet", "--node_id=ab", "--gcs-address=10.0.0.1:6379", "--node_ip_address=x"]


@pytest.mark.parametrize(
    ("commands", "port", "is_here"),
    [
        ([["bash"], RAYLET], "6379", True),
        ([RAYLET], "637", False),
        ([RAYLET], "379", False),
        ([["python", "monitor.py", "--gcs-address=10.0.0.1:6379"]], "6379", False),
        ([], "6379", False),
    ],
)
def test_a_node_of_the_cluster_is_recognised_among_processes(
    commands: list[list[str]], port: str, is_here: bool
) -> None:
    assert has_node(port, commands) is is_here


def test_a_machine_without_a_node_of_the_cluster_is_told_so_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "command_lines", lambda: [RAYLET])
    check_machine("head:6379")  # by another name of the head
    check_machine("auto")
    with pytest.raises(OutsideCluster, match=r"this machine does not belong to the cluster at 10\.0\.0\.1:6380"):
        check_machine("10.0.0.1:6380")
