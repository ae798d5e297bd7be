"""Images as values, made without any I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from coco_kp.image.tree import ImageNode, IndexNode, Node
from coco_kp.model.image_config import parse_image_config
from coco_kp.model.manifest import ImageIndex, ImageManifest, parse_descriptor, parse_manifest
from coco_kp.model.media_type import (
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
)
from tests.support import documents
from tests.support.documents import Layer

if TYPE_CHECKING:
    from collections.abc import Mapping

GZIP = f"{OCI_LAYER}+gzip"


@dataclass(frozen=True)
class L:
    """A layer: its bytes only matter for its digest, ``content`` for its diff_id."""

    data: str
    media_type: str = GZIP
    content: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    urls: tuple[str, ...] = ()

    @property
    def layer(self) -> Layer:
        compressed = "+" in self.media_type
        content = (self.content or f"content of {self.data}").encode() if compressed else None
        members = {"annotations": dict(self.annotations), "urls": list(self.urls)}
        given = {name: value for name, value in members.items() if value}
        return Layer(self.data.encode(), self.media_type, content, given)

    def document(self) -> dict[str, Any]:
        return self.layer.descriptor

    @property
    def diff_id(self) -> str:
        return self.layer.diff_id


def digest(text: str) -> str:
    return documents.sha256(text.encode())


def image(
    *layers: L,
    platform: str | None = "linux/amd64",
    config_type: str = OCI_CONFIG,
    config: bytes | None = None,
    entry: Mapping[str, Any] | None = None,
    docker: bool = False,
    **members: Any,
) -> ImageNode:
    """Return an image with these layers; ``entry`` are members of the index's entry for it."""
    members = {"mediaType": DOCKER_MANIFEST} | members if docker else members
    made = [each.layer for each in layers]
    parts = documents.image(*made, settings=config, config_type=config_type, **members)
    manifest = parse_manifest(parts.manifest)
    assert isinstance(manifest, ImageManifest)
    pointer = dict(manifest.descriptor().document) | dict(entry or {})
    if platform:
        os, architecture, *variant = platform.split("/")
        pointer["platform"] = {"os": os, "architecture": architecture} | (
            {"variant": variant[0]} if variant else {}
        )
    parsed = parse_image_config(parts.config) if config_type == OCI_CONFIG else None
    return ImageNode(manifest, parse_descriptor(pointer, "entry"), parsed)


def attestation(
    *layers: L,
    platform: str | None = "unknown/unknown",
    config_type: str = OCI_CONFIG,
    entry: Mapping[str, Any] | None = None,
    **config: Any,
) -> ImageNode:
    """Return an attestation as BuildKit writes it, with more members of its config."""
    layers = layers or (L("statement", "application/vnd.in-toto+json"),)
    config = {"os": "unknown", "architecture": "unknown"} | config
    own = documents.config((digest(layer.data) for layer in layers), **config)
    return image(*layers, platform=platform, config_type=config_type, config=own, entry=entry)


def listed(*children: ImageNode) -> IndexNode:
    """Return an index of images."""
    entries = [dict(child.entry.document) for child in children if child.entry]
    manifest = parse_manifest(documents.index(entries))
    assert isinstance(manifest, ImageIndex)
    nodes: tuple[Node, ...] = children
    return IndexNode(manifest, nodes)
