"""The TLS of a client of a key provider."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc

from coco_kp.errors import InputError
from coco_kp.files import read_small
from coco_kp.keyprovider.config import GrpcTls
from coco_kp.redact import shown

_LONGEST: Final = 8 * 1024 * 1024  # bytes of a PEM file; bundles hold text between their CAs, too
_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----"
)
_HASHED: Final = "????????.[0-9]*"
"""How OpenSSL names the certificates in a directory (openssl-rehash(1))."""


def channel_credentials(tls: GrpcTls) -> grpc.ChannelCredentials:
    """Return the credentials of a client, from files that are read anew for each call.

    TLS 1.2 at least, as gRPC has it. Raises ``InputError`` for files that cannot be read or used.
    """
    roots = _roots(Path(tls.root_ca_file)) if tls.root_ca_file else b"\n".join(_system_roots())
    if not tls.cert_file or not tls.key_file:
        return grpc.ssl_channel_credentials(roots)
    from coco_kp.keyprovider.pem import read_pair  # noqa: PLC0415 (few clients show a certificate)

    own = read_pair(Path(tls.cert_file), Path(tls.key_file))
    return grpc.ssl_channel_credentials(roots, own.key, own.chain)


def _roots(file: Path) -> bytes:
    """Read the certificates of CAs. Raises ``InputError`` for a file without any."""
    found = b"\n".join(_CERTIFICATE.findall(read_small(file, _LONGEST)))
    try:
        if not found:
            raise ValueError
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise InputError(
            f"{shown(str(file))} holds no certificate of a CA", "PEM is expected"
        ) from None
    return found


def _system_roots() -> Iterator[bytes]:
    """Read the certificates that OpenSSL trusts, and with it all of our HTTP.

    gRPC would take roots of its own, which the machine's administrator does not know.
    """
    paths = ssl.get_default_verify_paths()  # those of SSL_CERT_FILE and SSL_CERT_DIR, if they are
    files = [Path(paths.cafile)] if paths.cafile else []
    if paths.capath:
        files += sorted(Path(paths.capath).glob(_HASHED))
    if not files:
        raise InputError(
            "this system has no certificates of CAs that it trusts",
            "name the CA of the server's certificate with root-ca-file",
        )
    for file in files:
        yield from _CERTIFICATE.findall(read_small(file, _LONGEST))
