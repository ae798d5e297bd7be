"""Small images in memory, and how they go into a sink."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coco_kp.model.manifest import Descriptor, ImageIndex, ImageManifest, Manifest, parse_manifest
from coco_kp.transport import Sink, Source, put_blob, read_blob

OCI = "application/vnd.oci.image"


@dataclass(frozen=True)
class Image:
    """A manifest (or index, with its children), and the blobs it needs."""

    top: Manifest
    blobs: Mapping[Descriptor, bytes]
    children: tuple[ImageManifest, ...] = field(default=())


def image(*layers: bytes, **more: Any) -> Image:
    """An OCI image with these layers; ``more`` goes into its manifest."""
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [sha256(b) for b in layers]}})
    document = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": descriptor(f"{OCI}.config.v1+json", config.encode()),
        "layers": [descriptor(f"{OCI}.layer.v1.tar", layer) for layer in layers],
        **more,
    }
    top = parse_manifest(json.dumps(document).encode())
    assert isinstance(top, ImageManifest)
    contents = (config.encode(), *layers)
    return Image(top, dict(zip((top.config, *top.layers), contents, strict=True)))


def index(*images: Image) -> Image:
    """A multi-platform image."""
    entries = [
        {
            **dict(each.top.descriptor().document),
            "platform": {"os": "linux", "architecture": f"arch{number}"},
        }
        for number, each in enumerate(images)
    ]
    document = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": entries}
    top = parse_manifest(json.dumps(document).encode())
    blobs = {name: blob for each in images for name, blob in each.blobs.items()}
    children = tuple(each.top for each in images if isinstance(each.top, ImageManifest))
    return Image(top, blobs, children)


def descriptor(media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def store(sink: Sink, stored: Image, *, named: bool = True) -> None:
    """Put an image into a sink, blobs first, the name last."""
    for blob, data in stored.blobs.items():
        put_blob(sink, blob, data)
    for child in stored.children:
        sink.put_manifest(child)
    sink.put_manifest(stored.top)
    if named:
        sink.set_reference(stored.top)


def check(source: Source, expected: Image) -> None:
    """Read an image and all its parts, and compare every byte."""
    top = source.manifest()
    assert top.raw == expected.top.raw
    check_parts(source, expected)


def check_parts(source: Source, expected: Image) -> None:
    tops: Sequence[Manifest] = (expected.top,)
    if isinstance(expected.top, ImageIndex):
        tops = [source.manifest(entry) for entry in expected.top.manifests]
        assert [child.raw for child in tops] == [child.raw for child in expected.children]
    for blob, data in expected.blobs.items():
        assert read_blob(source, blob, 1 << 30) == data
