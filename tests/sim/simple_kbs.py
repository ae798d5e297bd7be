"""simple-kbs in this process: one gRPC method, answers as it is told.

Written from docs/protocols.md 4 (online_sev), with protobuf and bincode written by hand, so that no
mistake in our messages can hide in it; held to the real one by tests/replay/test_simple_kbs.py.
"""

from __future__ import annotations

import json
import os
import string
import threading
import uuid
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import grpc
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.sim.protobuf import write_field

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

METHOD: Final = "/keybroker.KeyBrokerService/GetOnlineSecret"
NO_ROWS: Final = "no rows returned by a query that expected to return at least one row"

Behaviour = Callable[[bytes, grpc.ServicerContext], bytes]
"""Answers a request, both as they are on the wire, or aborts."""


class Refused(Exception):  # noqa: N818 (what simple-kbs does)
    """A request is answered with the status INTERNAL and this text."""


@dataclass
class SimulatedSimpleKbs:
    """What it has, whom it knows, and how it misbehaves."""

    address: str = ""
    client_id: str = "77141b30-76ee-4a3a-b0b7-60a89f0503cc"
    key: bytes = field(default_factory=lambda: os.urandom(32))
    secrets: dict[str, bytes | None] = field(default_factory=dict)
    """Its keys by path; None for one that is no base64 in its database."""
    silent: bool = False
    """Whether it never answers."""
    closed: threading.Event = field(default_factory=threading.Event)
    change: Callable[[bytes], bytes] = field(default=lambda plain: plain)
    """What becomes of the map before it is encrypted."""
    answer: tuple[str, str] | None = None
    """Payload and IV to send instead."""
    requests: list[dict[int, Any]] = field(default_factory=list)
    """What was asked, once for each secret: the fields by number."""

    def get_online_secret(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Answer one call."""
        try:
            return self._answer(request, context)
        except Refused as refused:
            context.abort(grpc.StatusCode.INTERNAL, str(refused))

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        fields = read_message(request)
        client_id = fields.get(1, [b""])[-1].decode()
        wanted = [
            {number: values[-1].decode() for number, values in read_message(details).items()}
            for details in fields.get(2, [])
        ]
        self.requests += [{1: client_id, 2: details} for details in wanted]
        if self.silent:
            self.closed.wait()
        if self.answer is not None:
            return write_field(1, self.answer[0].encode()) + write_field(2, self.answer[1].encode())
        if _parse_client_id(client_id) != uuid.UUID(self.client_id):
            raise Refused(f"Connection not found: {NO_ROWS}")
        secrets = {details.get(1, ""): self._secret(details) for details in wanted}
        if len(self.key) != 32:
            context.abort(grpc.StatusCode.CANCELLED, "the handler died")
        plain = len(secrets).to_bytes(8, "little")
        for guid, secret in secrets.items():
            plain += _sized(guid.encode()) + _sized(secret)
        iv = os.urandom(12)
        payload = AESGCM(self.key).encrypt(iv, self.change(plain), None)
        return write_field(1, b64encode(payload)) + write_field(2, b64encode(iv))

    def _secret(self, details: Mapping[int, str]) -> bytes:
        form, kind, name = (details.get(number, "") for number in (2, 3, 4))
        if kind not in ("key", "resource", "report"):
            raise Refused("Bad secret request: Unknown Secret Type")
        if kind != "key" or name not in self.secrets:
            raise Refused(f"Cannot fulfill secret request: {NO_ROWS}")
        secret = self.secrets[name]
        if secret is None:
            raise Refused("Cannot fulfill secret request: Invalid Secret Format")
        match form:
            case "binary":
                return secret
            case "json":
                document = {"id": name, "payload": b64encode(secret).decode()}
                return json.dumps(document, separators=(",", ":")).encode()
        raise Refused("Cannot fulfill secret request: Unknown format type")


@contextmanager
def simulated_simple_kbs() -> Iterator[SimulatedSimpleKbs]:
    """Run one on loopback while the block runs."""
    simulated = SimulatedSimpleKbs()
    with behaving(simulated.get_online_secret) as simulated.address:
        try:
            yield simulated
        finally:
            simulated.closed.set()


@contextmanager
def behaving(behaviour: Behaviour) -> Iterator[str]:
    """Answer calls of the method on loopback while the block runs, and give the address."""
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((_Handlers(behaviour),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield address
    finally:
        server.stop(None).wait()


class _Handlers(grpc.GenericRpcHandler):
    """One method, and for any other a status without a text."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        known = handler_call_details.method == METHOD
        return grpc.unary_unary_rpc_method_handler(self._behaviour if known else _unknown)


def _unknown(_request: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.UNIMPLEMENTED, "")


def read_message(message: bytes) -> dict[int, list[bytes]]:
    """Read a message whose fields are all texts, bytes or messages; each may be repeated."""
    fields: dict[int, list[bytes]] = {}
    while message:
        tag, message = _varint(message)
        size, message = _varint(message)
        assert tag & 7 == 2
        assert size <= len(message)
        fields.setdefault(tag >> 3, []).append(message[:size])
        message = message[size:]
    return fields


def _varint(message: bytes) -> tuple[int, bytes]:
    value = 0
    for position, byte in enumerate(message[:10]):
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return value, message[position + 1 :]
    raise Refused("failed to decode Protobuf message: invalid varint")


def _parse_client_id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        pass
    for position, character in enumerate(text, start=1):
        if character not in f"{string.hexdigits}-":
            raise Refused(
                "Malformed Client ID: invalid character: expected an optional prefix of "
                f"`urn:uuid:` followed by [0-9a-fA-F-], found `{character}` at {position}"
            )
    raise Refused(
        "Malformed Client ID: invalid length: expected length 32 for simple format, "
        f"found {len(text)}"
    )


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data
