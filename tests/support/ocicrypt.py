"""The client's side of the key-provider protocol, as ocicrypt for Go speaks it.

For calls that skopeo cannot be made to send: many at once, half a one, a malformed one. Written
from docs/protocols.md 2.2 and 2.3 with none of our own code, so that no mistake in ours can hide.
"""

from __future__ import annotations

import json
import os
import threading
from base64 import b64decode, b64encode
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

import grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

WRAP_KEY: Final = "/keyprovider.KeyProviderService/WrapKey"
UNWRAP_KEY: Final = "/keyprovider.KeyProviderService/UnWrapKey"

TIMEOUT: Final = 120
"""Seconds after which a call counts as hung; ocicrypt itself would wait for ever."""


def wrap(channel: grpc.Channel, parameters: str, options: bytes) -> bytes:
    """Have a layer's private options wrapped and return the packet."""
    return wrapped_packet(send(channel, WRAP_KEY, wrap_request(parameters, options)))


def begin_wrap(
    channel: grpc.Channel, parameters: str, options: bytes, go_on: threading.Event
) -> Any:
    """Begin to have private options wrapped: the message is held back until ``go_on`` is set.

    Returns the call; `wrapped_packet` reads its ``result()``. On the wire, a message that comes
    late is all that tells a stream of one message from a single one.
    """

    def message() -> Iterator[bytes]:
        go_on.wait()
        yield wrap_request(parameters, options)

    call = channel.stream_unary(WRAP_KEY, encode_message, decode_message)
    return call.future(message(), timeout=TIMEOUT)


@contextmanager
def half_open_calls(address: str, method: str, connections: int, calls: int) -> Iterator[list[Any]]:
    """Begin calls that send no message, so many on each connection; they last as the block does."""
    never = threading.Event()

    def nothing() -> Iterator[bytes]:
        never.wait()
        yield from ()

    with ExitStack() as stack:
        stack.callback(never.set)
        begun: list[Any] = []
        for _ in range(connections):
            channel = stack.enter_context(connection(address))
            grpc.channel_ready_future(channel).result(TIMEOUT)
            call = channel.stream_unary(method, bytes, bytes)
            begun += [call.future(nothing()) for _ in range(calls)]
        yield begun


def unwrap(channel: grpc.Channel, kbc: str, packet: bytes) -> bytes:
    """Have a packet unwrapped and return the private options."""
    answer = send(channel, UNWRAP_KEY, unwrap_request(kbc, packet))
    return _bytes(json.loads(answer)["keyunwrapresults"]["optsdata"])


def send(channel: grpc.Channel, method: str, request: bytes) -> bytes:
    """Send one request and return its answer, both in the protocol's JSON."""
    call = channel.unary_unary(method, encode_message, decode_message)
    answer: bytes = call(request, timeout=TIMEOUT)
    return answer


@contextmanager
def connection(address: str) -> Iterator[grpc.Channel]:
    """Open a connection that is shared with nobody; ocicrypt opens one for each call."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        yield channel


def new_private_options() -> bytes:
    """Return the document that holds a layer's key, as Go writes it (docs/protocols.md 1.3)."""
    options = {
        "symkey": _base64(os.urandom(32)),
        "digest": f"sha256:{os.urandom(32).hex()}",
        "cipheroptions": {"nonce": _base64(os.urandom(16))},
    }
    return json.dumps(options, separators=(",", ":")).encode()


def wrap_request(parameters: str, options: bytes) -> bytes:
    """Return the JSON that asks to wrap a layer's private options."""
    recipient = {"attestation-agent": [_base64(parameters.encode())]}
    encrypt = {"Parameters": recipient, "DecryptConfig": {"Parameters": {}}}
    request = {
        "op": "keywrap",
        "keywrapparams": {"ec": encrypt, "optsdata": _base64(options)},
        "keyunwrapparams": {"dc": None, "annotation": None},
    }
    return json.dumps(request).encode()


def unwrap_request(kbc: str, packet: bytes, *others: str) -> bytes:
    """Return the JSON that asks to unwrap a packet, by this KBC or one of the others."""
    kbcs = [_base64(name.encode()) for name in (kbc, *others)]
    decrypt = {"Parameters": {"attestation-agent": kbcs}}
    request = {
        "op": "keyunwrap",
        "keywrapparams": {"ec": None, "optsdata": None},
        "keyunwrapparams": {"dc": decrypt, "annotation": _base64(packet)},
    }
    return json.dumps(request).encode()


def wrapped_packet(answer: bytes) -> bytes:
    """Return the packet in the JSON that answers `wrap_request`."""
    return _bytes(json.loads(answer)["keywrapresults"]["annotation"])


def encode_message(payload: bytes) -> bytes:
    """Write the message: one field, number 1, of bytes (protobuf's wire type 2)."""
    length, size = bytearray(), len(payload)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return b"\x0a" + length + payload


def decode_message(message: bytes) -> bytes:
    """Read the message that `encode_message` writes."""
    assert message[0] == 0x0A
    end = next(n for n, byte in enumerate(message[1:], start=1) if byte < 0x80) + 1
    payload = message[end:]
    assert message == encode_message(payload)
    return payload


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _bytes(value: str | list[int]) -> bytes:
    """Read bytes as Go does: base64, or an array of numbers (docs/protocols.md 2.3)."""
    return b64decode(value, validate=True) if isinstance(value, str) else bytes(value)
