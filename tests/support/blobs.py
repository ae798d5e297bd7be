"""Blobs on their way: copied, stored, and given to a writer in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from coco_kp.model.manifest import Descriptor
from coco_kp.transport import Pieces, Sink, Source


def copy_blob(source: Source, sink: Sink, blob: Descriptor) -> None:
    """Bring a blob over: nothing if it is there, mounted if it can be, else copied."""
    if sink.has_blob(blob) or sink.mount_blob(blob, source):
        return

    def pieces(offset: int) -> Iterator[memoryview]:
        with source.open_blob(blob, offset=offset) as reader:
            while data := reader.read(7001):
                yield memoryview(data)

    with sink.begin_blob(blob.size) as writer:
        writer.take(pieces)
        writer.commit(blob.digest, blob.size)


def put_blob(sink: Sink, blob: Descriptor, data: bytes) -> None:
    """Store a blob that is at hand."""
    if not sink.has_blob(blob):
        with sink.begin_blob(blob.size) as writer:
            writer.take(in_pieces(data))
            writer.commit(blob.digest, blob.size)


def in_pieces(
    data: bytes, size: int = 100_000, between: Callable[[int], None] = lambda _: None
) -> Pieces:
    """Return what gives ``data`` in pieces; ``between`` is called with each one's offset first.

    As with layers, a piece lies where the next one will.
    """

    def pieces(offset: int) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(size))
        for start in range(offset, len(data), size):
            between(start)
            piece = data[start : start + size]
            buffer[: len(piece)] = piece
            yield buffer[: len(piece)]

    return pieces
