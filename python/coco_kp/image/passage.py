"""A layer on its way through the cipher, to where parts of it may have to be sent again.

An upload that breaks goes on from what has arrived. What is missing is not kept meanwhile, but made
again from the source: under the same key and nonce, so only of the very bytes that were there
before, which the cipher's marks show. A source that gives others the second time ends it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Final, Protocol

from coco_kp.crypto import CHUNK, LayerOpener, LayerSealer, OpenedLayer, SealedLayer
from coco_kp.errors import InputError, IntegrityError
from coco_kp.files import reason
from coco_kp.image.ahead import BUFFERS, Making, ahead
from coco_kp.image.work import Work
from coco_kp.model.manifest import Descriptor
from coco_kp.redact import shown
from coco_kp.transport import CHUNK as BUFFER
from coco_kp.transport import BlobWriter, Pieces, Source

_OF_WRITING: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


class Opened(Protocol):
    """A layer that was opened for reading: a :class:`BlobReader`, or like one."""

    fd: int | None
    path: Path | None

    def readinto(self, buffer: memoryview, /) -> int:
        """Read into ``buffer``; 0 at the end."""

    def close(self) -> None:
        """Release what is open; a second call does nothing."""


class LayerInput:
    """A layer's bytes, which can be read more than once; progress is told of each byte once.

    ``opened`` is a reader at its start, for the first time; it is closed here. With
    ``verify=False`` only the size is checked, as :meth:`Source.open_blob` says. ``threads``, 1 or
    2, may work on the layer.
    """

    def __init__(
        self,
        source: Source,
        layer: Descriptor,
        work: Work,
        *,
        verify: bool = True,
        opened: Opened | None = None,
        threads: int = 1,
    ) -> None:
        self._source = source
        self._verify = verify
        self._told = 0
        self.layer = layer
        self.work = work
        self.opened = opened
        self.threads = threads

    def pieces(self, offset: int = 0) -> Iterator[memoryview]:
        """Yield the bytes from ``offset`` on; each piece may be overwritten.

        It is valid until the next, and with two threads until as many more as `ahead` needs.

        The end is a verdict: raises ``IntegrityError``.
        """
        name = str(self.layer.digest)
        buffers = cycle(
            memoryview(bytearray(BUFFER)) for _ in range(BUFFERS if self.threads > 1 else 1)
        )
        opened, self.opened = self.opened, None
        if opened is None or offset:
            opened = self._source.open_blob(self.layer, verify=self._verify, offset=offset)
        with closing(opened):
            if not self._told:
                self.work.begin(name, self.layer.size)
            while count := opened.readinto(buffer := next(buffers)):
                self.work.check()
                yield buffer[:count]
                offset += count
                if offset > self._told:
                    self.work.advance(name, offset - self._told)
                    self._told = offset
        self.work.end(name)


class Passage:
    """What a cipher makes of a layer, from any offset on as often as it is asked for.

    ``read`` gives the bytes that go in; their pieces are overwritten with what comes out. ``also``
    get each piece of that, once and in order. Without a cipher, what comes out is what goes in.
    """

    def __init__(
        self,
        cipher: LayerSealer | LayerOpener | None,
        read: Pieces,
        also: Sequence[Callable[[memoryview], None]] = (),
    ) -> None:
        self._cipher = cipher
        self._read = read
        self._also = also
        self._done = 0
        self._ended = False
        self._making: Making | None = None
        self.again: LayerSealer | LayerOpener | SealedLayer | OpenedLayer | None = cipher
        """What makes a chunk once more: when the cipher has ended, what that came to."""

    def carry(self, given: LayerInput, writer: BlobWriter) -> None:
        """Bring the whole layer to ``writer``.

        From file to file, and where nobody else wants it, outside the interpreter. Else a second
        thread, if there is to be one and it has nothing else to do, makes what this one writes.
        """
        cipher, opened, target = self._cipher, given.opened, writer.fd
        if cipher is None or opened is None or opened.fd is None or target is None or self._also:
            two = given.threads > 1 and not self._also
            try:
                writer.take(self._ahead if two else self.pieces)
            finally:
                self._stop()
            return
        layer, threads = given.layer, given.threads
        with (
            given.work.pumping(str(layer.digest), layer.size) as progress,
            _naming(layer, opened, writer),
        ):
            count = cipher.pump(
                opened.fd, target, limit=layer.size, threads=threads, progress=progress
            )
        if count != layer.size:
            raise IntegrityError(f"the blob {layer.digest} ends {layer.size - count} bytes early")

    def pieces(self, offset: int) -> Making:
        """Yield what comes out from ``offset`` on; each piece is valid until the next.

        Raises ``IntegrityError`` where the source gives other bytes than before: then none of them
        was given out.
        """
        start = min(offset, self._done) // CHUNK * CHUNK
        source = _Joined(self._read(start))
        while start < self._done:
            chunk = source.take(min(CHUNK, self._done - start))
            if self.again:
                self.again.repeat(start // CHUNK, chunk)
            yield from _parts(chunk[max(0, offset - start) :])
            start += len(chunk)
        for piece in source.rest():
            if self._ended:
                raise IntegrityError("the layer's source gave more bytes when it was read again")
            if self._cipher:
                self._cipher.update(piece)
            for take in self._also:
                take(piece)
            self._done += len(piece)
            yield piece
        self._ended = True

    def _ahead(self, offset: int) -> Making:
        """Yield the same, made by a second thread; when all was made once, by this one."""
        self._stop()  # the cipher is one thread's at a time
        self._making = self.pieces(offset) if self._ended else ahead(self.pieces(offset))
        return self._making

    def _stop(self) -> None:
        if self._making:
            self._making.close()


@contextmanager
def _naming(layer: Descriptor, opened: Opened, writer: BlobWriter) -> Iterator[None]:
    """Turn an ``OSError`` into one that names the file that cannot be written, or read."""
    try:
        yield
    except OSError as failure:
        source, target = shown(str(opened.path)), shown(str(writer.folder))
        if failure.errno in _OF_WRITING:
            raise InputError(f"cannot write to {target}: {reason(failure)}") from None
        raise InputError(
            f"cannot move {layer.digest} from {source} to {target}: {reason(failure)}"
        ) from None


def _parts(chunk: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(chunk), BUFFER):
        yield chunk[start : start + BUFFER]


class _Joined:
    """Pieces of any length, of which exact lengths are taken first."""

    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def take(self, size: int) -> memoryview:
        """Return the next ``size`` bytes, to be overwritten, or less at the end."""
        chunk = bytearray()
        while len(chunk) < size:
            self._left = self._left or next(self._pieces, memoryview(b""))
            if not self._left:
                break
            missing = size - len(chunk)
            chunk += self._left[:missing]
            self._left = self._left[missing:]
        return memoryview(chunk)

    def rest(self) -> Iterator[memoryview]:
        """Yield what was not taken, as it comes."""
        if self._left:
            yield self._left
        yield from self._pieces
