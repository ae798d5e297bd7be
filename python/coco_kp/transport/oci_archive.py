"""``oci-archive:path[:name]``: an OCI image layout in one tar file.

A new archive grows beside its final place, blob by blob, and replaces the old one as a whole.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from coco_kp.errors import ChangedError, InputError, RefusedError
from coco_kp.files import close, is_there
from coco_kp.locks import locked
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import MAX_MANIFEST, Descriptor, ImageIndex, Manifest
from coco_kp.model.reference import FileReference
from coco_kp.redact import shown
from coco_kp.transport.access import Access
from coco_kp.transport.base import BlobWriter, RawBlob, Sink, Source
from coco_kp.transport.files import FilePart, naming, write_all
from coco_kp.transport.layout_index import (
    EMPTY_INDEX,
    INDEX_FILE,
    LAYOUT,
    LAYOUT_FILE,
    blob_name,
    check_layout,
    check_writable,
    digest_of_image,
    find_image,
    image_names,
    parse_layout_index,
    with_image,
)
from coco_kp.transport.staging import StagedBlob, Staging, publish_image
from coco_kp.transport.tar import END, TarFile, member_header, padding
from coco_kp.unpacking import Unpacking


class OciArchiveSource(Source):
    """An image in an archive."""

    def __init__(self, reference: FileReference, access: Access | None = None) -> None:
        self.reference = str(reference)
        self._image = reference
        self._tar = TarFile(Path(reference.path), Unpacking((access or Access()).max_unpacked))
        try:
            check_layout(self._tar.read(LAYOUT_FILE, MAX_MANIFEST), self.reference)
            self.index = parse_layout_index(self._tar.read(INDEX_FILE, MAX_MANIFEST))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the archive."""
        self._tar.close()

    def _top_manifest(self) -> Manifest:
        found = find_image(self.index, self._image)
        return found if isinstance(found, ImageIndex) else self.manifest(found)

    def _manifest_bytes(self, descriptor: Descriptor) -> bytes | None:
        name = blob_name(descriptor.digest)
        return self._tar.read(name, MAX_MANIFEST) if self._tar.resolve(name) else None

    def _open_blob(self, blob: Descriptor) -> RawBlob:
        member = self._tar.resolve(blob_name(blob.digest))
        if member is None:
            raise InputError(f"{self.reference} lacks the blob {blob.digest}")
        return self._tar.part(member)


