"""Layers that are compressed with zstd (RFC 8878): read, to check them or to compress them anew."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from coco_kp.errors import IntegrityError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE: Final = 256 * 1024
"""Bytes that are decompressed at a time."""

MAX_WINDOW: Final = 25
"""Binary logarithm of the bytes that a frame may look back: 32 MiB, as ``zstd -20`` makes them."""


class Zstd:
    """Decompresses one frame after another, skippable ones included."""

    gzip_flags = 0

    def __init__(self) -> None:
        self._options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: MAX_WINDOW}
        self._frame = zstd.ZstdDecompressor(options=self._options)

    def pieces(self, data: memoryview) -> Iterator[bytes]:
        """Give what ``data`` yields, in pieces of bounded size."""
        rest: bytes | memoryview = data
        while rest or not (self._frame.needs_input or self._frame.eof):
            if self._frame.eof:
                self._frame = zstd.ZstdDecompressor(options=self._options)
            try:
                piece = self._frame.decompress(rest, PIECE)
            except zstd.ZstdError:
                raise IntegrityError(
                    "the layer is not a zstd stream that can be read",
                    f"frames may look back 2^{MAX_WINDOW} bytes at the most",
                ) from None
            rest = self._frame.unused_data if self._frame.eof else b""
            yield piece

    def finish(self) -> None:
        """Raise ``IntegrityError`` if the stream ended within a frame."""
        if not self._frame.eof:
            raise IntegrityError("the layer's zstd stream ends early")
