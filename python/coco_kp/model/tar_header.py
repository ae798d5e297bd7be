"""Headers of tar archives, read as a guest's reader (astral-tokio-tar 0.6 `header.rs`) reads them.

Formats: "ustar Interchange Format" and "pax Extended Header" of pax in POSIX.1-2017, "Basic Tar
Format" and "GNU Extensions to the Archive Format" of GNU tar's manual. Each error is half a
sentence about the entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from coco_kp.errors import InputError

BLOCK: Final = 512
"""Bytes that each header has, and that an archive is a multiple of."""

_USTAR: Final = b"ustar\x0000"
_GNU: Final = b"ustar  \x00"
_NUL_VERSION: Final = b"ustar\x00\x00\x00"
_CHECKSUM: Final = slice(148, 156)
_OCTAL: Final = re.compile(rb"\+?[0-7]+")
_DECIMAL: Final = re.compile(rb"[0-9]{1,20}")
_PAX_RECORD: Final = re.compile(rb"\+?([0-9]{1,20}) ")
_NUMBERS: Final = (b"size", b"uid", b"gid")
_U64: Final = 1 << 64


class TarHeader:
    """A header, whose checksum is right. Its numbers are read when they are asked for.

    ``kind`` is the type flag; ``ustar`` and ``gnu`` say which format it has, neither the oldest.
    ``name`` and ``target`` are what it has of them itself, not in an extension before it.
    """

    def __init__(self, block: bytes) -> None:
        self._block = block
        try:
            checksum = _octal(block[_CHECKSUM])
        except InputError:
            raise InputError("is no header of a tar archive") from None
        if checksum != sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" "):
            raise InputError("has a wrong checksum")
        magic = block[257:265]
        if magic == _NUL_VERSION:
            raise InputError("has a format that two readers understand differently")
        self.kind = block[156:157]
        self.ustar = magic == _USTAR
        self.gnu = magic == _GNU
        self.target = _text(block[157:257])

    @property
    def name(self) -> bytes:
        """The name, of two parts where it was too long for one."""
        name = _text(self._block[:100])
        prefix = _text(self._block[345:500]) if self.ustar else b""
        return prefix + b"/" + name if prefix else name

    @property
    def uid(self) -> int:
        """The owner's user ID."""
        return _number(self._block[108:116])

    @property
    def gid(self) -> int:
        """The owner's group ID."""
        return _number(self._block[116:124])

    @property
    def size(self) -> int:
        """Bytes of content."""
        return _number(self._block[124:136])

    @property
    def mtime(self) -> int:
        """Seconds since 1970; what was negative is 2^63 or more."""
        return _number(self._block[136:148])

    def sparse_map(self) -> SparseMap:
        """Return where the content of a sparse file belongs, as far as this header says."""
        if not self.gnu:
            raise InputError("is a sparse file in another format than GNU's")
        map_ = SparseMap(self.size, _number(self._block[483:495]))
        map_.add(self._block, range(386, 482, 24), 482)
        return map_


class SparseMap:
    """Where the content of a sparse file belongs; ``goes_on`` while another block of it follows."""

    def __init__(self, size: int, real_size: int) -> None:
        self._size = size
        self._real_size = real_size
        self._left = size
        self._end = 0
        self.goes_on = False

    def extend(self, block: bytes) -> None:
        """Take a further block of the map."""
        self.add(block, range(0, 504, 24), 504)

    def add(self, block: bytes, places: Iterable[int], goes_on: int) -> None:
        """Take the places in a block: offset and length, of 12 bytes each."""
        for place in places:
            if block[place] == 0 == block[place + 12]:
                continue
            offset = _number(block[place : place + 12])
            length = _number(block[place + 12 : place + 24])
            unaligned = length and (self._size - self._left) % BLOCK
            if unaligned or offset < self._end or length > self._left:
                raise InputError("is a sparse file with a wrong map")
            self._end = offset + length
            self._left -= length
        self.goes_on = block[goes_on] == 1

    def finish(self) -> None:
        """Raise ``InputError`` unless the map, which ends here, covers the file."""
        if self._left or self._end != self._real_size or self._end >= _U64:
            raise InputError("is a sparse file with a wrong map")


def parse_pax_records(content: bytes) -> dict[bytes, bytes]:
    """Return what a pax header says: the last value for each key, no value empty, numbers decimal.

    Raises ``InputError``.
    """
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(content):
        found = _PAX_RECORD.match(content, at)
        end = at + int(found[1]) if found else 0
        key, equals, value = content[found.end() : end - 1].partition(b"=") if found else (b"",) * 3
        if not equals or end > len(content) or content[end - 1 : end] != b"\n":
            raise InputError("has a malformed pax header")
        if not value:
            raise InputError("has an empty value in its pax header")
        if key in _NUMBERS and not (_DECIMAL.fullmatch(value) and int(value) < _U64):
            raise InputError("has a number in its pax header that is none")
        records[key] = value
        at = end
    return records


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Read a number that is octal, or binary where the first bit is set."""
    if not field[0] & 0x80:
        return _octal(field)
    if len(field) > 8:  # then its first bytes do not count
        return int.from_bytes(field[-8:], "big")
    return int.from_bytes(bytes([field[0] ^ 0x80]) + field[1:], "big")


def _octal(field: bytes) -> int:
    digits = _text(field).strip(b" \t\n\v\f\r")
    if not _OCTAL.fullmatch(digits):
        raise InputError("has a number in its header that is none")
    return int(digits, 8)
