"""What every place for images offers: a source to read an image from, a sink to write one to.

Rules without exception:

* What a source gives out is checked: a manifest against the digest that asked for it, a blob
  against size and digest, with the verdict at its end (:class:`BlobReader`).
* A sink shows nothing of what it was given until :meth:`Sink.set_reference`: that moves the image's
  name (tag) as its last step. Without it, closing a sink leaves the destination as it was.
* Sources and sinks may be used by several threads at once; one reader or writer by one thread.
* Memory is constant, whatever the size of a blob.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Final, Self

from coco_kp.errors import IntegrityError, MissingManifestError
from coco_kp.model.digest import Digest, hasher_like
from coco_kp.model.manifest import Descriptor, Manifest, parse_manifest

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK: Final = 256 * 1024
"""Bytes that are moved at a time."""

Pieces = Callable[[int], Iterator[memoryview]]
"""What gives a blob's bytes from an offset on. It may be called again, for any offset up to which
it has given them before: then it gives the same bytes."""


class Source(ABC):
    """One image, or an index of images, to be read. A context manager."""

    reference: str
    """The image as a user may write it; for messages."""

    def manifest(self, descriptor: Descriptor | None = None) -> Manifest:
        """Return the manifest that the reference names, or the one in it that ``descriptor`` names.

        Raises ``InputError`` where there is none, ``MissingManifestError`` where the one named is
        not there, ``IntegrityError`` where its bytes are not what the descriptor says.
        """
        if descriptor is None:
            return self._top_manifest()
        raw = self._manifest_bytes(descriptor)
        if raw is None:
            raise MissingManifestError(f"{self.reference} lacks the manifest {descriptor.digest}")
        if len(raw) != descriptor.size or not descriptor.digest.matches(raw):
            raise IntegrityError(f"the manifest {descriptor.digest} of {self.reference} is damaged")
        return parse_manifest(raw, descriptor.media_type)

    def digest(self) -> Digest:
        """Return the digest of the manifest that the reference names, as the place itself says it.

        What was read of it may be another by now. Raises as :meth:`manifest`.
        """
        return self._top_manifest().digest

    def open_blob(self, blob: Descriptor, *, verify: bool = True, offset: int = 0) -> BlobReader:
        """Open a blob for reading once, from ``offset`` on (bytes).

        With ``verify=False`` only its size is checked: for a caller that computes the digest in the
        same pass. Raises ``InputError`` where the image lacks the blob.
        """
        reader = BlobReader(self._open_blob(blob), blob, verify=verify)
        try:
            reader.start(offset)
        except BaseException:
            reader.close()
            raise
        return reader

    def close(self) -> None:  # noqa: B027 - many sources hold nothing
        """Release what the source holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def _top_manifest(self) -> Manifest:
        """Return the manifest that the reference names, checked where a digest is known."""

    @abstractmethod
    def _manifest_bytes(self, descriptor: Descriptor) -> bytes | None:
        """Return a manifest by its digest, at most ``MAX_MANIFEST`` bytes, not yet checked.

        None where it is not there.
        """

    @abstractmethod
    def _open_blob(self, blob: Descriptor) -> RawBlob:
        """Open a blob's bytes; not yet checked."""


class RawBlob(ABC):
    """A blob's bytes as they come, for :class:`BlobReader` to check."""

    fd: int | None = None
    """The open file, where the blob is exactly one plain local file."""

    size = 0
    """How many bytes that file had when it was opened."""

    path: Path | None = None
    """Where it is read from, where that is a local file; for messages."""

    @abstractmethod
    def readinto(self, buffer: memoryview) -> int:
        """Fill the start of ``buffer``; 0 at the end of the blob."""

    @abstractmethod
    def start(self, offset: int) -> None:
        """Begin at ``offset``, which is within the blob; once, before any byte is read.

        Raises what the place says where it lacks the blob, if it has to be asked for it.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what is open; a second call does nothing."""


