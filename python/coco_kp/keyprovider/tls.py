"""A gRPC server's certificate, checked before gRPC has it, which says nothing of what is wrong."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

import grpc

from coco_kp.errors import InputError, shown
from coco_kp.files import read_file, reason

_LONGEST: Final = 1024 * 1024  # bytes of a PEM file


def server_credentials(certificate: Path, key: Path) -> grpc.ServerCredentials:
    """Return the credentials of a server with this certificate chain and key, both PEM.

    Raises ``InputError`` for files that cannot be read, or that do not belong together.
    """
    chain, private = (read_file(path, _LONGEST).data for path in (certificate, key))
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, ValueError):
        raise InputError(
            f"{shown(str(certificate))} and {shown(str(key))} are no certificate and its key",
            "both are PEM; the key must not be encrypted, and the server's own certificate comes "
            "first",
        ) from None
    except OSError as failure:
        raise InputError(f"cannot read a certificate: {reason(failure)}") from None
    return grpc.ssl_server_credentials([(private, chain)])
