"""``oci:path[:name]``: an OCI image layout (image-spec image-layout.md).

Several processes may write into one layout: blobs get their names and ``index.json`` is replaced
under a lock on the layout's directory, and it keeps what others put into it. A name given anew
replaces its old entry, and blobs that only that one led to go. A process that is killed leaves the
old names intact, and at most a directory that the next one removes; killed in the moment of
publishing, also blobs to which no name leads, for `prune`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final, NamedTuple

from coco_kp.errors import ChangedError, CocoKpError, InPlaceError, InputError
from coco_kp.files import is_there, read_small, read_small_if_there, sync_directory
from coco_kp.locks import locked
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import MAX_MANIFEST, Descriptor, ImageIndex, Manifest
from coco_kp.model.reference import FileReference
from coco_kp.transport.blob_files import BlobFiles, BlobFilesSink, Names
from coco_kp.transport.files import naming
from coco_kp.transport.layout_blobs import all_blobs, is_blob_name, reachable, remove
from coco_kp.transport.layout_index import (
    EMPTY_INDEX,
    INDEX_FILE,
    LAYOUT,
    LAYOUT_FILE,
    blob_name,
    check_layout,
    check_room,
    check_writable,
    digest_of_image,
    find_image,
    parse_layout_index,
    with_image,
)
from coco_kp.transport.staging import Staging, publish_image

_LOG: Final = logging.getLogger(__name__)


_NAMES: Final = Names(blob_name, blob_name, lambda path: path)


class LayoutSource(BlobFiles):
    """An image in a layout."""

    def __init__(self, reference: FileReference) -> None:
        self._folder = Path(reference.path)
        super().__init__(str(reference), _NAMES, self._folder.joinpath)
        self._image = reference
        check_layout(read_small(self._folder / LAYOUT_FILE, MAX_MANIFEST), self.reference)

    def _top_manifest(self) -> Manifest:
        index = parse_layout_index(read_small(self._folder / INDEX_FILE, MAX_MANIFEST))
        found = find_image(index, self._image)
        return found if isinstance(found, ImageIndex) else self.manifest(found)


class LayoutSink(BlobFilesSink):
    """A name in a layout, which is made if it is missing."""

    names = _NAMES

    def __init__(self, reference: FileReference, *, keep_replaced: bool = False) -> None:
        self._image = reference
        self._keep_replaced = keep_replaced
        check_writable(reference)
        super().__init__(str(reference), Path(reference.path))

    def set_reference(self, manifest: Manifest, *, replacing: Digest | None = None) -> None:
        """Rename all blobs to their final names, then put the image into ``index.json``."""
        with locked(self._folder):
            before = self._read_index()
            self._check_unchanged(before, replacing)
            after = with_image(before, manifest.descriptor(), self._image.name)
            replaced = self._replaced(before, after)
            try:
                with self._staging.all_or_nothing():
                    self._publish(after)
            except InPlaceError as error:
                if replaced:
                    # A crash may bring the old index back.
                    error.hint = "the old image is there, too, until the layout is pruned"
                    error.code = "old-image-there"
                raise
            self._remove(replaced, after)

    def _check_unchanged(self, index: ImageIndex, replacing: Digest | None) -> None:
        """Raise ``ChangedError`` if others changed the image, or removed a blob of the new one."""
        if replacing is not None and digest_of_image(index, self._image) != replacing:
            raise ChangedError(self.reference)
        self._check_counted_on()

    def _replaced(self, before: ImageIndex, after: ImageIndex) -> list[Descriptor]:
        """Return the entries of which nothing is to be kept."""
        if self._keep_replaced:
            return []
        return [entry for entry in before.manifests if entry not in after.manifests]

    def _remove(self, replaced: list[Descriptor], after: ImageIndex) -> None:
        """Remove what only the replaced image led to: its packets may open with a removed key."""
        if not replaced:
            return
        try:
            kept = reachable(self._folder, after.manifests)
            remove(self._folder, reachable(self._folder, replaced, known=False) - kept)
        except (CocoKpError, OSError) as error:
            _LOG.warning(
                "%s is in place, but the old image is there, too, until the layout is pruned: %s",
                self.reference,
                error,
            )

    def _publish(self, index: ImageIndex) -> None:
        # The first, so that whoever is killed after it leaves a layout.
        # Read, for what cannot be looked at must not be taken for there.
        if read_small_if_there(self._folder / LAYOUT_FILE, MAX_MANIFEST) is None:
            self._staging.publish_durably(self._staging.write(LAYOUT), self._folder / LAYOUT_FILE)
        self._publish_blobs()
        publish_image(self._staging.write(index.raw), self._folder / INDEX_FILE, self.reference)

    def _publish_blobs(self) -> None:
        folders = {(self._folder / name).parent for name in self._staged}
        self._publish_files()
        with naming("write to", self._folder):
            for folder in folders:
                sync_directory(folder)

    def _check_destination(self) -> None:
        """Refuse early what ``set_reference`` could not do."""
        # The directory is listed before a look for what others write there first.
        layout, entries = self._folder / LAYOUT_FILE, self._entries()
        if is_there(layout):
            check_layout(read_small(layout, MAX_MANIFEST), self.reference)
        elif not all(entry.name.startswith(".") or _holds_blobs(entry) for entry in entries):
            raise InputError(
                f"'{self._folder}' is neither empty nor an OCI layout",
                "name a new directory, or the directory of a layout",
            )
        check_room(self._read_index(), self._image.name)

    def _entries(self) -> list[Path]:
        with naming("read", self._folder):
            return list(self._folder.iterdir()) if is_there(self._folder) else []

    def _read_index(self) -> ImageIndex:
        raw = read_small_if_there(self._folder / INDEX_FILE, MAX_MANIFEST)
        return parse_layout_index(EMPTY_INDEX if raw is None else raw)


class Pruned(NamedTuple):
    """Blobs to which no name of a layout leads, and their bytes in sum."""

    blobs: tuple[Digest, ...]
    size: int


def prune(folder: Path, *, dry_run: bool = False) -> Pruned:
    """Remove from a layout all blobs to which its index does not lead, and what killed runs left.

    With ``dry_run`` they are only returned. Raises ``InputError`` where this is not a layout or a
    manifest of it cannot be read, ``RefusedError`` where its blobs lie elsewhere.
    """
    check_layout(read_small(folder / LAYOUT_FILE, MAX_MANIFEST), f"'{folder}'")
    with locked(folder):
        index = parse_layout_index(read_small(folder / INDEX_FILE, MAX_MANIFEST))
        there = all_blobs(folder)
        unused = sorted(there.keys() - reachable(folder, index.manifests), key=str)
        if not dry_run:
            Staging(folder).close()
            remove(folder, unused)
    return Pruned(tuple(unused), sum(there[digest] for digest in unused))


def _holds_blobs(folder: Path) -> bool:
    """Return whether this is a layout's ``blobs``, which others fill first, with nothing else."""
    if folder.name != "blobs" or not folder.is_dir():
        return False
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    return all(is_blob_name(str(path.relative_to(folder))) for path in files)
