"""A tree of manifests, written to a sink after some of them have changed.

What points at a manifest follows it to its new digest: the indexes' entries, and what says that it
is about another manifest of the tree, by BuildKit's annotation or as its ``subject`` (image-spec
manifest.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from coco_kp.errors import InputError
from coco_kp.image.tree import DESCRIBED, ImageNode, IndexNode, Node
from coco_kp.model.digest import Digest, parse_digest
from coco_kp.model.lazy_pull import HAS_ZSTD
from coco_kp.model.manifest import (
    MAX_MANIFEST,
    Descriptor,
    ImageIndex,
    ImageManifest,
    Manifest,
)
from coco_kp.model.media_type import ZSTD, compression_of, plain_form
from coco_kp.transport import Sink

MAX_SUBJECTS: Final = 16
"""Manifests at the most of which each is about the next; a signed statement makes two."""


def check_size(size: int, name: str) -> None:
    """Raise ``InputError`` where the manifest of ``name`` would have more bytes than one may."""
    if size > MAX_MANIFEST:
        raise InputError(
            f"the manifest of {name} would have over {MAX_MANIFEST} bytes, which no registry takes",
            "name fewer recipients, or an image of fewer layers or shorter annotations",
        )


def write_tree(node: Node, new: Mapping[Digest, ImageManifest], sink: Sink) -> Manifest:
    """Store the tree that `new_tree` makes, and return its top. Blobs must be there before."""
    return put_manifests(sink, new_tree(node, new))


def put_manifests(sink: Sink, manifests: Sequence[Manifest]) -> Manifest:
    """Store manifests, and return the last."""
    for manifest in manifests:
        sink.put_manifest(manifest)
    return manifests[-1]


def new_tree(node: Node, new: Mapping[Digest, ImageManifest]) -> tuple[Manifest, ...]:
    """Return the manifests of a tree with the images of ``new``, by their digests before.

    Each stands behind those that it points to, the top last. Lists become OCI indexes. Raises
    ``InputError`` where manifests are about others in too long a chain.
    """
    made = _Rewriting(node, new)
    made.written(node.manifest.digest)
    return tuple(made.manifests.values())


class _Rewriting:
    """Makes one tree anew: each manifest once, after those that it points to."""

    def __init__(self, node: Node, new: Mapping[Digest, ImageManifest]) -> None:
        self._nodes = {part.manifest.digest: part for part in _parts(node)}
        self._new = new
        self.manifests: dict[Digest, Manifest] = {}

    def written(self, digest: Digest, depth: int = 0) -> Manifest:
        """Return the manifest that takes the place of the one with this digest."""
        if digest not in self.manifests:
            if depth > MAX_SUBJECTS:
                raise InputError(f"over {MAX_SUBJECTS} manifests are each about the next one")
            node = self._nodes[digest]
            manifest: Manifest = (
                self._image(node, depth) if isinstance(node, ImageNode) else self._list(node, depth)
            )
            check_size(len(manifest.raw), str(node if isinstance(node, ImageNode) else digest))
            self.manifests[digest] = manifest
        return self.manifests[digest]

    def _image(self, node: ImageNode, depth: int) -> ImageManifest:
        manifest = self._new[node.manifest.digest]
        return manifest.replaced(subject=self._following(manifest.subject, depth))

    def _list(self, node: IndexNode, depth: int) -> ImageIndex:
        entries = []
        for child in node.children:
            manifest = self.written(child.manifest.digest, depth)
            written = manifest.descriptor()
            entry = child.entry or written
            annotations = self._described(entry.annotations, depth)
            if written.digest != child.manifest.digest and not _has_zstd(manifest):
                annotations = {n: text for n, text in annotations.items() if n != HAS_ZSTD}
            entries.append(
                entry.replaced(
                    media_type=written.media_type,
                    digest=written.digest,
                    size=written.size,
                    annotations=annotations,
                )
            )
        index = node.manifest.to_oci()
        return index.replaced(entries, self._following(index.subject, depth))

    def _following(self, subject: Descriptor | None, depth: int) -> Descriptor | None:
        """Return what a manifest is about, under its new digest if the tree has it."""
        if subject is None or subject.digest not in self._nodes:
            return subject
        now = self.written(subject.digest, depth + 1).descriptor()
        if now.digest == subject.digest:
            return subject
        return subject.replaced(media_type=now.media_type, digest=now.digest, size=now.size)

    def _described(self, annotations: Mapping[str, str], depth: int) -> Mapping[str, str]:
        """Return an entry's annotations, with the image that it is about under its new digest."""
        try:
            digest = parse_digest(annotations.get(DESCRIBED, ""))
        except InputError:
            return annotations
        if digest not in self._nodes:
            return annotations
        return {**annotations, DESCRIBED: str(self.written(digest, depth + 1).digest)}


def _has_zstd(manifest: Manifest) -> bool:
    """Return whether an image has a layer of zstd; for an index its images decide."""
    return isinstance(manifest, ImageIndex) or any(
        compression_of(plain_form(layer.media_type)) == ZSTD for layer in manifest.layers
    )


def _parts(node: Node) -> Iterator[Node]:
    """Yield all images and indexes of a tree."""
    yield node
    if isinstance(node, IndexNode):
        for child in node.children:
            yield from _parts(child)
