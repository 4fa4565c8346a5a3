"""Checks of a Ray cluster that another process started, by its address.

Ray itself takes 20 s to give up on a wrong token, and prints many lines during this time. So this module itself makes
one request: the server's reply shows whether the token is right. It is the smallest request that gRPC allows (HTTP/2
frames, RFC 9113; headers without compression, RFC 7541), and requests nothing.

If a cluster requires a token, Ray must be set up for that *before* this process imports it. Otherwise ``ray.init``
fails after 20 s and does not mention tokens, even if there is a token where Ray looks for one. So this module first
asks the cluster.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nsactors.errors import AccessRefused, ClusterUnreachable, OutsideCluster
from nsactors.system.processes import command_lines
from nsactors.transport.base import check_address

CONNECT_S = 1.5
ANSWER_S = 10.0  # a machine under load is slow to answer; a refusal comes immediately

UNAUTHENTICATED = 16  # a status of gRPC

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_EMPTY_MESSAGE = b"\0" * 5
_REQUEST = "/ray.rpc.NodeInfoGcsService/GetClusterId"
_STATUS = b"\x0bgrpc-status"  # the name of a header: its length, then the name without compression
_LONGEST_ANSWER = 65_536


def check_access(address: str, settings: Mapping[str, str]) -> None:
    """Check that a cluster answers and accepts the token.

    Args:
        address: the Ray cluster, ``host:port``.
        settings: Ray's settings in the environment of the process that connects.

    Raises:
        AccessRefused: if the token is missing or wrong, or belongs to another user.
        ClusterUnreachable: if no server answers.
    """
    token = token_for(address, settings)
    try:
        status = answer_to(address, token, settings)
    except TimeoutError:
        raise ClusterUnreachable(address, "it does not answer") from None
    except ssl.SSLError as error:
        raise AccessRefused(address, f"its certificate and yours do not match ({error.reason})") from None
    except OSError as error:
        raise ClusterUnreachable(address, f"nothing listens there ({error.strerror})") from None
    except NotRay:
        raise ClusterUnreachable(address, "the server there is not Ray, or requires encryption") from None
    if status == UNAUTHENTICATED:
        raise AccessRefused(address, "the token is wrong" if token else "it wants a token, and you have none")


def check_machine(address: str) -> None:
    """Check that a node of a cluster runs on this machine: without a node, Ray tries for a minute and gives no reason.

    Args:
        address: the Ray cluster, ``host:port``; an address of any other form is not checked.

    Raises:
        OutsideCluster: if there is no such node.
    """
    port = address.rpartition(":")[2]
    if port.isdigit() and os.path.exists("/proc/self/cmdline") and not has_node(port, command_lines()):
        raise OutsideCluster(address)


def has_node(port: str, commands: Iterable[Sequence[str]]) -> bool:
    """Return whether one of these processes is a node of the cluster whose head listens at this port.

    Ray looks for nodes in the same way. Only the port is compared, because the head may have another name here than in
    the command line of the node.

    Args:
        port: the port.
        commands: the command lines of processes, as words.

    Example:
        >>> has_node("6379", [["/ray/raylet", "--node_id=ab", "--gcs-address=10.0.0.1:6379"]])
        True
    """
    return any(
        os.path.basename(words[0]) == "raylet"
        and any(word.startswith("--gcs-address=") and word.endswith(f":{port}") for word in words)
        for words in commands
    )


def token_for(address: str, settings: Mapping[str, str]) -> str:
    """Return the token that Ray would use with these settings; empty if there is none.

    Raises:
        AccessRefused: if the settings name a file that does not exist, or that this user cannot read.
    """
    if settings.get("RAY_AUTH_MODE") != "token":
        return ""
    named = settings.get("RAY_AUTH_TOKEN_PATH")
    try:
        return Path(named or "~/.ray/auth_token").expanduser().read_text().strip()
    except OSError as error:
        if named is None:
            return ""
        raise AccessRefused(address, f"its token, {named}, cannot be read here ({error.strerror})") from None


def answer_to(address: str, token: str, settings: Mapping[str, str], request: str = _REQUEST) -> int | None:
    """Return the gRPC status with which a server of Ray answers a token; None if it cannot be read.

    Args:
        address: ``host:port``.
        token: empty for none.
        settings: the settings of encryption.
        request: the gRPC method.

    Raises:
        OSError: if no server listens, or the connection breaks; TimeoutError if there is no answer.
        NotRay: if the server does not speak HTTP/2.
    """
    host, _, port = address.rpartition(":")
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": request,
        ":authority": address,
        "te": "trailers",
        "content-type": "application/grpc",
        **({"authorization": f"Bearer {token}"} if token else {}),
    }
    asked = (
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, b"".join(_header(*item) for item in headers.items()))
        + _frame(_DATA, _END_STREAM, 1, _EMPTY_MESSAGE)
    )
    with socket.create_connection((host.strip("[]"), int(port)), CONNECT_S) as plain:
        plain.settimeout(ANSWER_S)
        with _encrypted(plain, host, settings) as line:
            line.sendall(asked)
            answer = b""
            while len(answer) < _LONGEST_ANSWER and (more := line.recv(4096)):
                answer += more
                if (status := _status(answer)) is not None:
                    return status
    if answer[3:4] != bytes([_SETTINGS]):  # every HTTP/2 server begins with settings
        raise NotRay
    return None


class NotRay(Exception):
    """The server is not Ray."""


def _encrypted(plain: socket.socket, host: str, settings: Mapping[str, str]) -> socket.socket:
    if settings.get("RAY_USE_TLS") != "1":
        return plain
    context = ssl.create_default_context(cafile=settings["RAY_TLS_CA_CERT"])
    context.load_cert_chain(settings["RAY_TLS_SERVER_CERT"], settings["RAY_TLS_SERVER_KEY"])
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(plain, server_hostname=host.strip("[]"))


def _status(answer: bytes) -> int | None:
    _, found, value = answer.partition(_STATUS)
    if not found or not value or len(value) <= value[0]:
        return None
    digits = value[1 : 1 + value[0]]
    return int(digits) if digits.isdigit() else None


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def _header(name: str, value: str) -> bytes:
    return b"\0" + _text(name) + _text(value)  # a literal that the server does not index


def _text(text: str) -> bytes:
    encoded = os.fsencode(text)
    return _length(len(encoded)) + encoded


def _length(count: int) -> bytes:
    """Encode a number: up to 126 in one byte, else its excess over 127 in further bytes (RFC 7541, 5.1)."""
    if count < 127:
        return bytes([count])
    rest, tail = count - 127, b"\x7f"
    while rest >= 128:
        tail += bytes([rest % 128 + 128])
        rest //= 128
    return tail + bytes([rest])


_RECORD = "ray/ray_current_cluster"  # in the folder for temporary files: `ray start` saves its address there
_GCS_OPTION = b"--gcs-address="
_OWN_TOKEN = "RAY_AUTH_TOKEN"


def entry_settings(address: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that a Ray cluster requires and that this process's environment lacks.

    Args:
        address: the cluster's address, as ``ray.init`` takes it; only ``host:port`` and ``auto`` can be checked.
        environment: this process's environment. The token is in one of the places where Ray looks for it:
            ``RAY_AUTH_TOKEN``, ``RAY_AUTH_TOKEN_PATH``, or ``~/.ray/auth_token``.

    Raises:
        AccessRefused: if the cluster requires a token, and the token is missing or wrong.
        ClusterUnreachable: if no server answers.
    """
    try:
        check_address(address)
    except ValueError as error:
        raise ClusterUnreachable(address, str(error)) from None
    if address.startswith("ray://"):
        raise ClusterUnreachable(address, "nsactors cannot use Ray Client; give the head node's address as host:port")
    if address == "auto":
        address = _address_here(environment)
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return {}
    settings = {}
    if "RAY_AUTH_MODE" not in environment:
        try:
            check_access(address, environment)
        except AccessRefused:
            settings = {"RAY_AUTH_MODE": "token"}
        else:
            return {}
    if _OWN_TOKEN not in environment:
        check_access(address, {**environment, **settings})
    return settings


def _address_here(environment: Mapping[str, str], processes: Path = Path("/proc")) -> str:
    """Return Ray's "auto" address: the address of a Ray that runs on this machine, or was last started here.

    Ray itself searches for most of a minute before it reports that no Ray runs.
    """
    folder = environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp"
    running = {
        argument.removeprefix(_GCS_OPTION).decode()
        for process in processes.glob("[0-9]*/cmdline")
        for argument in _arguments(process)
        if argument.startswith(_GCS_OPTION)
    }
    if len(running) == 1:
        return running.pop()
    try:
        return Path(folder, _RECORD).read_text().strip()
    except OSError:
        if running:
            return min(running)
        raise ClusterUnreachable(
            "auto",
            "no Ray cluster runs on this machine: start one by `ray start --head`, or give an address as host:port",
        ) from None


def _arguments(command_line: Path) -> list[bytes]:
    try:
        return command_line.read_bytes().split(b"\0")
    except OSError:  # it has ended
        return []
