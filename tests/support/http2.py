"""A client of HTTP/2 that does what no library does: it leaves the server no room to answer."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from .patience import PATIENCE

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_END_STREAM, _END_HEADERS = 1, 4
_INITIAL_WINDOW_SIZE = 4
_PLAIN = {
    ":method": "POST",
    ":scheme": "http",
    ":authority": "localhost",
    "te": "trailers",
    "content-type": "application/grpc",
}


@contextmanager
def calls_that_take_no_answer(address: str, method: str, *messages: bytes) -> Iterator[None]:
    """Make calls, each with its message, whose answers have no room (RFC 9113, 6.9.2), and wait
    until they have reached the server; they are there while the block runs."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        nothing = struct.pack(">HI", _INITIAL_WINDOW_SIZE, 0)
        connection.sendall(_PREFACE + _frame(_SETTINGS, nothing))
        for number, message in enumerate(messages):
            body = b"\0" + struct.pack(">I", len(message)) + message
            stream = 2 * number + 1
            connection.sendall(
                _frame(_HEADERS, _fields(_PLAIN | {":path": method}), _END_HEADERS, stream)
                + _frame(_DATA, body, _END_STREAM, stream)
            )
        connection.sendall(_frame(_PING, b"arrived?"))
        received = b""
        while b"arrived?" not in received:
            received += connection.recv(4096)
        yield


def _frame(kind: int, payload: bytes, flags: int = 0, stream: int = 0) -> bytes:
    """Write a frame (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _fields(fields: dict[str, str]) -> bytes:
    """Write header fields as literals that are not kept (RFC 7541, 6.2.2); pseudo-fields first."""
    ordered = sorted(fields.items(), key=lambda field: not field[0].startswith(":"))
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in ordered)


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()
