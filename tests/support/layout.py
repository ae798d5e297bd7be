"""Writes OCI image layouts (image-layout.md of the OCI image specification)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.documents import (
    CONFIG,
    INDEX,
    MANIFEST,
    Document,
    Image,
    config,
    index,
    manifest,
    to_json,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class LayoutWriter:
    """A layout that is being written: blobs first, then `name` says which manifests it has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = folder / "blobs" / "sha256"
        self.blobs.mkdir(parents=True, exist_ok=True)
        (folder / "oci-layout").write_bytes(to_json({"imageLayoutVersion": "1.0.0"}))

    def put(self, media_type: str, data: bytes) -> Document:
        """Store a blob and return its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        (self.blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def take(self, media_type: str, file: Path, digest: str) -> Document:
        """Move a file in as the blob with this hexadecimal SHA-256 and return its descriptor."""
        size = file.stat().st_size
        file.rename(self.blobs / digest)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}

    def put_image(self, image: Image) -> Document:
        """Store all of an image, and return its manifest's descriptor."""
        for blob in (image.config, *(layer.data for layer in image.layers)):
            self.put("", blob)
        return self.put(json.loads(image.manifest)["mediaType"], image.manifest)

    def put_manifest(
        self, layers: Sequence[Mapping[str, Any]], diff_ids: Iterable[str]
    ) -> Document:
        """Store the config and manifest of an image whose layers are there; describe the latter."""
        return self.put(MANIFEST, manifest(self.put(CONFIG, config(diff_ids)), layers))

    def put_index(self, entries: Sequence[Mapping[str, Any]]) -> Document:
        """Store an index of these manifests and return its descriptor."""
        return self.put(INDEX, index(entries))

    def name(self, *tops: Mapping[str, Any]) -> None:
        """Write the layout's own index, of these manifests."""
        (self.folder / "index.json").write_bytes(to_json({"schemaVersion": 2, "manifests": tops}))


def entries(folder: Path) -> list[Document]:
    """Return the entries of a layout's own index."""
    found: list[Document] = json.loads((folder / "index.json").read_bytes())["manifests"]
    return found
