"""How much compressed bytes may unpack to: a small image must not cost hours, or fill a disk.

An archive, and the layers that one command reads in sum, may have `RATIO` times their compressed
bytes and `FREE` bytes on top, and `TOTAL` bytes at the most. Deflate can make 1032 bytes of one,
zstd 32768; programs and texts rarely exceed 20, and `FREE` is for long runs of zeros.
"""

from __future__ import annotations

import threading
from typing import Final

from coco_kp.errors import InputError

RATIO: Final = 100
"""Bytes that each compressed byte may become."""

FREE: Final = 1 << 30
"""Bytes in sum that may come on top of that, unless the user allows more."""

TOTAL: Final = 1 << 40
"""Bytes in sum at the most, unless the user allows more."""


class Unpacking:
    """What was unpacked so far of an archive or a command's layers; several threads may tell it.

    ``allowed`` is `FREE`, or what the user put in its place, in bytes.
    """

    def __init__(self, allowed: int = FREE) -> None:
        self._left = allowed
        self._allowed = allowed
        self._unpacked = 0
        self._lock = threading.Lock()

    def packed(self, size: int) -> None:
        """Learn that ``size`` compressed bytes are unpacked next."""
        with self._lock:
            self._left += RATIO * size

    def unpacked(self, size: int) -> None:
        """Learn that ``size`` bytes came out. Raises ``InputError`` if that is too much."""
        with self._lock:
            self._left -= size
            self._unpacked += size
            if self._left < 0 or self._unpacked > max(TOTAL, self._allowed):
                raise InputError(
                    f"compressed content became {self._unpacked} bytes, too many for its size",
                    "if you trust the image, allow more bytes with --max-unpacked",
                )
