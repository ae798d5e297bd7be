"""simple-kbs in this process: one gRPC method, answers as it is told.

Written from docs/protocols.md 4 (online_sev), with protobuf and bincode written by hand, so that no
mistake in our messages can hide in it.
"""

from __future__ import annotations

import os
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import grpc
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SERVICE: Final = "keybroker.KeyBrokerService"


@dataclass
class SimulatedSimpleKbs:
    """What it has, whom it knows, and how it misbehaves."""

    address: str = ""
    client_id: str = "77141b30-76ee-4a3a-b0b7-60a89f0503cc"
    key: bytes = field(default_factory=lambda: os.urandom(32))
    secrets: dict[str, bytes] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before the answer."""
    change: Callable[[bytes], bytes] = field(default=lambda plain: plain)
    """What becomes of the map before it is encrypted."""
    answer: tuple[str, str] | None = None
    """Payload and IV to send instead."""
    requests: list[dict[int, Any]] = field(default_factory=list)

    def get_online_secret(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Answer one call."""
        message = read_message(request)
        details = read_message(message[2])
        self.requests.append({1: message[1].decode(), 2: {n: details[n].decode() for n in details}})
        time.sleep(self.delay)
        if self.answer is not None:
            return _field(1, self.answer[0].encode()) + _field(2, self.answer[1].encode())
        if message[1].decode() != self.client_id:
            context.abort(grpc.StatusCode.INTERNAL, "Connection not found: no rows returned")
        if (secret := self.secrets.get(details[4].decode())) is None:
            text = "Cannot fulfill secret request: no rows returned by a query"
            context.abort(grpc.StatusCode.INTERNAL, text)
        plain = (1).to_bytes(8, "little") + _sized(details[1]) + _sized(secret)
        iv = os.urandom(12)
        payload = AESGCM(self.key).encrypt(iv, self.change(plain), None)
        return _field(1, b64encode(payload)) + _field(2, b64encode(iv))


@contextmanager
def simulated_simple_kbs() -> Iterator[SimulatedSimpleKbs]:
    """Run one on loopback while the block runs."""
    simulated = SimulatedSimpleKbs()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
        simulated.get_online_secret
    )
    server = grpc.server(ThreadPoolExecutor(4))
    handlers = {"GetOnlineSecret": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    simulated.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield simulated
    finally:
        server.stop(None).wait()


def read_message(message: bytes) -> dict[int, bytes]:
    """Read a message whose fields are short texts or messages, each there once."""
    fields: dict[int, bytes] = {}
    while message:
        tag, size = message[0], message[1]
        assert tag & 7 == 2
        assert size < 0x80 or message[2] < 0x80
        start = 2
        if size >= 0x80:
            size, start = size & 0x7F | message[2] << 7, 3
        assert tag >> 3 not in fields
        fields[tag >> 3] = message[start : start + size]
        message = message[start + size :]
    return fields


def _field(number: int, data: bytes) -> bytes:
    length, size = bytearray(), len(data)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes([number << 3 | 2]) + length + data


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data
