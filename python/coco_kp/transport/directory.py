"""``dir:path``: one image in a flat directory, in skopeo's own file names.

``manifest.json`` is the image (or index), ``<hex>.manifest.json`` an image of an index, ``<hex>`` a
blob, ``version`` the mark that the directory is such a one (containers-transports(5)). A new image
takes over at once, when ``manifest.json`` is replaced; then the files of the old one go.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from coco_kp.errors import ChangedError, CocoKpError, InPlaceError, InputError, RefusedError
from coco_kp.files import brief, is_there, locked, read_small, read_small_if_there, sync_directory
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import MAX_MANIFEST, Descriptor, ImageManifest, Manifest, parse_manifest
from coco_kp.model.reference import FileReference
from coco_kp.transport.base import BlobWriter, RawBlob, Sink, Source
from coco_kp.transport.files import naming, open_whole
from coco_kp.transport.staging import StagedBlob, Staging, publish_image

_LOG: Final = logging.getLogger(__name__)

MANIFEST_FILE: Final = "manifest.json"
VERSION_FILE: Final = "version"
VERSION: Final = b"Directory Transport Version: 1.1\n"
_OURS: Final = re.compile(r"[0-9a-f]{64}(\.manifest\.json)?|[0-9a-f]{128}|signature-[0-9]+")


class DirectorySource(Source):
    """The image in a directory."""

    def __init__(self, reference: FileReference) -> None:
        self.reference = str(reference)
        self._folder = Path(reference.path)
        self._manifest = parse_manifest(read_small(self._folder / MANIFEST_FILE, MAX_MANIFEST))

    def _top_manifest(self) -> Manifest:
        return self._manifest

    def _manifest_bytes(self, descriptor: Descriptor) -> bytes | None:
        return _manifest_if_there(self._folder / _manifest_name(descriptor.digest))

    def _open_blob(self, blob: Descriptor) -> RawBlob:
        return _open(self._folder / blob.digest.hex)


class DirectorySink(Sink):
    """A directory for one image, which is made if it is missing."""

    def __init__(self, reference: FileReference) -> None:
        self.reference = str(reference)
        self._folder = Path(reference.path)
        self._check_destination()
        self._staging = Staging(self._folder)
        self._staged: dict[str, Path] = {}
        self._counted_on: set[str] = set()

    def has_blob(self, blob: Descriptor) -> bool:
        """Look among the staged blobs and in the directory."""
        path = self._path(blob.digest.hex)
        with naming("read", _named(path)):
            found = path.is_file() and path.stat().st_size == blob.size
        if found and blob.digest.hex not in self._staged:
            self._counted_on.add(blob.digest.hex)
        return found

    def begin_blob(self, size: int | None = None) -> BlobWriter:  # noqa: ARG002
        """Write into a staged file."""
        return StagedBlob(self._staging, self._keep)

    def put_manifest(self, manifest: Manifest) -> None:
        """Stage the manifest as one of an index."""
        self._staged[_manifest_name(manifest.digest)] = self._staging.write(manifest.raw)

    def set_reference(self, manifest: Manifest, *, replacing: Digest | None = None) -> None:
        """Rename all files to their final names, ``manifest.json`` last, and remove older files."""
        with locked(self._folder):
            self._check_unchanged(replacing)
            try:
                with self._staging.all_or_nothing():
                    self._publish(manifest)
            except InPlaceError as error:
                error.hint = "files of an older image stay until the next is written there"
                raise
            self._remove_replaced(manifest)

    def _check_unchanged(self, replacing: Digest | None) -> None:
        """Raise ``ChangedError`` if others changed the image, or removed a blob of the new one."""
        raw = read_small_if_there(self._folder / MANIFEST_FILE, MAX_MANIFEST)
        if replacing is not None and (raw is None or Digest.of(raw) != replacing):
            raise ChangedError(self.reference)
        with naming("read", self._folder):
            there = all(self._path(name).is_file() for name in self._counted_on)
        if not there:
            raise ChangedError(self.reference)

    def _publish(self, manifest: Manifest) -> None:
        top = self._staged.pop(_manifest_name(manifest.digest))
        self._staging.publish(self._staging.write(VERSION), self._folder / VERSION_FILE)
        for name, staged in self._staged.items():
            self._staging.publish(staged, self._folder / name)
        self._staged.clear()
        with naming("write to", self._folder):
            sync_directory(self._folder)
        publish_image(top, self._folder / MANIFEST_FILE, self.reference)

    def _remove_replaced(self, manifest: Manifest) -> None:
        try:
            self._remove_others(self._names_in_use(manifest))
        except (CocoKpError, OSError) as error:
            _LOG.warning(
                "%s is in place, but files of the old image are, too: %s", self.reference, error
            )

    def read_back(self) -> Source:
        """Read staged files and those that were there."""
        return _StagedDirectory(self.reference, self._path)

    def close(self) -> None:
        """Remove what is staged."""
        self._staging.close()

    def _path(self, name: str) -> Path:
        return self._staged.get(name) or self._folder / name

    def _keep(self, staged: Path, digest: Digest, _size: int) -> None:
        self._staged[digest.hex] = staged

    def _check_destination(self) -> None:
        with naming("read", self._folder):
            entries = list(self._folder.iterdir()) if is_there(self._folder) else []
        strange = [entry.name for entry in entries if not entry.name.startswith(".")]
        if strange and VERSION_FILE not in strange:
            raise RefusedError(
                f"'{self._folder}' is not empty and not an image's directory",
                "choose a new or empty directory",
            )

    def _names_in_use(self, manifest: Manifest) -> set[str]:
        """Name the files of all that ``manifest`` points to."""
        if isinstance(manifest, ImageManifest):
            return {part.digest.hex for part in (manifest.config, *manifest.layers)}
        names = set()
        for entry in manifest.manifests:
            name = _manifest_name(entry.digest)
            names.add(name)
            if is_there(self._path(name)):  # an index may name images that are not there
                names |= self._names_in_use(self.read_back().manifest(entry))
        return names

    def _remove_others(self, in_use: set[str]) -> None:
        with naming("clean up", self._folder):
            for entry in self._folder.iterdir():
                if _OURS.fullmatch(entry.name) and entry.name not in in_use:
                    entry.unlink()


class _StagedDirectory(Source):
    def __init__(self, reference: str, path: Callable[[str], Path]) -> None:
        self.reference = reference
        self._path = path

    def _top_manifest(self) -> Manifest:
        raise InputError(f"{self.reference} is not written yet")

    def _manifest_bytes(self, descriptor: Descriptor) -> bytes | None:
        return _manifest_if_there(self._path(_manifest_name(descriptor.digest)))

    def _open_blob(self, blob: Descriptor) -> RawBlob:
        return _open(self._path(blob.digest.hex))


def _manifest_if_there(path: Path) -> bytes | None:
    return read_small_if_there(path, MAX_MANIFEST, named=_named(path))


def _open(path: Path) -> RawBlob:
    return open_whole(path, named=_named(path))


def _named(path: Path) -> Path:
    """Return what messages call a file."""
    return brief(path) if _OURS.fullmatch(path.name) else path


def _manifest_name(digest: Digest) -> str:
    return f"{digest.hex}.{MANIFEST_FILE}"
