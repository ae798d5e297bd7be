"""Certificates as files, and servers that speak TLS by them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from tests.support.tls import Authority, general_name

if TYPE_CHECKING:
    from pathlib import Path


class Pki:
    """A CA and what it issued, as files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.authority = Authority()
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self.authority.pem)
        self.folder = folder

    def issue(self, *names: str) -> tuple[Path, Path]:
        """Return a certificate for these names, and its key."""
        files = self.folder / f"{names[0]}.pem", self.folder / f"{names[0]}.key"
        self.authority.issue(*map(general_name, names)).write(*files)
        return files

    def server(self, *names: str, clients: Pki | None = None) -> grpc.ServerCredentials:
        """Return credentials for these names, that ask for a certificate of ``clients``."""
        certificate, key = self.issue(*names)
        pair = [(key.read_bytes(), certificate.read_bytes())]
        if clients is None:
            return grpc.ssl_server_credentials(pair)
        return grpc.ssl_server_credentials(pair, clients.ca.read_bytes(), True)
