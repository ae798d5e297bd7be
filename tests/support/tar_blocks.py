"""Tar archives block by block, also such as no tool writes (ustar; POSIX.1-2017, pax)."""

from __future__ import annotations

from typing import Final

END: Final = bytes(1024)
"""The two blocks at an archive's end."""


def entry(name: bytes, content: bytes = b"", kind: bytes = b"0", *, target: bytes = b"") -> bytes:
    """Return an entry of an archive: header, content and padding."""
    block = bytearray(512)
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (0o644, 0, 0, len(content), 0)
    for at, field in ((0, name), (100, numbers), (156, kind), (157, target), (257, b"ustar\x0000")):
        block[at : at + len(field)] = field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + content + bytes(-len(content) % 512)
