"""Show what an image's manifests tell of its encryption. No key is needed, no layer is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from coco_kp.errors import Advice, CocoKpError, InputError
from coco_kp.image.cancellation import Cancellation, heeding
from coco_kp.image.facts import PacketFacts, layer_facts, sample_findings
from coco_kp.image.tree import IndexNode, Node, images, read_tree
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import Descriptor, Platform
from coco_kp.model.reference import parse_image_reference
from coco_kp.transport import Access, open_source
from coco_kp.values import dataclass

if TYPE_CHECKING:
    from coco_kp.transport.registry.session import Session


@dataclass(frozen=True, slots=True)
class InspectedLayer:
    """A layer as its descriptor shows it.

    Attributes:
        number: The layer's, from 0.
        digest: Of the blob.
        size: Bytes of the blob.
        media_type: Of the blob.
        encrypted: Whether the media type says so.
        cipher: ``AES_256_CTR_HMAC_SHA256``; empty where none is known.
        packets: For whom it is encrypted.
        findings: What is odd, as errors that were not raised.
    """

    number: int
    digest: Digest
    size: int
    media_type: str
    encrypted: bool
    cipher: str
    packets: tuple[PacketFacts, ...]
    findings: tuple[CocoKpError, ...]

    def to_json(self, advice: Advice | None = None) -> dict[str, object]:
        """Return it as the document of ``inspect`` has it."""
        return {
            "number": self.number,
            "digest": str(self.digest),
            "size": self.size,
            "media_type": self.media_type,
            "encrypted": self.encrypted,
            "cipher": self.cipher or None,
            "recipients": [packet.to_json() for packet in self.packets],
            "findings": [finding.to_json(advice) for finding in self.findings],
        }


@dataclass(frozen=True, slots=True)
class InspectedImage:
    """An image, or an artifact.

    Attributes:
        platform: What it runs on; None where the manifests do not tell.
        digest: Of its manifest.
        media_type: Of its manifest.
        describes_another: Whether it is an attestation or a signature.
        layers: Those of the image.
    """

    platform: str | None
    digest: Digest
    media_type: str
    describes_another: bool
    layers: tuple[InspectedLayer, ...]

    def to_json(self, advice: Advice | None = None) -> dict[str, object]:
        """Return it as the document of ``inspect`` has it."""
        return {
            "platform": self.platform,
            "digest": str(self.digest),
            "media_type": self.media_type,
            "attestation": self.describes_another,
            "layers": [layer.to_json(advice) for layer in self.layers],
        }


@dataclass(frozen=True, slots=True)
class MissingImage:
    """An entry of an index whose manifest is not there.

    Attributes:
        platform: What it runs on; None where the index does not say.
        digest: Of the manifest.
        media_type: Of the manifest.
    """

    platform: str | None
    digest: Digest
    media_type: str

    def to_json(self) -> dict[str, object]:
        """Return it as the document of ``inspect`` has it."""
        return {
            "platform": self.platform,
            "digest": str(self.digest),
            "media_type": self.media_type,
        }


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a reference leads to.

    Attributes:
        reference: The image's name.
        digest: Of its manifest or index.
        media_type: Of its manifest or index.
        images: All images of an index, or the one.
        missing: Entries of indexes whose manifests are not there.
    """

    reference: str
    digest: Digest
    media_type: str
    images: tuple[InspectedImage, ...]
    missing: tuple[MissingImage, ...] = ()

    def to_json(self, advice: Advice | None = None) -> dict[str, object]:
        """Return the document that ``schemas/inspect.schema.json`` describes.

        ``advice`` words the hints of findings, by default their own.
        """
        return {
            "reference": self.reference,
            "digest": str(self.digest),
            "media_type": self.media_type,
            "images": [image.to_json(advice) for image in self.images],
            "missing": [image.to_json() for image in self.missing],
        }


def inspect_image(
    image: str,
    *,
    access: Access | None = None,
    session: Session | None = None,
    cancel: Cancellation | None = None,
) -> Inspection:
    """Say what of an image is encrypted, and for whom.

    Only manifests are read, and no key is needed. What is odd about the image becomes
    a finding, and a manifest that an index names but that is not there does not hide the others.

    Args:
        image: The image, named as skopeo names it.
        access: How the image's registry is reached.
        session: What many images share on their way to registries.
        cancel: What another thread ends the call with, which then raises ``CancelledError``.

    Raises:
        InputError: The name is not one, or leads to no image.
        IntegrityError: A manifest has another digest than it should.
        RemoteError: A registry failed.
    """
    with heeding(cancel), open_source(parse_image_reference(image), access, session) as source:
        tree = read_tree(source, configs=False, incomplete=True)
        found = tuple(
            InspectedImage(
                _text(node.platform),
                node.manifest.digest,
                node.manifest.media_type,
                node.describes_another,
                tuple(_layer(number, layer) for number, layer in enumerate(node.manifest.layers)),
            )
            for node in images(tree)
        )
        missing = tuple(_missing(tree))
        if missing and not found:
            raise InputError(f"{source.reference} lacks all manifests that it lists")
        top = tree.manifest
        return Inspection(source.reference, top.digest, top.media_type, found, missing)


def _missing(node: Node) -> Iterator[MissingImage]:
    if isinstance(node, IndexNode):
        for entry in node.missing:
            yield MissingImage(_text(entry.platform), entry.digest, entry.media_type)
        for child in node.children:
            yield from _missing(child)


def _layer(number: int, layer: Descriptor) -> InspectedLayer:
    facts = layer_facts(number, layer)
    return InspectedLayer(
        number,
        layer.digest,
        layer.size,
        layer.media_type,
        facts.encrypted,
        facts.cipher,
        facts.packets,
        (*facts.findings, *sample_findings(facts)),
    )


def _text(platform: Platform | None) -> str | None:
    return str(platform) if platform else None
