"""A gRPC server's certificate and its clients' CA, looked at anew for each connection.

Whoever renews certificates replaces files, one after the other, or all at once with a link as
Kubernetes does. What was read is used only if it belongs together; else the old stay, with one
warning for each change.

Connections that there are keep what they began with, until the server asks them to close.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

import grpc

from coco_kp.errors import InputError
from coco_kp.exposure import exposure
from coco_kp.keyprovider.pem import Pair, read_certificates, read_pair
from coco_kp.observe import event
from coco_kp.values import dataclass


@dataclass(frozen=True, slots=True)
class _Material:
    """What is used together: a certificate with its key, and the clients' CA in PEM."""

    pair: Pair
    client_ca: bytes | None


class ServerTls:
    """A server's TLS: certificate chain and key, both PEM; with a CA, clients need certificates.

    Raises ``InputError`` for files that cannot be read, or that do not belong together.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._looking = threading.Lock()
        self._seen = self._state()
        self._material = self._given = self._read()
        self._announce()

    def credentials(self) -> grpc.ServerCredentials:
        """Return the credentials for a port: TLS 1.2 or newer, as gRPC has it."""
        # its stub does not know that it may fetch nothing
        fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", self._fetch)
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._given), fetch, self._client_ca is not None
        )

    def look(self) -> None:
        """Look at the files anew, as each connection does, so that it is known what they hold."""
        with self._looking:
            state = self._state()
            if state != self._seen:
                self._take(state)

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what a new connection gets; None for what the last one got."""
        self.look()
        material = self._material
        if material is self._given:
            return None
        self._given = material
        return _configuration(material)

    def _take(self, state: tuple[object, ...]) -> None:
        """Use what the files hold, if it belongs together and they still are in this state."""
        message, material = "", self._material
        try:
            material = self._read()
        except InputError as error:
            message = f"the old TLS certificate stays: {error}"
        except Exception as error:  # noqa: BLE001 (no file, whatever is in it, ends the server)
            message = f"the old TLS certificate stays: {type(error).__name__}"
        if self._state() != state:
            return  # who knows what was read: the next look tells
        self._seen, self._material = state, material
        if message:
            event(logging.WARNING, "warning", message=message)
        else:
            self._announce()

    def _announce(self) -> None:
        expires = self._material.pair.expires
        until = dt.datetime.fromtimestamp(expires, dt.UTC).isoformat()
        event(logging.INFO, "certificate", expires=expires, message=f"valid until {until}")
        with suppress(OSError):  # it is gone again: the next look tells
            for message in exposure("TLS key", self._key, self._key.stat()):
                event(logging.WARNING, "warning", message=message)

    def _state(self) -> tuple[object, ...]:
        """Return what changes with the files, behind all links."""
        return tuple(
            _state(path) for path in (self._certificate, self._key, self._client_ca) if path
        )

    def _read(self) -> _Material:
        return _Material(
            read_pair(self._certificate, self._key),
            read_certificates(self._client_ca) if self._client_ca else None,
        )


def _configuration(material: _Material) -> grpc.ServerCertificateConfiguration:
    pair = material.pair
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)], material.client_ca)


def _state(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError as failure:
        return (failure.errno or 0,)
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev
