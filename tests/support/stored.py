"""Small images in memory, and how they go into a sink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coco_kp.model.manifest import Descriptor, ImageIndex, ImageManifest, Manifest, parse_manifest
from coco_kp.transport import Sink, Source, read_blob
from tests.support import documents
from tests.support.blobs import put_blob
from tests.support.documents import Layer


@dataclass(frozen=True)
class Image:
    """A manifest (or index, with its children), and the blobs it needs."""

    top: Manifest
    blobs: Mapping[Descriptor, bytes]
    children: tuple[ImageManifest, ...] = field(default=())


def image(*layers: bytes | Layer, **more: Any) -> Image:
    """An image with these layers, of which bytes are not compressed.

    ``more`` is that of `documents.image`.
    """
    made = [Layer(layer) if isinstance(layer, bytes) else layer for layer in layers]
    parts = documents.image(*made, **more)
    top = parse_manifest(parts.manifest)
    assert isinstance(top, ImageManifest)
    blobs = (parts.config, *(layer.data for layer in parts.layers))
    return Image(top, dict(zip((top.config, *top.layers), blobs, strict=True)))


def index(*images: Image) -> Image:
    """A multi-platform image."""
    entries = [
        {
            **dict(each.top.descriptor().document),
            "platform": {"os": "linux", "architecture": f"arch{number}"},
        }
        for number, each in enumerate(images)
    ]
    top = parse_manifest(documents.index(entries))
    blobs = {name: blob for each in images for name, blob in each.blobs.items()}
    children = tuple(each.top for each in images if isinstance(each.top, ImageManifest))
    return Image(top, blobs, children)


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
