"""How layers are compressed: what their label says, what their first bytes say, and how to read it.

A label is a media type, and may be wrong: copying a Docker archive, for example, makes plain tar
archives that are called gzip (containers/image#1270).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal, Protocol

from zlib_ng import zlib_ng

from coco_kp.errors import IntegrityError, RefusedError, shown
from coco_kp.image.content import content_kind
from coco_kp.image.zstd import Zstd
from coco_kp.model.media_type import GZIP, NONE, ZSTD, compression_of
from coco_kp.unpacking import Unpacking

PIECE: Final = 256 * 1024
"""Bytes that are decompressed at a time."""

_FEED: Final = 16 * 1024  # bytes; zlib copies what it does not use of them, again and again
_GZIP: Final = 16 + zlib_ng.MAX_WBITS
_FLAGS: Final = 3  # where a gzip header has them (RFC 1952, 2.3)
_NO_GZIP: Final[type[Exception]] = zlib_ng.error  # type: ignore[assignment]  # (their stub)


ZstdRule = Literal["gzip", "keep", "refuse"]
"""What becomes of layers that are compressed in a way that guests do not read once encrypted."""


def decompressor(media_type: str, unpacking: Unpacking | None = None) -> Decompressor:
    """Return one for layers of this type, which raises ``InputError`` beyond the bounds.

    Raises ``RefusedError`` for an unknown compression.
    """
    found = _DECOMPRESSORS.get(compression_of(media_type))
    if found:
        inner = found()
        return inner if found is _Plain else _Bounded(inner, unpacking)
    raise RefusedError(f"layers of type {shown(media_type)} cannot be decompressed here")


def is_compressed(media_type: str) -> bool:
    """Return whether a layer of this type, encrypted or not, has other bytes than its content."""
    return compression_of(media_type) != NONE


def recognised(head: bytes) -> str | None:
    """Return how the layer that begins with ``head`` is compressed, ``NONE`` for a plain tar.

    What is no archive that anybody unpacks, such as a layer that is encrypted, is None.
    """
    kind = content_kind(head)
    return NONE if kind == "tar" else kind


def compression_of_bytes(head: bytes, media_type: str) -> str:
    """Return how a layer is compressed that begins with ``head``, whatever its type says.

    Raises ``IntegrityError`` where it is none of the forms that are known although its type names
    one, ``RefusedError`` where it is one that nobody could open once it is encrypted.
    """
    found, label = recognised(head), compression_of(media_type)
    if found is None:
        if label == NONE:
            return NONE  # there is nothing to recognise an odd or empty archive by
        raise IntegrityError(f"the layer is called {shown(label)}, and is neither that nor a tar")
    if found not in {NONE, GZIP, ZSTD}:
        raise RefusedError(
            f"the layer is compressed with {found}, which nobody can open once it is encrypted",
            "compress it with gzip, or do not compress it at all",
        )
    return found


class Decompressor(Protocol):
    """Decompresses a stream that comes in pieces."""

    @property
    def gzip_flags(self) -> int:
        """All flags in the headers of gzip members (RFC 1952, 2.3.1) so far, joined by "or"."""

    def pieces(self, data: memoryview) -> Iterator[bytes | memoryview] | Iterator[bytes]:
        """Yield what ``data`` yields, in pieces of bounded size. Raises ``IntegrityError``."""

    def finish(self) -> None:
        """End the stream. Raises ``IntegrityError`` if it is not complete."""


class _Bounded:
    """Another decompressor, within the bounds of what content may unpack to."""

    def __init__(self, inner: Decompressor, unpacking: Unpacking | None) -> None:
        self._inner = inner
        self._unpacking = unpacking or Unpacking()

    @property
    def gzip_flags(self) -> int:
        return self._inner.gzip_flags

    def pieces(self, data: memoryview) -> Iterator[bytes | memoryview]:
        self._unpacking.packed(len(data))
        for piece in self._inner.pieces(data):
            self._unpacking.unpacked(len(piece))
            yield piece

    def finish(self) -> None:
        self._inner.finish()


class _Plain:
    gzip_flags = 0

    def pieces(self, data: memoryview) -> Iterator[memoryview]:
        yield data

    def finish(self) -> None:
        """Any end will do."""


class _Gzip:
    """One gzip member after another, as tools that make seekable layers write them."""

    def __init__(self) -> None:
        self._member = zlib_ng.decompressobj(_GZIP)
        self._head = b""
        self.gzip_flags = 0

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
                self._head = b""
            if len(self._head) <= _FLAGS:
                self._look(rest)
            try:
                piece = self._member.decompress(rest, PIECE)
            except _NO_GZIP:
                raise IntegrityError("the layer is not the gzip stream that it should be") from None
            rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            held_back = len(piece) == PIECE and not self._member.eof
            yield piece

    def _look(self, data: bytes | memoryview) -> None:
        """Look at a member's first bytes, which may come in pieces; zlib keeps the flags."""
        self._head += bytes(data[: _FLAGS + 1 - len(self._head)])
        if len(self._head) > _FLAGS:
            self.gzip_flags |= self._head[_FLAGS]


_DECOMPRESSORS: Final[dict[str, Callable[[], Decompressor]]] = {
    NONE: _Plain,
    GZIP: _Gzip,
    ZSTD: Zstd,
}
