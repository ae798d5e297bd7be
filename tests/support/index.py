"""Lists of images in a layout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.support.image import Image

INDEX: Final = "application/vnd.oci.image.index.v1+json"


def write_index(folder: Path, images: Mapping[Image, Mapping[str, Any]]) -> str:
    """Write a list of these images, with more members for the entry of each; name it."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    entries = []
    for image, members in images.items():
        (entry,) = json.loads((image.folder / "index.json").read_bytes())["manifests"]
        entries.append(entry | members)
        for blob in (image.folder / "blobs/sha256").iterdir():
            (blobs / blob.name).write_bytes(blob.read_bytes())
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    digest = hashlib.sha256(index).hexdigest()
    (blobs / digest).write_bytes(index)
    top = {"mediaType": INDEX, "digest": f"sha256:{digest}", "size": len(index)}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return f"oci:{folder}"


def read_index(folder: Path) -> list[dict[str, Any]]:
    """Give the entries of the list in a layout."""
    (top,) = json.loads((folder / "index.json").read_bytes())["manifests"]
    entries: list[dict[str, Any]] = _blob(folder, top)["manifests"]
    return entries


def layer_digests(folder: Path) -> set[str]:
    """Give the digests of all layers of all images of the list in a layout."""
    images = [_blob(folder, entry) for entry in read_index(folder)]
    return {layer["digest"] for image in images for layer in image["layers"]}


def _blob(folder: Path, descriptor: Mapping[str, Any]) -> Any:
    return json.loads((folder / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes())
