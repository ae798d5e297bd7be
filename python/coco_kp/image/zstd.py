"""Layers that are compressed with zstd (RFC 8878): read, to check them or to compress them anew."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final

from coco_kp.errors import IntegrityError, RefusedError

PIECE: Final = 256 * 1024
"""Bytes that are decompressed at a time."""

MAX_WINDOW: Final = 25
"""Binary logarithm of the bytes that a frame may look back: 32 MiB, as ``zstd -20`` makes them."""


class Zstd:
    """Decompresses one frame after another, skippable ones included."""

    def __init__(self) -> None:
        self._zstd = _library()
        self._options = {self._zstd.DecompressionParameter.window_log_max: MAX_WINDOW}
        self._frame = self._zstd.ZstdDecompressor(options=self._options)

    def pieces(self, data: memoryview) -> Iterator[bytes]:
        """Give what ``data`` yields, in pieces of bounded size."""
        rest: bytes | memoryview = data
        while rest or not (self._frame.needs_input or self._frame.eof):
            if self._frame.eof:
                self._frame = self._zstd.ZstdDecompressor(options=self._options)
            try:
                piece = self._frame.decompress(rest, PIECE)
            except self._zstd.ZstdError:
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


def _library() -> Any:  # noqa: ANN401 (a module that may be missing)
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    try:
        return import_module(name)
    except ImportError:
        raise RefusedError(
            f"layers that are compressed with zstd cannot be read without {name}",
            "pip install backports.zstd; or keep them as they are with --zstd keep",
        ) from None
