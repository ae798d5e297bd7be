"""An image's manifests as a tree of values, read from a source.

An index is a node whose children are images, artifacts or indexes. Blobs other than configs
are not touched here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from operator import not_
from typing import Final

from coco_kp.errors import CocoKpError, InputError, MissingManifestError
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
from coco_kp.model.media_type import (
    DOCKER_CONFIG,
    OCI_CONFIG,
    OCI_EMPTY,
    is_attestation,
    is_files,
    is_soci_index,
)
from coco_kp.redact import shown
from coco_kp.transport import Source, read_blob
from coco_kp.values import dataclass, replace

MAX_NESTING: Final = 4
"""Indexes inside indexes at the most; real ones are not nested."""

MAX_BYTES: Final = 16 * 1024 * 1024
"""Bytes of all manifests of an image at the most; real ones have less than a hundredth."""

DESCRIBED: Final = "vnd.docker.reference.digest"
"""The annotation by which BuildKit names the entry of the index that an attestation is about."""

_CONFIGS: Final = (OCI_CONFIG, DOCKER_CONFIG)


@dataclass(frozen=True, slots=True)
class ImageNode:
    """An image for one platform, or an artifact.

    ``entry`` is the descriptor in the index that points to it, None at the top. ``config`` is None
    where the manifest has no config of an image, or where configs were not asked for.
    """

    manifest: ImageManifest
    entry: Descriptor | None = None
    config: ImageConfig | None = None

    @property
    def platform(self) -> Platform | None:
        """What it runs on, as the index says or else its config."""
        if self.entry and self.entry.platform and self.entry.platform.whole:
            return self.entry.platform
        return self.config.platform if self.config else None

    @property
    def describes_another(self) -> bool:
        """Whether it is an attestation or a signature: about another image, not one itself."""
        # What it says of itself, by a mark or a subject, counts for nothing: readers pick an entry
        # by its platform, and unpack layers of types that they do not know.
        layers, config = self.manifest.layers, self.manifest.config.media_type
        described = (self.entry, self.config)  # either may have a platform
        diff_ids = self.config.diff_ids if self.config else ()
        return (
            bool(layers)
            and all(is_attestation(layer.media_type) and not layer.urls for layer in layers)
            and (config in (*_CONFIGS, OCI_EMPTY) or is_attestation(config))
            and all(is_no_platform(part.platform) for part in described if part)
            and {layer.digest for layer in layers}.issuperset(diff_ids)
        )

    @property
    def is_soci_index(self) -> bool:
        """Whether it is not an image, but SOCI's index of one."""
        types = (self.manifest.artifact_type or "", self.manifest.config.media_type)
        return any(map(is_soci_index, types))

    def diff_id(self, number: int) -> Digest | None:
        """Return the digest that layer ``number`` has uncompressed, where the config tells.

        Only layers of files have one: attestations list something else there.
        """
        if not self.config or not self.config.diff_ids:
            return None
        files = is_files(self.manifest.layers[number].media_type)
        return self.config.diff_ids[number] if files else None

    def __str__(self) -> str:
        """Return the name that users know: its platform, or else the digest of its manifest."""
        return str(self.platform or self.manifest.digest)


@dataclass(frozen=True, slots=True)
class IndexNode:
    """An index of images.

    ``unread`` are its entries that were not asked for, ``missing`` those that are not there.
    """

    manifest: ImageIndex
    children: tuple[Node, ...]
    entry: Descriptor | None = None
    unread: tuple[Descriptor, ...] = ()
    missing: tuple[Descriptor, ...] = ()


Node = ImageNode | IndexNode


Selection = Callable[[Sequence[Descriptor]], Sequence[bool]]
"""Says of each entry of an index whether it is to be read."""


def read_tree(
    source: Source,
    top: Descriptor | None = None,
    *,
    configs: bool = True,
    select: Selection | None = None,
    incomplete: bool = False,
) -> Node:
    """Read all manifests that ``top`` or else the source's reference leads to, and the configs.

    With ``select``, only those that it picks of each index, so that the others need not be there;
    with ``incomplete`` none need be. Raises ``MissingManifestError`` for one that is not there,
    ``InputError`` for what cannot be right: indexes that are nested too deeply or too large, a
    config that lists another number of layers than its manifest.
    """
    return _Reader(source, configs, select, incomplete).node(source.manifest(top), None, 0)


