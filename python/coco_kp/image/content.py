"""What a layer's first bytes are, whatever its media type says.

The magic numbers are those by which readers of images tell compressions apart, whatever the label.
"""

from __future__ import annotations

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
_BZIP2_BLOCK: Final = bytes.fromhex("314159265359")  # behind a digit, the size of blocks
_SKIPPABLE: Final = [bytes([first]) for first in range(0x50, 0x60)]  # RFC 8878, 3.1.2
_BLOCK: Final = 512  # of a tar archive
_CHECKSUM: Final = slice(148, 156)


def content_kind(head: bytes) -> Kind | None:
    """Return what content that begins so is; None for anything else, such as ciphertext.

    Ciphertext looks like one of them once in 2^32 layers or less often.
    """
    if head.startswith(_GZIP):
        return "gzip" if _inflates(head) else None
    if head[:3] == b"BZh" and head[4:10] == _BZIP2_BLOCK:
        return "bzip2"
    if head[:1] in _SKIPPABLE and head[1:4] == b"\x2a\x4d\x18":
        return "zstd"
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    return "tar" if _is_tar(head[:_BLOCK]) else None


def _inflates(head: bytes) -> bool:
    """Return whether gzip goes on behind its three bytes, which chance makes once in 2^24."""
    try:
        zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(head, HEAD)
    except zlib.error:
        return False
    return True


def _is_tar(block: bytes) -> bool:
    """Return whether this is an archive's first header, or the block of zeros of an empty one."""
    if len(block) < _BLOCK:
        return False
    if not any(block):
        return True
    try:
        claimed = int(block[_CHECKSUM].strip(b" \0"), 8)
    except ValueError:
        return False
    return claimed == sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")
