"""Images that somebody altered: in a layout, with all digests made right again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.interop.image import Image

Document = dict[str, Any]


def altered(image: Image, folder: Path, change: Callable[[Document], None]) -> Image:
    """Copy an image and change its manifest."""
    copy = copied(image, folder)
    manifest = copy.manifest
    change(manifest)
    data = json.dumps(manifest).encode()
    index = json.loads((folder / "index.json").read_bytes())
    index["manifests"][0] |= {"digest": put(folder, data), "size": len(data)}
    (folder / "index.json").write_text(json.dumps(index))
    return copy


def altered_layer(
    image: Image, folder: Path, number: int, change: Callable[[bytes], bytes]
) -> Image:
    """Copy an image and change a layer's bytes; its descriptor names the new ones."""
    data = change(image.layers[number].blob)

    def describe(manifest: Document) -> None:
        manifest["layers"][number] |= {"digest": put(folder, data), "size": len(data)}

    return altered(image, folder, describe)


def altered_config(image: Image, folder: Path, change: Callable[[Document], None]) -> Image:
    """Copy an image and change its config."""

    def describe(manifest: Document) -> None:
        config = json.loads(image.config)
        change(config)
        data = json.dumps(config).encode()
        manifest["config"] |= {"digest": put(folder, data), "size": len(data)}

    return altered(image, folder, describe)


def copied(image: Image, folder: Path) -> Image:
    shutil.copytree(image.folder, folder)
    return Image(folder)


def put(folder: Path, data: bytes) -> str:
    """Store a blob in a layout and give its digest."""
    digest = hashlib.sha256(data).hexdigest()
    (folder / "blobs/sha256" / digest).write_bytes(data)
    return f"sha256:{digest}"
