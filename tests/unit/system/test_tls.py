"""Certificates let in whoever has one of the same cluster, and nobody else."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import sys
import threading
from pathlib import Path

import pytest

from nsactors.errors import AccessRefused, NsactorsError
from nsactors.system.tls import certify, encrypted, new_authority
from nsactors.transport.ray.access import answer_to, check_access

ANSWER = b"\0\0\0\x04\0\0\0\0\0\0\0\x20\x01\x05\0\0\0\x01@\x0bgrpc-status\x010"


class Server:
    """Answers one connection as a Ray that wants certificates does."""

    def __init__(self, settings: dict[str, str]) -> None:
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=settings["RAY_TLS_CA_CERT"])
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_cert_chain(settings["RAY_TLS_SERVER_CERT"], settings["RAY_TLS_SERVER_KEY"])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        plain, _ = self._listener.accept()
        try:
            with self._context.wrap_socket(plain, server_side=True) as line:
                asked = b""
                while not asked.endswith(b"\0\0\0\0\0"):
                    asked += line.recv(4096)
                line.sendall(ANSWER)
        except OSError:
            plain.close()

    def close(self) -> None:
        self._thread.join()
        self._listener.close()


def test_processes_of_one_cluster_understand_each_other(tmp_path: Path) -> None:
    authority = new_authority()
    here, there = (certify(authority, tmp_path / host, ["192.0.2.7"]) for host in ("a", "b"))
    server = Server(there)
    assert answer_to(server.address, "", here) == 0
    server.close()


def test_certificates_pass_the_strict_verification_of_rfc_5280(tmp_path: Path) -> None:
    # Python 3.13 verifies in this way by default, and 3.11 if it is set.
    settings = certify(new_authority(), tmp_path, [])
    server = Server(settings)
    strict = ssl.create_default_context(cafile=settings["RAY_TLS_CA_CERT"])
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    strict.load_cert_chain(settings["RAY_TLS_SERVER_CERT"], settings["RAY_TLS_SERVER_KEY"])
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port))) as plain, strict.wrap_socket(plain, server_hostname=host) as line:
        line.sendall(b"\0\0\0\0\0")
        assert line.recv(4096) == ANSWER
    server.close()


def test_somebody_elses_certificate_is_refused(tmp_path: Path) -> None:
    here, there = (certify(new_authority(), tmp_path / host, []) for host in ("a", "b"))
    server = Server(there)
    with pytest.raises(AccessRefused, match="do not match"):
        check_access(server.address, here)
    server.close()


def test_the_files_are_for_their_user_alone_and_go(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    with encrypted(environment):
        files = [Path(path) for variable, path in environment.items() if variable != "RAY_USE_TLS"]
        assert [stat.S_IMODE(os.stat(path).st_mode) for path in (files[0].parent, *files)] == [0o700, *[0o600] * 3]
    assert not files[0].parent.exists()


def test_the_authoritys_key_is_in_no_file(tmp_path: Path) -> None:
    authority = new_authority()
    certify(authority, tmp_path, [])
    key = authority[authority.index("-----BEGIN PRIVATE KEY") :]
    assert not [path for path in tmp_path.iterdir() if key in path.read_text()]


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(NsactorsError, match=r"nsactors\[tls\]"):
        new_authority()