def is_no_platform(platform: Platform | None) -> bool:
    """Return whether an image for ``platform`` runs nowhere: BuildKit's word is ``unknown``."""
    return platform is None or (platform.os, platform.architecture) == ("unknown", "unknown")


def images(node: Node) -> Iterator[ImageNode]:
    """Yield the images and artifacts of a tree, in the order of its indexes."""
    if isinstance(node, ImageNode):
        yield node
    else:
        for child in node.children:
            yield from images(child)


def pruned(node: Node, keep: Callable[[ImageNode], bool]) -> Node | None:
    """Return the tree without the images that ``keep`` rejects; None where nothing is left."""
    if isinstance(node, ImageNode):
        return node if keep(node) else None
    kept = [child for child in (pruned(child, keep) for child in node.children) if child]
    return replace(node, children=tuple(kept)) if kept else None


class _Reader:
    """Reads one tree; each manifest once, however many indexes point to it."""

    def __init__(
        self, source: Source, configs: bool, select: Selection | None, incomplete: bool
    ) -> None:
        self._source = source
        self._incomplete = incomplete
        self._configs = configs
        self._select = select
        self._bytes = 0
        self._read: dict[tuple[Digest, int, str], Manifest] = {}
        self._configs_read: dict[Digest, ImageConfig | None] = {}

    def node(self, manifest: Manifest, entry: Descriptor | None, depth: int) -> Node:
        self._bytes += len(manifest.raw)
        if self._bytes > MAX_BYTES:
            raise InputError(f"the manifests of {self._source.reference} exceed {MAX_BYTES} bytes")
        if isinstance(manifest, ImageManifest):
            if manifest.digest not in self._configs_read:
                self._configs_read[manifest.digest] = self._config(manifest)
            return ImageNode(manifest, entry, self._configs_read[manifest.digest])
        if depth == MAX_NESTING:
            raise InputError(f"{self._source.reference} nests indexes too deeply")
        entries = manifest.manifests
        wanted = self._select(entries) if self._select else [True] * len(entries)
        children, missing = [], []
        for child in compress(entries, wanted):
            try:
                found = self._manifest(child)
            except MissingManifestError:
                if not self._incomplete:
                    raise
                missing.append(child)
            else:
                children.append(self.node(found, child, depth + 1))
        unread = tuple(compress(entries, map(not_, wanted)))
        return IndexNode(manifest, tuple(children), entry, unread, tuple(missing))

    def _manifest(self, entry: Descriptor) -> Manifest:
        key = entry.digest, entry.size, entry.media_type
        if key not in self._read:
            try:
                self._read[key] = self._source.manifest(entry)
            except CocoKpError as error:
                if entry.platform:
                    where = f"the entry for {shown(str(entry.platform))}"
                    raise error.within(where) from None
                raise
        return self._read[key]

    def _config(self, manifest: ImageManifest) -> ImageConfig | None:
        if not self._configs or manifest.config.media_type not in _CONFIGS:
            return None
        config = parse_image_config(read_blob(self._source, manifest.config, MAX_MANIFEST))
        if config.diff_ids and len(config.diff_ids) != len(manifest.layers):
            raise InputError(
                f"the image {shown(str(manifest.digest))} has {len(manifest.layers)} layers, "
                f"but its config lists {len(config.diff_ids)}"
            )
        return config


def layer_names(tree: Node) -> dict[str, str]:
    """Return, by a layer's digest, its place as people count: ``linux/amd64 2/5``."""
    names: dict[str, str] = {}
    for image in images(tree):
        count = len(image.manifest.layers)
        for number, layer in enumerate(image.manifest.layers, 1):
            names.setdefault(str(layer.digest), f"{image.platform or 'layer'} {number}/{count}")
    return names