class OciArchiveSink(Sink):
    """A new archive with one image."""

    def __init__(self, reference: FileReference) -> None:
        self.reference = str(reference)
        self._final = Path(reference.path)
        self._image = reference
        check_writable(reference)
        self._check_destination()
        self._staging = Staging(self._final.parent)
        try:
            self._path, self._fd = self._staging.create()
        except BaseException:
            self._staging.close()
            raise
        self._blobs: dict[Digest, tuple[int, int]] = {}
        self._appending = threading.Lock()

    def has_blob(self, blob: Descriptor) -> bool:
        """Look in the new archive; the old one goes."""
        return blob.digest in self._blobs

    def begin_blob(self, size: int | None = None) -> BlobWriter:  # noqa: ARG002
        """Write into a file of its own, which then joins the archive."""
        return StagedBlob(self._staging, self._keep)

    def put_manifest(self, manifest: Manifest) -> None:
        """Append the manifest as a blob."""
        with self._appending:
            if manifest.digest not in self._blobs:
                offset = self._append(blob_name(manifest.digest), manifest.raw)
                self._blobs[manifest.digest] = (offset, len(manifest.raw))

    def set_reference(self, manifest: Manifest, *, replacing: Digest | None = None) -> None:
        """Finish the archive and put it in place of the old one."""
        for name, data in self._documents(manifest).items():
            self._append(name, data)
        with naming("write", self._final):
            write_all(self._fd, memoryview(END))
            os.fsync(self._fd)
        with locked(self._final.parent):
            self._check_destination(replacing)  # again: others may have written there meanwhile
            publish_image(self._path, self._final, self.reference)

    def read_back(self) -> Source:
        """Read the archive as it grows."""
        return _GrowingArchive(self.reference, self._final, self._fd, self._blobs)

    def close(self) -> None:
        """Remove what is staged."""
        if self._fd >= 0:
            close(self._fd)
            self._fd = -1
        self._staging.close()

    def _check_destination(self, replacing: Digest | None = None) -> None:
        _check_replaceable(self._image, replacing)

    def _documents(self, manifest: Manifest) -> dict[str, bytes]:
        """Return the members that make the blobs an image, by their names."""
        index = with_image(parse_layout_index(EMPTY_INDEX), manifest.descriptor(), self._image.name)
        return self._layout(index)

    def _layout(self, index: ImageIndex) -> dict[str, bytes]:
        return {INDEX_FILE: index.raw, LAYOUT_FILE: LAYOUT}

    def _keep(self, staged: Path, digest: Digest, size: int) -> None:
        with self._appending, naming("write", self._final):
            if digest not in self._blobs:
                write_all(self._fd, memoryview(member_header(blob_name(digest), size)))
                offset = os.lseek(self._fd, 0, os.SEEK_CUR)
                _append_file(self._fd, staged, size)
                write_all(self._fd, memoryview(padding(size)))
                self._blobs[digest] = (offset, size)
        with contextlib.suppress(OSError):  # it goes with the directory
            staged.unlink()

    def _append(self, name: str, data: bytes) -> int:
        with naming("write", self._final):
            write_all(self._fd, memoryview(member_header(name, len(data))))
            offset = os.lseek(self._fd, 0, os.SEEK_CUR)
            write_all(self._fd, memoryview(data + padding(len(data))))
            return offset


class _GrowingArchive(Source):
    def __init__(
        self, reference: str, path: Path, fd: int, blobs: dict[Digest, tuple[int, int]]
    ) -> None:
        self.reference = reference
        self._path = path
        self._fd = fd
        self._blobs = blobs

    def _top_manifest(self) -> Manifest:
        raise InputError(f"{self.reference} is not written yet")

    def _manifest_bytes(self, descriptor: Descriptor) -> bytes | None:
        if descriptor.digest not in self._blobs:
            return None
        offset, size = self._blobs[descriptor.digest]
        with naming("read", self._path):
            return os.pread(self._fd, size, offset)

    def _open_blob(self, blob: Descriptor) -> RawBlob:
        return FilePart(self._fd, *self._place(blob), whole=False, path=self._path)

    def _place(self, blob: Descriptor) -> tuple[int, int]:
        if blob.digest not in self._blobs:
            raise InputError(f"{self.reference} lacks the blob {blob.digest}")
        return self._blobs[blob.digest]


def _append_file(target: int, staged: Path, size: int) -> None:
    with staged.open("rb") as file:
        copied = 0
        while copied < size:
            count = os.sendfile(target, file.fileno(), copied, size - copied)
            if count == 0:
                raise InputError(f"'{staged}' shrank")
            copied += count


def _check_replaceable(reference: FileReference, replacing: Digest | None) -> None:
    """Refuse to replace a file that is not an archive, or one with images of other names.

    Raises ``ChangedError`` where its image is not ``replacing``, if that is given.
    """
    if not is_there(Path(reference.path)):
        if replacing is not None:
            raise ChangedError(str(reference))
        return
    try:
        with OciArchiveSource(reference) as old:
            names, digest = image_names(old.index), digest_of_image(old.index, reference)
    except InputError as exc:
        if replacing is not None:  # it was an archive when it was read
            raise
        raise RefusedError(
            f"'{reference.path}' exists and is not an OCI archive: {exc.message}",
            "remove it, or choose another name",
        ) from exc
    if replacing not in {None, digest}:
        raise ChangedError(str(reference))
    others = [shown(name) if name else "(no name)" for name in names if name != reference.name]
    if others:
        raise RefusedError(
            f"'{reference.path}' holds other images, which would be lost: {', '.join(others)}",
            "remove it, or choose another name",
        )
