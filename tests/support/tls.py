"""Certificates that a test makes, and connections with them."""

from __future__ import annotations

import datetime as dt
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SERVER_NAME: Final = "kp.example.org"
"""The DNS name in certificates of servers, which none resolves."""

_DAY: Final = dt.timedelta(days=1)
_PURPOSES: Final = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)

    @property
    def expires(self) -> float:
        """When the certificate ends, in seconds since 1970."""
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc.timestamp()

    def write(self, certificate: Path, key: Path) -> None:
        """Write both, as a user would who renews them by hand."""
        key.touch(0o600)
        key.write_bytes(self.key)
        certificate.write_bytes(self.certificate)


class Authority:
    """A certificate authority of a test."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name(f"test CA {os.urandom(8).hex()}")  # two of a name look alike
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        built = _builder(self._subject, self._subject, self._key).add_extension(constraints, True)
        self.pem = _pem(built.sign(self._key, hashes.SHA256()))

    def issue(
        self,
        *names: x509.GeneralName,
        common_names: Sequence[str] = (),
        purposes: Sequence[x509.ObjectIdentifier] = _PURPOSES,
        extensions: Sequence[tuple[x509.ObjectIdentifier, bytes]] = (),
        days: float = 1,
    ) -> Issued:
        """Issue a certificate; one without ``names`` has no subjectAltName.

        ``extensions`` are further ones by their DER.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        built = _builder(_name(*common_names), self._subject, key, days)
        if names:
            built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
        built = built.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        for kind, der in extensions:
            built = built.add_extension(x509.UnrecognizedExtension(kind, der), critical=False)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Issued(_pem(built.sign(self._key, hashes.SHA256())), private)

    def issue_server(self, days: float = 1) -> Issued:
        """Issue a certificate for ``127.0.0.1`` and `SERVER_NAME`."""
        return self.issue(general_name("127.0.0.1"), general_name(SERVER_NAME), days=days)


@contextmanager
def tls_connection(
    address: str, authority: Authority, client: Issued | None = None
) -> Iterator[grpc.Channel]:
    """Open a connection with TLS that is shared with nobody."""
    own = (client.key, client.certificate) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.pem, *own)
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(address, credentials, options) as channel:
        yield channel


def general_name(text: str) -> x509.GeneralName:
    """Return an IP address or a DNS name, as a certificate has it."""
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    days: float = 1,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - 2 * _DAY,
        not_valid_after=now + days * _DAY,
    )


def _name(*common_names: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
