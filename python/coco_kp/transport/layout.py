"""``oci:path[:name]``: an OCI image layout (image-spec image-layout.md).

Several processes may write into one layout: ``index.json`` is replaced at once, under a lock on the
layout's folder, and keeps what others put into it. A name given anew replaces its old entry. A
process that is killed leaves the old names intact, and at most a folder that the next one removes;
killed in the moment of publishing, also blobs that no name points to.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from coco_kp.errors import InputError
from coco_kp.files import locked, sync_directory
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import MAX_MANIFEST, Descriptor, ImageIndex, Manifest
from coco_kp.model.reference import FileReference
from coco_kp.transport.base import BlobWriter, RawBlob, Sink, Source
from coco_kp.transport.files import naming, open_whole, read_small, read_small_if_there
from coco_kp.transport.layout_index import (
    EMPTY_INDEX,
    INDEX_FILE,
    LAYOUT,
    LAYOUT_FILE,
    blob_name,
    check_layout,
    check_room,
    find_image,
    parse_layout_index,
    with_image,
)
from coco_kp.transport.staging import StagedBlob, Staging, publish, publish_durably


class LayoutSource(Source):
    """An image in a layout."""

    def __init__(self, reference: FileReference) -> None:
        self.reference = str(reference)
        self._folder = Path(reference.path)
        self._name = reference.name
        check_layout(read_small(self._folder / LAYOUT_FILE, MAX_MANIFEST), self.reference)

    def _top_manifest(self) -> Manifest:
        index = read_small(self._folder / INDEX_FILE, MAX_MANIFEST)
        return self.manifest(find_image(parse_layout_index(index), self._name, self.reference))

    def _manifest_bytes(self, descriptor: Descriptor) -> bytes | None:
        return read_small_if_there(self._folder / blob_name(descriptor.digest), MAX_MANIFEST)

    def _open_blob(self, blob: Descriptor) -> RawBlob:
        return open_whole(self._folder / blob_name(blob.digest))


class LayoutSink(Sink):
    """A name in a layout, which is made if it is missing."""

    def __init__(self, reference: FileReference) -> None:
        self.reference = str(reference)
        self._folder = Path(reference.path)
        self._name = reference.name
        self._check_destination()
        self._staging = Staging(self._folder)
        self._staged: dict[Digest, Path] = {}

    def has_blob(self, blob: Descriptor) -> bool:
        """Look among the staged blobs and in the layout."""
        path = self._path(blob.digest)
        return path.is_file() and path.stat().st_size == blob.size

    def begin_blob(self, size: int | None = None) -> BlobWriter:  # noqa: ARG002
        """Write into a staged file."""
        return StagedBlob(self._staging, self._keep)

    def put_manifest(self, manifest: Manifest) -> None:
        """Stage the manifest as a blob."""
        self._staged[manifest.digest] = self._staging.write(manifest.raw)

    def set_reference(self, manifest: Manifest) -> None:
        """Give all blobs their names, then put the image into ``index.json``."""
        for digest, staged in self._staged.items():
            publish(staged, self._folder / blob_name(digest))
        with naming("write to", self._folder):
            for folder in {(self._folder / blob_name(digest)).parent for digest in self._staged}:
                sync_directory(folder)
        self._staged.clear()
        with locked(self._folder):
            if not (self._folder / LAYOUT_FILE).exists():
                publish_durably(self._staging.write(LAYOUT), self._folder / LAYOUT_FILE)
            index = with_image(self._read_index(), manifest.descriptor(), self._name)
            publish_durably(self._staging.write(index.raw), self._folder / INDEX_FILE)

    def read_back(self) -> Source:
        """Read staged blobs and those that were there."""
        return _StagedLayout(self.reference, self._path)

    def close(self) -> None:
        """Remove what is staged."""
        self._staging.close()

    def _path(self, digest: Digest) -> Path:
        return self._staged.get(digest) or self._folder / blob_name(digest)

    def _keep(self, staged: Path, digest: Digest, _size: int) -> None:
        self._staged[digest] = staged

    def _check_destination(self) -> None:
        """Refuse early what ``set_reference`` could not do."""
        layout = self._folder / LAYOUT_FILE
        if layout.exists():
            check_layout(read_small(layout, MAX_MANIFEST), self.reference)
        elif not all(entry.name.startswith(".") for entry in _entries(self._folder)):
            raise InputError(
                f"'{self._folder}' is neither empty nor an OCI layout",
                "name a new folder, or the folder of a layout",
            )
        check_room(self._read_index(), self._name)

    def _read_index(self) -> ImageIndex:
        path = self._folder / INDEX_FILE
        return parse_layout_index(read_small(path, MAX_MANIFEST) if path.exists() else EMPTY_INDEX)


class _StagedLayout(Source):
    def __init__(self, reference: str, path: Callable[[Digest], Path]) -> None:
        self.reference = reference
        self._path = path

    def _top_manifest(self) -> Manifest:
        raise InputError(f"{self.reference} is not written yet")

    def _manifest_bytes(self, descriptor: Descriptor) -> bytes | None:
        return read_small_if_there(self._path(descriptor.digest), MAX_MANIFEST)

    def _open_blob(self, blob: Descriptor) -> RawBlob:
        return open_whole(self._path(blob.digest))


def _entries(folder: Path) -> list[Path]:
    with naming("read", folder):
        return list(folder.iterdir()) if folder.exists() else []
