"""Certificates for a cluster whose processes are to encrypt what they send each other.

Ray then takes and gives only what an authority of the cluster's own has signed, so that both sides are who they say.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import socket
from collections.abc import Iterable, Iterator, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from nsactors.errors import NsactorsError
from nsactors.transport.private_files import write_private
from nsactors.transport.private_folder import PrivateFolder

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["certify", "encrypted", "new_authority"]

VALID_DAYS = 365
_AUTHORITY = "nsactors cluster"


@contextlib.contextmanager
def encrypted(environment: MutableMapping[str, str]) -> Iterator[None]:
    """Certificates for a cluster on this machine, in a folder that goes afterwards; Ray finds them by the environment.

    Raises:
        NsactorsError: if the package that makes them is not installed.
    """
    folder = PrivateFolder()  # which is found and removed, too, if this process is killed
    try:
        environment.update(certify(new_authority(), Path(folder.path), ["127.0.0.1"]))
        yield
    finally:
        folder.remove()


def new_authority() -> str:
    """Who signs the certificates of one cluster: a certificate and its key, as text. Who has it is let in.

    Raises:
        NsactorsError: if the package that makes them is not installed.
    """
    _need_package()
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    signed = (
        _certificate(_AUTHORITY, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _text(signed) + _key_text(key)


def certify(authority: str, folder: Path, addresses: Iterable[str]) -> dict[str, str]:
    """A certificate for this machine.

    Args:
        authority: who signs it; see :func:`new_authority`.
        folder: where the files are put, of mode 0600.
        addresses: under which others reach this machine, beside its own names.

    Returns:
        What Ray is to find in its environment.

    Raises:
        NsactorsError: if the package that makes them is not installed.
    """
    _need_package()
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    signer = serialization.load_pem_private_key(authority.encode(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    names = dict.fromkeys([*addresses, socket.gethostname(), "localhost", "127.0.0.1"])
    signed = (
        _certificate("nsactors process", key.public_key())
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    files = {
        "RAY_TLS_CA_CERT": ("authority.pem", _text(x509.load_pem_x509_certificate(authority.encode()))),
        "RAY_TLS_SERVER_CERT": ("certificate.pem", _text(signed)),
        "RAY_TLS_SERVER_KEY": ("key.pem", _key_text(key)),
    }
    for file, text in files.values():
        write_private(folder / file, text)
    return {"RAY_USE_TLS": "1", **{variable: os.fspath(folder / file) for variable, (file, _) in files.items()}}


def _need_package() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise NsactorsError("certificates need a package of their own: pip install 'nsactors[tls]'") from error


def _certificate(subject: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(_AUTHORITY))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
    )


def _name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _text(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_text(key: ec.EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives import serialization

    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()
