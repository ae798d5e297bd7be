"""Protobuf by hand, for simulators that must share no mistake with our messages."""

from __future__ import annotations


def write_field(number: int, data: bytes) -> bytes:
    """Return a field of a text, bytes or a message."""
    return _write_varint(number << 3 | 2) + _write_varint(len(data)) + data


def write_number(number: int, value: int) -> bytes:
    """Return a field of a number that is not negative, or of a truth value."""
    return _write_varint(number << 3) + _write_varint(value)


def read_fields(message: bytes) -> dict[int, list[bytes | int]]:
    """Read a message of numbers, texts, bytes and messages; each field may be repeated.

    Raises ``ValueError`` for anything else.
    """
    fields: dict[int, list[bytes | int]] = {}
    while message:
        tag, message = read_varint(message)
        value, message = read_varint(message)
        match tag & 7:
            case 0:
                fields.setdefault(tag >> 3, []).append(value)
            case 2 if value <= len(message):
                fields.setdefault(tag >> 3, []).append(message[:value])
                message = message[value:]
            case _:
                raise ValueError("failed to decode Protobuf message")
    return fields


def read_varint(message: bytes) -> tuple[int, bytes]:
    """Return the number that a message begins with, and what follows it."""
    value = 0
    for position, byte in enumerate(message[:10]):
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return value, message[position + 1 :]
    raise ValueError("failed to decode Protobuf message: invalid varint")


def _write_varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])
