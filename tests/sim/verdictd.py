"""Verdictd in this process: JSON over TLS, a record each way, with a certificate of its own.

Written from docs/protocols.md 4 (eaa); it can answer what it is told to, or nothing.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from base64 import b64decode, b64encode
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trustme
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class SimulatedVerdictd:
    """Its keys, and how it misbehaves."""

    address: str = ""
    keys: dict[str, bytes] = field(default_factory=dict)
    answer: bytes | None = None
    """What to send instead of an answer; nothing (and hang up) if it is empty."""
    delay: float = 0.0
    """Seconds before the answer."""
    requests: list[bytes] = field(default_factory=list)

    def reply(self, request: bytes) -> bytes:
        """Answer one request."""
        self.requests.append(request)
        time.sleep(self.delay)
        if self.answer is not None:
            return self.answer
        (blob,) = json.loads(request)["blobs"]
        if blob["algorithm"] != "AES" or blob["key_length"] != 256:
            return _json({"data": {}, "error": "parameters error", "status": "Fail"})
        if blob["kid"] not in self.keys:
            error = f'kid: "{blob["kid"]}"\'s key not found'
            return _json({"data": {}, "error": error, "status": "Fail"})
        sealed, iv = b64decode(blob["encrypted_data"]), b64decode(blob["iv"])
        try:
            plain = AESGCM(self.keys[blob["kid"]]).decrypt(iv, sealed, None)
        except InvalidTag:
            return _json({"data": {}, "error": "decryption failed", "status": "Fail"})
        return _json({"data": {blob["encrypted_data"]: b64encode(plain).decode()}, "status": "OK"})


@contextmanager
def simulated_verdictd() -> Iterator[SimulatedVerdictd]:
    """Run one on loopback while the block runs."""
    verdictd = SimulatedVerdictd()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("rats-tls.invalid").configure_cert(context)

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
            reply = verdictd.reply(tls.recv(4096))
            if reply:
                tls.sendall(reply)

    def listen(server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:  # closed
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        verdictd.address = f"127.0.0.1:{server.getsockname()[1]}"
        threading.Thread(target=listen, args=(server,), daemon=True).start()
        yield verdictd
        server.shutdown(socket.SHUT_RDWR)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
