"""What a layer's first bytes are, whatever its media type says.

The magic numbers are those by which readers of images tell compressions apart, whatever the label.
"""

from __future__ import annotations

import io
import zlib
from typing import Final, Literal

HEAD: Final = 64 * 1024
"""Bytes at a layer's beginning that tell it."""

Kind = Literal["gzip", "zstd", "bzip2", "xz", "tar"]

_GZIP: Final = b"\x1f\x8b\x08"
_MAGIC: Final[dict[bytes, Kind]] = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
}
# Behind a digit, the size of blocks: a block, or the end of a stream, which others may follow.
_BZIP2_MARKS: Final = (bytes.fromhex("314159265359"), bytes.fromhex("177245385090"))
_SKIPPABLE: Final = [bytes([first]) for first in range(0x50, 0x60)]  # RFC 8878, 3.1.2
_BLOCK: Final = 512  # of a tar archive
_CHECKSUM: Final = slice(148, 156)


def content_kind(head: bytes) -> Kind | None:
    """Return what content that begins so is; None for anything else, such as ciphertext.

    Ciphertext looks like one of them once in 2^32 layers or less often.
    """
    if head.startswith(_GZIP):
        return "gzip" if _inflates(head) else None
    if head[:3] == b"BZh" and head[4:10] in _BZIP2_MARKS:
        return "bzip2"
    if head[:1] in _SKIPPABLE and head[1:4] == b"\x2a\x4d\x18":
        return "zstd"
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    return "tar" if _is_tar(head[:_BLOCK]) else None


def _inflates(head: bytes) -> bool:
    """Return whether gzip goes on behind its three bytes, which chance makes once in 2^24.

    As lenient as Go's reader, which looks at no reserved flag; a wrong checksum of the header does
    not hide what follows, either.
    """
    body = _gzip_body(head)
    if body is None:
        return len(head) >= HEAD  # a header of that length: what follows is not known
    try:
        zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(_GZIP + bytes(7) + body, HEAD)
    except zlib.error:
        return False
    return True


def _gzip_body(head: bytes) -> bytes | None:
    """Return what stands behind a gzip header (RFC 1952, 2.3), None where it does not end."""
    flags, stream = head[3:4], io.BytesIO(head)
    stream.seek(10)
    checksum, extra, name, comment = (bool(flags and flags[0] & bit) for bit in (2, 4, 8, 16))
    if extra:
        stream.seek(int.from_bytes(stream.read(2), "little"), io.SEEK_CUR)
    for text in (name, comment):
        if text and b"\0" not in (rest := stream.getvalue()[stream.tell() :]):
            return None
        if text:
            stream.seek(rest.index(0) + 1, io.SEEK_CUR)
    if checksum:
        stream.seek(2, io.SEEK_CUR)
    return stream.read() or None


def _is_tar(block: bytes) -> bool:
    """Return whether this is an archive's first header, or the block of zeros of an empty one."""
    if len(block) < _BLOCK:
        return False
    if not any(block):
        return True
    try:
        claimed = int(block[_CHECKSUM].strip(b" \0").partition(b"\0")[0], 8)
    except ValueError:
        return False
    unsigned = sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")
    # Old programs added signed bytes; readers take either sum.
    negative = sum(byte > 0x7F for byte in block) - sum(byte > 0x7F for byte in block[_CHECKSUM])
    return claimed in {unsigned, unsigned - 256 * negative}
