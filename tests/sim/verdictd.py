"""Verdictd in this process: JSON over TLS, a record each way, with a certificate of its own.

Written from docs/protocols.md 4 (eaa) and held to the real one by tests/replay/test_verdictd.py; it
can answer what it is told to, or nothing.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from base64 import b64decode, b64encode
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import trustme
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_REQUEST: Final = 4096
MAX_RECORD: Final = 16 * 1024


class Refused(Exception):  # noqa: N818 (what Verdictd does)
    """A request is answered with the status Fail and this text."""


@dataclass
class SimulatedVerdictd:
    """Its keys, and how it misbehaves."""

    address: str = ""
    keys: dict[str, bytes] = field(default_factory=dict)
    answer: bytes | None = None
    """What to send instead of an answer; nothing (and hang up) if it is empty."""
    silent: bool = False
    """Whether it never answers."""
    closed: threading.Event = field(default_factory=threading.Event)
    requests: list[bytes] = field(default_factory=list)

    def reply(self, request: bytes) -> bytes:
        """Answer one request; with nothing where the real one hangs up."""
        self.requests.append(request)
        if self.silent:
            self.closed.wait()
        if self.answer is not None:
            return self.answer
        if len(request) > MAX_REQUEST:
            return b""
        try:
            return self._answer(json.loads(request))
        except Refused as refused:
            return _json({"data": {}, "error": str(refused), "status": "Fail"})
        except (ValueError, KeyError):
            return b""

    def _answer(self, message: Mapping[str, Any]) -> bytes:
        match message["command"]:
            case "version":
                return _json({"status": "OK", "version": "v1"})
            case "Decrypt":
                if "blobs" not in message:
                    raise Refused("decrypt parameters error")
                opened = {blob["encrypted_data"]: self._opened(blob) for blob in message["blobs"]}
                return _json({"data": opened, "status": "OK"})
            case "Get KEK":
                keys = {kid: _base64(self._key(kid, kid)) for kid in message["kids"]}
                return _json({"data": keys, "status": "OK"})
            case "Get Resource Info":  # it has none
                return _json({"error": "file name error", "status": "Fail"})
        raise ValueError("an unknown command")

    def _opened(self, blob: Mapping[str, Any]) -> str:
        if blob.get("algorithm") != "AES" or blob.get("key_length") != 256 or "iv" not in blob:
            raise Refused("parameters error")
        key = self._key(blob["kid"], json.dumps(blob["kid"]))
        sealed, iv = (b64decode(blob[name], validate=True) for name in ("encrypted_data", "iv"))
        if len(key) != 32 or len(iv) != 12:
            raise ValueError("its process dies")
        try:
            return _base64(AESGCM(key).decrypt(iv, sealed, None))
        except InvalidTag:
            raise Refused("decryption failed") from None

    def _key(self, kid: str, shown: str) -> bytes:
        """Read a key file: the kid is put behind the path of a folder and a slash."""
        if (path := kid.lstrip("/")) not in self.keys:
            raise Refused(f"kid: {shown}'s key not found")
        return self.keys[path]


@contextmanager
def simulated_verdictd() -> Iterator[SimulatedVerdictd]:
    """Run one on loopback while the block runs."""
    verdictd = SimulatedVerdictd()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("rats-tls.invalid").configure_cert(context)

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
            while request := tls.recv(MAX_RECORD):
                if not (reply := verdictd.reply(request)):
                    break
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
        verdictd.closed.set()
        server.shutdown(socket.SHUT_RDWR)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
