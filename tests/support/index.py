"""Image indexes in a layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.documents import Document
from tests.support.image import Image
from tests.support.layout import LayoutWriter, entries


def write_index(folder: Path, images: Mapping[Image, Mapping[str, Any]]) -> str:
    """Write an index of these images, with more members for the entry of each; return its name."""
    layout = LayoutWriter(folder)
    descriptors = []
    for image, members in images.items():
        (entry,) = entries(image.folder)
        descriptors.append({**entry, **members})
        shutil.copytree(image.folder / "blobs", folder / "blobs", dirs_exist_ok=True)
    layout.name(layout.put_index(descriptors))
    return f"oci:{folder}"


def read_index(folder: Path) -> list[Document]:
    """Return the entries of the index in a layout."""
    (top,) = entries(folder)
    found: list[Document] = read_manifest(folder, top)["manifests"]
    return found


def layer_digests(folder: Path) -> set[str]:
    """Return the digests of all layers of all images of the index in a layout."""
    images = [read_manifest(folder, entry) for entry in read_index(folder)]
    return {layer["digest"] for image in images for layer in image["layers"]}


def read_manifest(folder: Path, descriptor: Mapping[str, Any]) -> Any:
    """Return the manifest, parsed, that a descriptor names."""
    return json.loads((folder / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes())
