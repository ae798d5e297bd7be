"""``dir:path``: one image in a flat directory, in skopeo's own file names.

``manifest.json`` is the image (or index), ``<hex>.manifest.json`` an image of an index, ``<hex>`` a
blob, ``version`` the mark that the directory is such a one (containers-transports(5)). A new image
takes over at once, when ``manifest.json`` is replaced; then the files of the old one go.
"""

from __future__ import annotations

import logging
import re
from operator import attrgetter
from pathlib import Path
from typing import Final

from coco_kp.errors import ChangedError, CocoKpError, InPlaceError, RefusedError
from coco_kp.files import brief, is_there, read_small, read_small_if_there, sync_directory
from coco_kp.locks import locked
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import MAX_MANIFEST, ImageManifest, Manifest, parse_manifest
from coco_kp.model.reference import FileReference
from coco_kp.transport.blob_files import BlobFiles, BlobFilesSink, Names
from coco_kp.transport.files import naming
from coco_kp.transport.staging import publish_image

_LOG: Final = logging.getLogger(__name__)

MANIFEST_FILE: Final = "manifest.json"
VERSION_FILE: Final = "version"
VERSION: Final = b"Directory Transport Version: 1.1\n"
_OURS: Final = re.compile(r"[0-9a-f]{64}(\.manifest\.json)?|[0-9a-f]{128}|signature-[0-9]+")


def _manifest_name(digest: Digest) -> str:
    return f"{digest.hex}.{MANIFEST_FILE}"


def _shown(path: Path) -> Path:
    return brief(path) if _OURS.fullmatch(path.name) else path


_NAMES: Final = Names(attrgetter("hex"), _manifest_name, _shown)


class DirectorySource(BlobFiles):
    """The image in a directory."""

    def __init__(self, reference: FileReference) -> None:
        folder = Path(reference.path)
        super().__init__(str(reference), _NAMES, folder.joinpath)
        self._manifest = parse_manifest(read_small(folder / MANIFEST_FILE, MAX_MANIFEST))

    def _top_manifest(self) -> Manifest:
        return self._manifest


class DirectorySink(BlobFilesSink):
    """A directory for one image, which is made if it is missing."""

    names = _NAMES

    def __init__(self, reference: FileReference) -> None:
        super().__init__(str(reference), Path(reference.path))

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
        self._check_counted_on()

    def _publish(self, manifest: Manifest) -> None:
        top = self._staged.pop(_manifest_name(manifest.digest))
        self._staging.publish(self._staging.write(VERSION), self._folder / VERSION_FILE)
        self._publish_files()
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
