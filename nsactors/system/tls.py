"""Certificates for clusters whose processes encrypt their connections.

Ray then accepts only connections on which both sides have a certificate that the cluster's own authority has signed.
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

from nsactors.errors import PackageMissing
from nsactors.system.private_files import PrivateFolder, write_private

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

VALID_DAYS = 365
_AUTHORITY = "nsactors cluster"


@contextlib.contextmanager
def encrypted(environment: MutableMapping[str, str]) -> Iterator[None]:
    """Point ``environment`` to certificates for a cluster on this machine; their folder is removed at the end.

    Raises:
        PackageMissing: if ``cryptography`` is not installed.
    """
    folder = PrivateFolder()  # the next process removes it if this one is killed
    try:
        environment.update(certify(new_authority(), Path(folder.path), ["127.0.0.1"]))
        yield
    finally:
        folder.remove()


def new_authority() -> str:
    """Make an authority for one cluster: a certificate and its key, as text, which give access to the cluster.

    Raises:
        PackageMissing: if ``cryptography`` is not installed.
    """
    _need_package()
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    signed = (
        _certificate(_AUTHORITY, key.public_key(), key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _text(signed) + _key_text(key)


def certify(authority: str, folder: Path, addresses: Iterable[str]) -> dict[str, str]:
    """Make a certificate for this machine.

    Args:
        authority: the authority that signs it; see :func:`new_authority`.
        folder: the folder for the files, which have mode 0600.
        addresses: the addresses of this machine, besides its own names.

    Returns:
        Environment variables for Ray.

    Raises:
        PackageMissing: if ``cryptography`` is not installed.
    """
    _need_package()
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    signer = serialization.load_pem_private_key(authority.encode(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    # Every name that a client may connect to: TLS compares it with the certificate.
    names = dict.fromkeys([*addresses, socket.gethostname(), "localhost", "127.0.0.1"])
    signed = (
        _certificate("nsactors process", key.public_key(), signer.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
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
        raise PackageMissing("--tls", "cryptography", "pip install 'nsactors[tls]'") from error


def _certificate(
    subject: str, key: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
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
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks of machines differ
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        # RFC 5280, 4.2.1.1 and 4.2.1.2. Python 3.13 verifies strictly, and requires both.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _usage(**given: bool) -> x509.KeyUsage:
    """Return the usage of a key, by the names of RFC 5280, 4.2.1.3; a strict verifier requires it of an authority."""
    from cryptography import x509

    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    signing = ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: given.get(name, False) for name in names + signing})


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