class BlobReader(io.RawIOBase):
    """A blob as a stream whose end is a verdict.

    Reading gives ``b""`` (``readinto``: 0) only after size and digest were found right; otherwise
    it raises ``IntegrityError``, and goes on raising it. More bytes than the descriptor allows are
    never given out. A caller must not use what it read for good before that end.

    ``fd`` is the open file at its start, where the blob is a plain local file and the digest is
    left to the caller (``verify=False``), else None: then whoever copies it natively need not read
    here. The reader still owns and closes it. ``path`` is for that caller's messages.
    """

    def __init__(self, raw: RawBlob, blob: Descriptor, *, verify: bool) -> None:
        self.fd = None if verify else raw.fd
        self.path = raw.path
        if self.fd is not None and raw.size != blob.size:
            raw.close()
            raise IntegrityError(f"the blob {blob.digest} does not have the size of its descriptor")
        self._raw = raw
        self._blob = blob
        self._left = blob.size
        self._hasher = hasher_like(blob.digest) if verify else None
        self._error: IntegrityError | None = None

    def start(self, offset: int) -> None:
        """Begin at ``offset``; where the digest is checked, all before it is read."""
        if self._hasher is None:
            self._raw.start(offset)
            self._left -= offset
            if offset:
                self.fd = None
            return
        self._raw.start(0)
        buffer = memoryview(bytearray(min(CHUNK, offset)))
        while offset:
            read = self.readinto(buffer[:offset])
            if not read:
                self._fail("ends early")
            offset -= read

    def readable(self) -> bool:
        """Return True: this stream is for reading."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read into ``buffer`` what comes at once; 0 at the verified end."""
        if self._error is not None:
            raise self._error
        view = memoryview(buffer).cast("B")
        # One byte more than is left, so that an excess is noticed.
        count = self._raw.readinto(view[: self._left + 1])
        if count > self._left:
            self._fail(f"is longer than the {self._blob.size} bytes of its descriptor")
        self._left -= count
        if self._hasher is not None:
            self._hasher.update(view[:count])
        if count == 0 and len(view) > 0:
            self._check_end()
        return count

    def close(self) -> None:
        """Close the blob; without a verdict if its end was not reached."""
        if not self.closed:
            self._raw.close()
        super().close()

    def _check_end(self) -> None:
        if self._left:
            self._fail(f"ends {self._left} bytes early")
        if self._hasher is not None and self._hasher.hexdigest() != self._blob.digest.hex:
            self._fail("does not have the content that its digest names")

    def _fail(self, what: str) -> None:
        self._error = IntegrityError(f"the blob {self._blob.digest} {what}")
        raise self._error


class Sink(ABC):
    """Where an image is written: blobs, then manifests, then the name. A context manager.

    Leaving it without :meth:`set_reference` drops what was written.
    """

    reference: str
    """The image as a user may write it; for messages."""

    finishing: ClassVar[str] = ""
    """What goes on with blobs whose bytes were all written, for people: ``uploading``."""

    @abstractmethod
    def has_blob(self, blob: Descriptor) -> bool:
        """Return whether the destination, or this sink, holds the blob already."""

    @abstractmethod
    def begin_blob(self, size: int | None = None) -> BlobWriter:
        """Start to write a blob whose digest its end will tell; ``size`` (bytes) if it is known."""

    @abstractmethod
    def put_manifest(self, manifest: Manifest) -> None:
        """Store a manifest under its digest; what it points at must have been stored before."""

    @abstractmethod
    def set_reference(self, manifest: Manifest, *, replacing: Digest | None = None) -> None:
        """Make everything durable and let the image's name point to ``manifest``, at once.

        ``manifest`` was stored with :meth:`put_manifest`. The last call on a sink but ``close``.
        Raises ``ChangedError`` if the name does not point to ``replacing``, where that is given: an
        image that is changed in place must not undo what somebody else changed meanwhile. After
        ``InPlaceError``, ``IntegrityError`` or another ``RemoteError`` it may point to it already.
        """

    @abstractmethod
    def read_back(self) -> Source:
        """Return what was written so far as a source; its manifests are asked for by descriptor.

        Valid until the sink is closed.
        """

    @abstractmethod
    def close(self) -> None:
        """Release everything; without ``set_reference``, leave the destination as it was."""

    def mount_blob(self, blob: Descriptor, source: Source) -> bool:  # noqa: ARG002
        """Take a blob over from ``source`` without moving its bytes; False where that cannot be."""
        return False

    def left_behind(self) -> tuple[Digest, ...]:
        """Name the blobs that stay at the destination although no image there points to them."""
        return ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class BlobWriter(ABC):
    """One blob on its way into a sink. A context manager: without ``commit`` it is dropped.

    ``fd``, where it is not None, is an open file that takes the blob instead of :meth:`take`:
    append to it in order, with ``write(2)``, from its start, and nothing else. ``folder`` is where
    that file is; for messages.
    """

    fd: int | None = None
    folder: Path | None = None

    @abstractmethod
    def take(self, pieces: Pieces) -> None:
        """Take the blob, all that ``pieces`` gives, to its end; once.

        It is asked again for what gets lost on the way, until ``commit`` has returned.
        """

    @abstractmethod
    def commit(self, digest: Digest, size: int) -> None:
        """Keep the blob, whose digest and size (bytes) are these.

        The digest is the caller's word; the size is checked. Raises ``IntegrityError`` or
        ``RemoteError``; then the blob is dropped.
        """

    @abstractmethod
    def abort(self) -> None:
        """Drop the blob; after ``commit`` or a second time it does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()


def read_blob(source: Source, blob: Descriptor, limit: int) -> bytes:
    """Read a small blob, such as a config, whole and checked; ``limit`` bounds its bytes."""
    if blob.size > limit:
        raise IntegrityError(f"the blob {blob.digest} has {blob.size} bytes, over {limit}")
    with source.open_blob(blob) as reader:
        return reader.readall()
