"""Images of which each blob is a file, in ``oci:`` and ``dir:``: what both kinds have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, NamedTuple

from coco_kp.errors import ChangedError, InputError
from coco_kp.files import read_small_if_there
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import MAX_MANIFEST, Descriptor, Manifest
from coco_kp.transport.base import BlobWriter, RawBlob, Sink, Source
from coco_kp.transport.files import naming, open_whole
from coco_kp.transport.staging import StagedBlob, Staging


class Names(NamedTuple):
    """What files are called, in the directory and in messages."""

    blob: Callable[[Digest], str]
    manifest: Callable[[Digest], str]
    shown: Callable[[Path], Path]


class BlobFiles(Source):
    """Blobs and manifests by their digests, at the path that each name stands for."""

    def __init__(self, reference: str, names: Names, path: Callable[[str], Path]) -> None:
        self.reference = reference
        self._names = names
        self._path = path

    def _top_manifest(self) -> Manifest:
        raise InputError(f"{self.reference} is not written yet")

    def _manifest_bytes(self, descriptor: Descriptor) -> bytes | None:
        path = self._path(self._names.manifest(descriptor.digest))
        return read_small_if_there(path, MAX_MANIFEST, named=self._names.shown(path))

    def _open_blob(self, blob: Descriptor) -> RawBlob:
        path = self._path(self._names.blob(blob.digest))
        return open_whole(path, named=self._names.shown(path))


class BlobFilesSink(Sink):
    """A directory, made if it is missing, whose new files are staged until the image is there."""

    names: ClassVar[Names]

    def __init__(self, reference: str, folder: Path) -> None:
        self.reference = reference
        self._folder = folder
        self._check_destination()
        self._staging = Staging(folder)
        self._staged: dict[str, Path] = {}
        self._counted_on: set[str] = set()

    def has_blob(self, blob: Descriptor) -> bool:
        """Look among the staged files and in the directory."""
        name = self.names.blob(blob.digest)
        path = self._path(name)
        with naming("read", self.names.shown(path)):
            found = path.is_file() and path.stat().st_size == blob.size
        if found and name not in self._staged:
            self._counted_on.add(name)
        return found

    def begin_blob(self, size: int | None = None) -> BlobWriter:  # noqa: ARG002
        """Write into a staged file."""
        return StagedBlob(self._staging, self._keep)

    def put_manifest(self, manifest: Manifest) -> None:
        """Stage the manifest under its digest."""
        name = self.names.manifest(manifest.digest)
        self._staged[name] = self._staging.write(manifest.raw)

    def read_back(self) -> Source:
        """Read staged files and those that were there."""
        return BlobFiles(self.reference, self.names, self._path)

    def close(self) -> None:
        """Remove what is staged."""
        self._staging.close()

    @abstractmethod
    def _check_destination(self) -> None:
        """Refuse early what ``set_reference`` could not do."""

    def _check_counted_on(self) -> None:
        """Raise ``ChangedError`` if others removed a blob of the new image."""
        with naming("read", self._folder):
            there = all(self._path(name).is_file() for name in self._counted_on)
        if not there:
            raise ChangedError(self.reference)

    def _publish_files(self) -> None:
        """Rename what is staged to its final names; not yet durable."""
        for name, staged in self._staged.items():
            self._staging.publish(staged, self._folder / name)
        self._staged.clear()

    def _path(self, name: str) -> Path:
        return self._staged.get(name) or self._folder / name

    def _keep(self, staged: Path, digest: Digest, _size: int) -> None:
        self._staged[self.names.blob(digest)] = staged
