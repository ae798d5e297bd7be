"""The digest of a layer uncompressed, computed while the layer passes by.

A layer that decompresses to more than memory holds costs no more memory than any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from queue import Queue
from threading import Thread
from typing import Final, Protocol, Self

from zlib_ng import zlib_ng

from coco_kp.errors import IntegrityError, RefusedError, shown
from coco_kp.image.zstd import Zstd
from coco_kp.model.digest import Digest
from coco_kp.model.media_type import plain_form
from coco_kp.unpacking import Unpacking

PIECE: Final = 256 * 1024
"""Bytes that are decompressed at a time."""

_AHEAD: Final = 4  # pieces that may wait for the thread of a check
_FEED: Final = 16 * 1024  # bytes; zlib copies what it does not use of them, again and again
_GZIP: Final = 16 + zlib_ng.MAX_WBITS
_NO_GZIP: Final[type[Exception]] = zlib_ng.error  # type: ignore[assignment]  # (their stub)


class Decompressor(Protocol):
    """Decompresses a stream that comes in pieces."""

    def pieces(self, data: memoryview) -> Iterator[bytes | memoryview] | Iterator[bytes]:
        """Give what ``data`` yields, in pieces of bounded size. Raises ``IntegrityError``."""

    def finish(self) -> None:
        """End the stream. Raises ``IntegrityError`` if it is not complete."""


def decompressor(media_type: str, unpacking: Unpacking | None = None) -> Decompressor:
    """Give one for layers of this type, which raises ``InputError`` beyond the bounds.

    Raises ``RefusedError`` for an unknown compression.
    """
    match _compression(media_type):
        case "":
            return _Plain()
        case "gzip":
            return _Bounded(_Gzip(), unpacking)
        case "zstd":
            return _Bounded(Zstd(), unpacking)
    raise RefusedError(f"layers of type {shown(media_type)} cannot be decompressed here")


def is_compressed(media_type: str) -> bool:
    """Tell whether a layer of this type, encrypted or not, has other bytes than its content."""
    return _compression(media_type) != ""


def _compression(media_type: str) -> str:
    return plain_form(media_type).partition("+")[2]


def check_diff_id(content: Digest, diff_id: Digest) -> None:
    """Raise ``IntegrityError`` unless a layer's content has the digest that the config names."""
    if content != diff_id:
        raise IntegrityError(
            f"the layer's content is not the one that the config names {diff_id}",
            "the image is damaged: a guest would refuse it",
        )


class DiffIdCheck:
    """Compares a layer's content with the diff_id that the image's config has for it."""

    def __init__(
        self, media_type: str, diff_id: Digest, unpacking: Unpacking | None = None
    ) -> None:
        self._decompressor = decompressor(media_type, unpacking)
        self._diff_id = diff_id
        self._hasher = hashlib.new(diff_id.algorithm)

    def update(self, data: memoryview) -> None:
        """Take the next piece of the layer."""
        for piece in self._decompressor.pieces(data):
            self._hasher.update(piece)

    def finish(self) -> None:
        """End the layer. Raises ``IntegrityError`` if its content is not the config's."""
        self._decompressor.finish()
        check_diff_id(Digest(self._diff_id.algorithm, self._hasher.hexdigest()), self._diff_id)


class DiffIdCheckAside:
    """The same on a thread of its own, while the caller goes on. A context manager."""

    def __init__(
        self, media_type: str, diff_id: Digest, unpacking: Unpacking | None = None
    ) -> None:
        self._check = DiffIdCheck(media_type, diff_id, unpacking)
        self._pieces: Queue[bytes | None] = Queue(_AHEAD)
        self._failure: Exception | None = None
        self._thread = Thread(target=self._run, name="diff_id")
        self._thread.start()

    def update(self, data: memoryview) -> None:
        """Take the next piece of the layer; ``data`` may be overwritten afterwards."""
        self._pieces.put(bytes(data))

    def finish(self) -> None:
        """End the layer. Raises ``IntegrityError`` if its content is not the config's."""
        self._join()
        if self._failure:
            raise self._failure
        self._check.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._join()

    def _join(self) -> None:
        if self._thread.is_alive():
            self._pieces.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            if self._failure is None:
                try:
                    self._check.update(memoryview(piece))
                except Exception as failure:  # noqa: BLE001 (raised to the caller by finish)
                    self._failure = failure


class _Bounded:
    """Another decompressor, within the bounds of what content may unpack to."""

    def __init__(self, inner: Decompressor, unpacking: Unpacking | None) -> None:
        self._inner = inner
        self._unpacking = unpacking or Unpacking()

    def pieces(self, data: memoryview) -> Iterator[bytes | memoryview]:
        self._unpacking.packed(len(data))
        for piece in self._inner.pieces(data):
            self._unpacking.unpacked(len(piece))
            yield piece

    def finish(self) -> None:
        self._inner.finish()


class _Plain:
    def pieces(self, data: memoryview) -> Iterator[memoryview]:
        yield data

    def finish(self) -> None:
        """Any end will do."""


class _Gzip:
    """One gzip member after another, as tools that make seekable layers write them."""

    def __init__(self) -> None:
        self._member = zlib_ng.decompressobj(_GZIP)

    def pieces(self, data: memoryview) -> Iterator[bytes]:
        for start in range(0, len(data), _FEED):
            yield from self._feed(data[start : start + _FEED])

    def finish(self) -> None:
        if not self._member.eof:
            raise IntegrityError("the layer's gzip stream ends early")

    def _feed(self, data: memoryview) -> Iterator[bytes]:
        rest: bytes | memoryview = data
        held_back = False  # output that did not fit into the last piece
        while rest or held_back:
            if self._member.eof:
                self._member = zlib_ng.decompressobj(_GZIP)
            try:
                piece = self._member.decompress(rest, PIECE)
            except _NO_GZIP:
                raise IntegrityError("the layer is not the gzip stream that it should be") from None
            rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            held_back = len(piece) == PIECE and not self._member.eof
            yield piece
