"""Archives that were compressed as a whole, unpacked: gzip, zstd, xz, bzip2, as skopeo reads them.

Known by their first bytes, whatever their names say. What needs more than `_MEMORY` to unpack, as
only extreme settings make it, is refused.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, Literal, Protocol

from coco_kp.transport.base import CHUNK

Compression = Literal["gzip", "zstd", "xz", "bzip2"]

HEAD: Final = 6
"""Bytes at the beginning of a file that tell its compression."""

_MAGIC: Final[dict[bytes, Compression]] = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
}
_MEMORY: Final = 128 * 1024 * 1024
"""Bytes; ``xz -9`` needs half of it."""

_ZSTD_WINDOW: Final = 27
"""Binary logarithm of the bytes that zstd may look back: the same 128 MiB, ``zstd``'s own limit."""


class DamagedError(Exception):
    """The bytes are not what their beginning says, or end early."""


def compression_of(head: bytes) -> Compression | None:
    """Return how a file is compressed that begins so; None where it is not."""
    return next((found for magic, found in _MAGIC.items() if head.startswith(magic)), None)


def unpacked(file: BinaryIO, compression: Compression) -> Iterator[bytes]:
    """Yield what ``file`` holds, in pieces of bounded size.

    Raises ``DamagedError``, or ``OSError`` where the file cannot be read.
    """
    if compression == "gzip":
        yield from _gunzipped(file)
        return
    new, error = _decompressor(compression)
    stream, data = new(), file.read(CHUNK)
    while data or not (stream.eof or stream.needs_input):
        if stream.eof:  # another stream may follow, and xz may pad
            stream = new()
        try:
            piece = stream.decompress(data, CHUNK)
        except (error, OSError, EOFError):  # bz2 raises OSError for bad data
            raise DamagedError from None
        yield piece
        data = stream.unused_data.lstrip(b"\0") if stream.eof else b""
        if not data and (stream.eof or stream.needs_input):
            data = file.read(CHUNK)
            data = data.lstrip(b"\0") if stream.eof else data
    if not stream.eof:
        raise DamagedError


class _Decompressor(Protocol):
    """What the standard library's decompressors but zlib's have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _decompressor(
    compression: Compression,
) -> tuple[Callable[[], _Decompressor], type[Exception]]:
    # Imported when they are used: most images come without.
    match compression:
        case "xz":
            import lzma  # noqa: PLC0415

            return lambda: lzma.LZMADecompressor(memlimit=_MEMORY), lzma.LZMAError
        case "bzip2":
            import bz2  # noqa: PLC0415

            return bz2.BZ2Decompressor, OSError
        case _:
            if sys.version_info >= (3, 14):
                from compression import zstd  # noqa: PLC0415
            else:
                from backports import zstd  # noqa: PLC0415

            options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW}
            return lambda: zstd.ZstdDecompressor(options=options), zstd.ZstdError


def _gunzipped(file: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as stream:
        try:
            while piece := stream.read(CHUNK):
                yield piece
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise DamagedError from None
