"""Certificates and keys in PEM, checked before gRPC has them, which says nothing of what is wrong.

gRPC gets what was checked, written anew, and not the files: no two readers can differ on them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from coco_kp.errors import InputError
from coco_kp.files import read_small
from coco_kp.redact import shown
from coco_kp.values import dataclass, field

LONGEST_FILE: Final = 1024 * 1024
"""Bytes of a PEM file at the most."""

_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain and its key, both PEM, and when the first of the chain to end does so.

    ``expires`` is in seconds since 1970.
    """

    chain: bytes
    key: bytes = field(repr=False)
    expires: float


def read_pair(certificate: Path, key: Path) -> Pair:
    """Read a certificate chain and its key.

    Raises ``InputError`` for files that cannot be read, or that do not belong together.
    """
    chain, private = _certificates(certificate), _private_key(key)
    if not _belong_together(chain[0], private):
        raise InputError(
            f"{shown(str(certificate))} and {shown(str(key))} are not a certificate and its key",
            "the certificate of the key comes first in its file",
        )
    return Pair(
        _pem(chain),
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        min(one.not_valid_after_utc.timestamp() for one in chain),
    )


def read_certificates(path: Path) -> bytes:
    """Read the certificates of a file. Raises ``InputError``; also for one without any."""
    return _pem(_certificates(path))


def _belong_together(certificate: x509.Certificate, key: _PrivateKey) -> bool:
    try:
        return certificate.public_key() == key.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(read_small(path, LONGEST_FILE))
    except (ValueError, x509.InvalidVersion):
        raise InputError(f"{shown(str(path))} holds no certificates in PEM") from None


def _private_key(path: Path) -> _PrivateKey:
    name = shown(str(path))
    try:
        key = load_pem_private_key(read_small(path, LONGEST_FILE), None)
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{name} holds no private key in PEM") from None
    except TypeError:
        raise InputError(
            f"the private key in {name} is encrypted", "there is nobody to ask for the password"
        ) from None
    # gRPC takes no others, and would go on with the old certificate without a word.
    if isinstance(key, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES)
    ):
        return key
    raise InputError(
        f"the private key in {name} is of a kind that gRPC does not take",
        "RSA, ECDSA with P-256, P-384 or P-521, and Ed25519 it takes",
    )


def _pem(certificates: list[x509.Certificate]) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)
