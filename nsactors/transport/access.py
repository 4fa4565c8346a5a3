"""Whether a cluster would let this process in, found out before Ray tries.

Ray itself takes 20 s to give up on a token that is wrong, and prints many lines meanwhile. So one request is made here
by hand: the server's answer to it says whether the token is right. It is the smallest that gRPC allows (HTTP/2 frames,
RFC 9113; headers without compression, RFC 7541) and asks for nothing.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import Mapping
from pathlib import Path

from nsactors.errors import AccessRefused, ClusterUnreachable

__all__ = ["NotRay", "answer_to", "check_access", "token_for"]

CONNECT_S = 1.5
ANSWER_S = 10.0  # a machine under load is slow to answer, and who is refused is told at once

UNAUTHENTICATED = 16  # of the codes of gRPC

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_EMPTY_MESSAGE = b"\0" * 5
_REQUEST = "/ray.rpc.NodeInfoGcsService/GetClusterId"
_STATUS = b"\x0bgrpc-status"  # as the server writes it: a length, and no compression
_LONGEST_ANSWER = 65_536


def check_access(address: str, settings: Mapping[str, str]) -> None:
    """See that the cluster answers, and takes the token.

    Args:
        address: of the Ray cluster, ``host:port``.
        settings: what Ray is to find in the environment of who connects.

    Raises:
        AccessRefused: if the token is not there, not this user's, or wrong.
        ClusterUnreachable: if nobody answers.
    """
    token = token_for(address, settings)
    try:
        status = answer_to(address, token, settings)
    except TimeoutError:
        raise ClusterUnreachable(address, "it does not answer") from None
    except ssl.SSLError as error:
        raise AccessRefused(address, f"its certificate and yours do not fit together ({error.reason})") from None
    except OSError as error:
        raise ClusterUnreachable(address, f"nothing listens there ({error.strerror})") from None
    except NotRay:
        raise ClusterUnreachable(address, "what listens there is no Ray, or wants what is sent encrypted") from None
    if status == UNAUTHENTICATED:
        raise AccessRefused(address, "the token is wrong" if token else "it wants a token, and you have none")


def token_for(address: str, settings: Mapping[str, str]) -> str:
    """The token that Ray would use with these settings; empty if there is none.

    Raises:
        AccessRefused: if there is to be one in a file that is not there, or not this user's to read.
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
    """How a server of Ray's answers somebody with this token: a code of gRPC; None if that is not understood.

    Args:
        address: ``host:port``.
        token: empty for none.
        settings: whether to encrypt, and with what.
        request: what is asked of it.

    Raises:
        OSError: if nobody listens, or the connection breaks; TimeoutError if there is no answer.
        NotRay: if it does not speak HTTP/2.
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
    if answer[3:4] != bytes([_SETTINGS]):  # every server of HTTP/2 begins with these
        raise NotRay
    return None


class NotRay(Exception):
    """Something else has answered."""


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
    return b"\0" + _text(name) + _text(value)  # not to be kept in the server's table of headers


def _text(text: str) -> bytes:
    encoded = os.fsencode(text)
    return _length(len(encoded)) + encoded


def _length(count: int) -> bytes:
    """A number in seven bits, and what does not fit in more bytes of seven bits each (RFC 7541, 5.1)."""
    if count < 127:
        return bytes([count])
    rest, tail = count - 127, b"\x7f"
    while rest >= 128:
        tail += bytes([rest % 128 + 128])
        rest //= 128
    return tail + bytes([rest])
