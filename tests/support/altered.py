"""Images that somebody altered: in a layout, with all digests made right again."""

from __future__ import annotations

import json
import shutil
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path

from tests.support.documents import Document
from tests.support.image import PACKETS, PUBLIC_OPTIONS, Image
from tests.support.layout import LayoutWriter, entries

UNSCHEMED = "/default/key/1"  # as upstream's provider writes it, and no guest reads it


def altered(image: Image, folder: Path, change: Callable[[Document], None]) -> Image:
    """Copy an image and change its manifest."""
    copy = copied(image, folder)
    manifest = copy.manifest
    change(manifest)
    layout, (entry,) = LayoutWriter(folder), entries(folder)
    layout.name(entry | layout.put(entry["mediaType"], json.dumps(manifest).encode()))
    return copy


def altered_layer(
    image: Image, folder: Path, number: int, change: Callable[[bytes], bytes]
) -> Image:
    """Copy an image and change a layer's bytes; its descriptor names the new ones."""

    def describe(manifest: Document) -> None:
        layer = manifest["layers"][number]
        layer |= LayoutWriter(folder).put(layer["mediaType"], change(image.layers[number].blob))

    return altered(image, folder, describe)


def altered_config(image: Image, folder: Path, change: Callable[[Document], None]) -> Image:
    """Copy an image and change its config."""

    def describe(manifest: Document) -> None:
        config, described = json.loads(image.config), manifest["config"]
        change(config)
        data = json.dumps(config).encode()
        described |= LayoutWriter(folder).put(described["mediaType"], data)

    return altered(image, folder, describe)


def copied(image: Image, folder: Path) -> Image:
    shutil.copytree(image.folder, folder)
    return Image(folder)


def public_options(manifest: Document, number: int, change: Callable[[Document], None]) -> None:
    """Change the public options of a layer."""
    annotations = manifest["layers"][number]["annotations"]
    document = json.loads(b64decode(annotations[PUBLIC_OPTIONS]))
    change(document)
    annotations[PUBLIC_OPTIONS] = b64encode(json.dumps(document).encode()).decode()


def packet(manifest: Document, number: int, change: Callable[[Document], None]) -> None:
    """Change the packet of a layer."""
    annotations = manifest["layers"][number]["annotations"]
    document = json.loads(b64decode(annotations[PACKETS]))
    change(document)
    annotations[PACKETS] = b64encode(json.dumps(document).encode()).decode()


def flip(member: str) -> Callable[[Document], None]:
    """Flip a bit in the middle of a base64 member."""

    def change(document: Document) -> None:
        data = bytearray(b64decode(document[member]))
        data[len(data) // 2] ^= 1
        document[member] = b64encode(data).decode()

    return change


def unscheme(manifest: Document) -> None:
    """Put a key ID without a scheme into every packet."""
    for number in range(len(manifest["layers"])):
        packet(manifest, number, lambda document: document.update(kid=UNSCHEMED))
