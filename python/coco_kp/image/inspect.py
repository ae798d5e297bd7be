"""Show what an image's manifests tell of its encryption. No key is needed, no layer is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coco_kp.errors import InputError
from coco_kp.image.facts import LayerFacts, layer_facts, sample_findings
from coco_kp.image.tree import IndexNode, Node, images, read_tree
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import Descriptor
from coco_kp.model.reference import parse_image_reference
from coco_kp.transport import Access, open_source

if TYPE_CHECKING:
    from coco_kp.transport.registry.session import Session


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image for one platform (None where the manifests do not tell), or an artifact.

    ``describes_another``: it is an attestation or a signature.
    """

    platform: str | None
    digest: Digest
    media_type: str
    describes_another: bool
    layers: tuple[LayerFacts, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """All images that a reference leads to. ``digest`` and ``media_type`` are its own.

    ``missing`` are entries of indexes whose manifests are not there.
    """

    reference: str
    digest: Digest
    media_type: str
    images: tuple[ImageFacts, ...]
    missing: tuple[Descriptor, ...] = ()


def inspect_image(
    image: str, *, access: Access | None = None, session: Session | None = None
) -> Inspection:
    """Inspect the image that ``image`` names as skopeo does.

    Only manifests are read, and no key is needed. ``access`` says how a registry is reached; many
    images share a ``session``. What is odd about the image becomes a finding, and a manifest that
    an index names but that is not there does not hide the others.

    Raises ``InputError`` for a reference, and where it leads to no image, ``IntegrityError`` for a
    manifest of another digest, ``RemoteError`` for a registry.
    """
    with open_source(parse_image_reference(image), access, session) as source:
        tree = read_tree(source, configs=False, incomplete=True)
        found = tuple(
            ImageFacts(
                str(node.platform) if node.platform else None,
                node.manifest.digest,
                node.manifest.media_type,
                node.describes_another,
                tuple(_facts(number, layer) for number, layer in enumerate(node.manifest.layers)),
            )
            for node in images(tree)
        )
        missing = tuple(_missing(tree))
        if missing and not found:
            raise InputError(f"{source.reference} lacks all manifests that it lists")
        top = tree.manifest
        return Inspection(source.reference, top.digest, top.media_type, found, missing)


def _missing(node: Node) -> Iterator[Descriptor]:
    if isinstance(node, IndexNode):
        yield from node.missing
        for child in node.children:
            yield from _missing(child)


def _facts(number: int, layer: Descriptor) -> LayerFacts:
    facts = layer_facts(number, layer)
    return replace(facts, findings=(*facts.findings, *sample_findings(facts)))
