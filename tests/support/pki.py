"""Certificate authorities of tests, and servers that speak TLS by them."""

from __future__ import annotations

from pathlib import Path

import grpc
import trustme


class Pki:
    """A CA and what it issued, as files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.folder = folder

    def issue(self, *names: str) -> tuple[Path, Path]:
        """Return a certificate for these names, and its key."""
        issued = self.authority.issue_cert(*names)
        files = self.folder / f"{names[0]}.pem", self.folder / f"{names[0]}.key"
        files[0].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(files[1])
        return files

    def server(self, *names: str, clients: Pki | None = None) -> grpc.ServerCredentials:
        """Return credentials for these names, that ask for a certificate of ``clients``."""
        certificate, key = self.issue(*names)
        pair = [(key.read_bytes(), certificate.read_bytes())]
        if clients is None:
            return grpc.ssl_server_credentials(pair)
        return grpc.ssl_server_credentials(pair, clients.ca.read_bytes(), True)
