"""An image's manifests as a tree of values: read from a source, written to a sink.

A list of images is a node whose children are images, artifacts or lists. Blobs other than configs
are not touched here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from coco_kp.errors import InputError, shown
from coco_kp.model.digest import Digest
from coco_kp.model.image_config import ImageConfig, parse_image_config
from coco_kp.model.manifest import (
    MAX_MANIFEST,
    Descriptor,
    ImageIndex,
    ImageManifest,
    Manifest,
    Platform,
)
from coco_kp.model.media_type import DOCKER_CONFIG, OCI_CONFIG, is_files
from coco_kp.transport import Sink, Source, read_blob

MAX_NESTING: Final = 4
"""Lists inside lists at the most; real ones are not nested."""

MAX_BYTES: Final = 16 * 1024 * 1024
"""Bytes of all manifests of an image at the most; real ones have less than a hundredth."""

ATTESTATION: Final = ("vnd.docker.reference.type", "attestation-manifest")
"""The annotation by which BuildKit marks what it attests of another entry of the list."""

_DESCRIBING: Final = (
    "application/vnd.in-toto",
    "application/vnd.dev.cosign.",
    "application/vnd.dsse.",
    "application/vnd.dev.sigstore.",
)


@dataclass(frozen=True, slots=True)
class ImageNode:
    """An image for one platform, or an artifact.

    ``entry`` is the descriptor in the list that points to it, None at the top. ``config`` is None
    where the manifest has no config of an image, or where configs were not asked for.
    """

    manifest: ImageManifest
    entry: Descriptor | None = None
    config: ImageConfig | None = None

    @property
    def platform(self) -> Platform | None:
        """What it runs on, as the list says or else its config."""
        if self.entry and self.entry.platform:
            return self.entry.platform
        return self.config.platform if self.config else None

    @property
    def describes_another(self) -> bool:
        """Whether it is an attestation or a signature: about another image, not one itself."""
        layers = [layer.media_type for layer in self.manifest.layers]
        if any(is_files(kind) for kind in layers):
            return False  # whatever it says of itself: its files must not stay readable
        name, value = ATTESTATION
        marked = self.entry is not None and self.entry.annotations.get(name) == value
        attached = self.manifest.subject is not None
        return marked or attached or any(kind.startswith(_DESCRIBING) for kind in layers)

    def diff_id(self, number: int) -> Digest | None:
        """Give the digest that layer ``number`` has uncompressed, where the config tells.

        What is no layer of files has none: attestations list something else there.
        """
        if not self.config or not self.config.diff_ids:
            return None
        files = is_files(self.manifest.layers[number].media_type)
        return self.config.diff_ids[number] if files else None

    def __str__(self) -> str:
        """Give what a user knows it by: its platform, or else the digest of its manifest."""
        return str(self.platform or self.manifest.digest)


@dataclass(frozen=True, slots=True)
class IndexNode:
    """A list of images."""

    manifest: ImageIndex
    children: tuple[Node, ...]
    entry: Descriptor | None = None


Node = ImageNode | IndexNode


def read_tree(source: Source, top: Descriptor | None = None, *, configs: bool = True) -> Node:
    """Read all manifests that ``top`` or else the source's reference leads to, and the configs.

    Raises ``InputError`` for what cannot be right: lists that are nested too deeply or too large,
    a config that lists another number of layers than its manifest.
    """
    return _Reader(source, configs).node(source.manifest(top), None, 0)


def images(node: Node) -> Iterator[ImageNode]:
    """Give the images and artifacts of a tree, in the order of its lists."""
    if isinstance(node, ImageNode):
        yield node
    else:
        for child in node.children:
            yield from images(child)


def pruned(node: Node, keep: Callable[[ImageNode], bool]) -> Node | None:
    """Give the tree without the images that ``keep`` rejects; None where nothing is left."""
    if isinstance(node, ImageNode):
        return node if keep(node) else None
    kept = [child for child in (pruned(child, keep) for child in node.children) if child]
    return replace(node, children=tuple(kept)) if kept else None


def write_tree(node: Node, new: Mapping[Digest, ImageManifest], sink: Sink) -> Manifest:
    """Store a tree in which the images are those of ``new``, by their digests before; give its top.

    Lists become OCI indexes. What an image points at must have been stored before.
    """
    if isinstance(node, ImageNode):
        manifest: Manifest = new[node.manifest.digest]
    else:
        entries = []
        for child in node.children:
            written = write_tree(child, new, sink).descriptor()
            entry = child.entry or written
            entries.append(
                entry.replaced(
                    media_type=written.media_type, digest=written.digest, size=written.size
                )
            )
        manifest = node.manifest.to_oci().replaced(entries)
    sink.put_manifest(manifest)
    return manifest


class _Reader:
    """Reads one tree; each manifest once, however many lists point to it."""

    def __init__(self, source: Source, configs: bool) -> None:
        self._source = source
        self._configs = configs
        self._bytes = 0

    def node(self, manifest: Manifest, entry: Descriptor | None, depth: int) -> Node:
        self._bytes += len(manifest.raw)
        if self._bytes > MAX_BYTES:
            raise InputError(f"the manifests of {self._source.reference} exceed {MAX_BYTES} bytes")
        if isinstance(manifest, ImageManifest):
            return ImageNode(manifest, entry, self._config(manifest))
        if depth == MAX_NESTING:
            raise InputError(f"{self._source.reference} nests lists of images too deeply")
        children = tuple(
            self.node(self._source.manifest(child), child, depth + 1)
            for child in manifest.manifests
        )
        return IndexNode(manifest, children, entry)

    def _config(self, manifest: ImageManifest) -> ImageConfig | None:
        if not self._configs or manifest.config.media_type not in {OCI_CONFIG, DOCKER_CONFIG}:
            return None
        config = parse_image_config(read_blob(self._source, manifest.config, MAX_MANIFEST))
        if config.diff_ids and len(config.diff_ids) != len(manifest.layers):
            raise InputError(
                f"the image {shown(str(manifest.digest))} has {len(manifest.layers)} layers, "
                f"but its config lists {len(config.diff_ids)}"
            )
        return config
