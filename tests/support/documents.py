"""Images of the OCI image specification: their documents, as bytes and as descriptors of them.

Written from the specification with none of our own code, so that no mistake in ours can hide.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

OCI: Final = "application/vnd.oci.image"
INDEX: Final = f"{OCI}.index.v1+json"
MANIFEST: Final = f"{OCI}.manifest.v1+json"
CONFIG: Final = f"{OCI}.config.v1+json"
TAR: Final = f"{OCI}.layer.v1.tar"
TAR_GZIP: Final = f"{TAR}+gzip"

Document = dict[str, Any]


@dataclass(frozen=True)
class Layer:
    """A layer: its bytes, and what these unpack to where they are compressed."""

    data: bytes
    media_type: str = TAR
    content: bytes | None = None
    members: Mapping[str, Any] = field(default_factory=dict)
    """More members of its descriptor."""

    @property
    def descriptor(self) -> Document:
        return descriptor(self.media_type, self.data, **self.members)

    @property
    def diff_id(self) -> str:
        return sha256(self.data if self.content is None else self.content)


def gzipped(content: bytes) -> Layer:
    """Return a layer that is compressed; the same bytes for the same content."""
    return Layer(gzip.compress(content, mtime=0), TAR_GZIP, content)


@dataclass(frozen=True)
class Image:
    """An image's documents and layers."""

    manifest: bytes
    config: bytes
    layers: tuple[Layer, ...]


def image(
    *layers: Layer,
    settings: bytes | None = None,
    config_type: str = CONFIG,
    **more: Any,
) -> Image:
    """Return the image of these layers.

    ``settings`` is its config where that is not the usual one; ``more`` goes into its manifest.
    """
    settings = settings or config(layer.diff_id for layer in layers)
    described = descriptor(config_type, settings)
    top = manifest(described, [layer.descriptor for layer in layers], **more)
    return Image(top, settings, layers)


def sha256(data: bytes) -> str:
    """Return the digest of ``data`` as descriptors write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def descriptor(media_type: str, data: bytes, **more: Any) -> Document:
    """Return the descriptor of a blob, with more members."""
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}


def config(diff_ids: Iterable[str], **more: Any) -> bytes:
    """Return the config of an image for linux/amd64 whose layers have these diff_ids."""
    rootfs = {"type": "layers", "diff_ids": list(diff_ids)}
    return to_json({"architecture": "amd64", "os": "linux", "rootfs": rootfs, **more})


def manifest(config: Mapping[str, Any], layers: Sequence[Mapping[str, Any]], **more: Any) -> bytes:
    """Return the manifest of an image; ``config`` and ``layers`` are descriptors."""
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
    return to_json(document | more)


def index(entries: Sequence[Mapping[str, Any]], **more: Any) -> bytes:
    """Return an image index of these descriptors."""
    return to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries} | more)


def to_json(document: object) -> bytes:
    """Write a document without blanks."""
    return json.dumps(document, separators=(",", ":")).encode()


def with_members(document: bytes, **members: object) -> bytes:
    """Replace members of a JSON object; ``...`` removes one."""
    merged = json.loads(document) | members
    return to_json({name: value for name, value in merged.items() if value is not ...})
