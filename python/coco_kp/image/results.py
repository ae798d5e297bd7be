"""What operations on an image say that they made: plain values, and the documents of commands."""

from __future__ import annotations

from collections.abc import Iterable

from coco_kp.image.facts import layer_facts
from coco_kp.image.plan import ImagePlan, LayerAction, LeftOut
from coco_kp.image.tree import ImageNode
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import Descriptor, ImageManifest
from coco_kp.values import dataclass


@dataclass(frozen=True, slots=True)
class LayerResult:
    """What was done with a layer.

    Attributes:
        number: The layer's, from 0.
        digest: Of what was written; None where nothing was.
        kids: The key IDs of its packets; of another tool's packet its scheme.
        action: What was done.
        transcoded: Whether it was compressed anew, with gzip.
        media_type: The source's.
        source_digest: The source's.
        size: Bytes of the source's blob.
        written: Bytes of the new blob, 0 where none was written.
    """

    number: int
    digest: Digest | None
    kids: tuple[str, ...]
    action: LayerAction
    transcoded: bool
    media_type: str
    source_digest: Digest
    size: int
    written: int

    def to_json(self) -> dict[str, object]:
        """Return it as the document of ``encrypt`` has it."""
        return {
            "number": self.number,
            "digest": _text(self.digest),
            "kids": list(self.kids),
            "action": self.action.name.lower(),
            "readable": self.action.readable,
            "transcoded": self.transcoded,
            "media_type": self.media_type,
            "source_digest": str(self.source_digest),
            "size": self.size,
        }


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What was done with an image.

    Attributes:
        name: What messages call it: its platform, if it has one.
        platform: What it runs on; None where that is not known.
        source_digest: Of the source's manifest.
        digest: Of the new manifest; None where nothing was written.
        layers: What was done with each layer.
    """

    name: str
    platform: str | None
    source_digest: Digest
    digest: Digest | None
    layers: tuple[LayerResult, ...]

    def to_json(self) -> dict[str, object]:
        """Return it as the document of ``encrypt`` has it."""
        return {
            "platform": self.platform,
            "source_digest": str(self.source_digest),
            "digest": _text(self.digest),
            "layers": [layer.to_json() for layer in self.layers],
        }


@dataclass(frozen=True, slots=True)
class EncryptionResult:
    """What was made, or would be made where ``digest`` is None.

    Attributes:
        destination: The new image's name.
        digest: Of its manifest or index; None after a dry run.
        key_ids: For whom its layers have packets, those that were kept as they were included; of
            another tool's packet its scheme.
        images: What was done with each image.
        attestations: The digests of those that were kept, and are readable.
        left_out: Entries of an index that were not written.
        notices: What the user should know.
    """

    destination: str
    digest: Digest | None
    key_ids: tuple[str, ...]
    images: tuple[ImageResult, ...]
    attestations: tuple[Digest, ...]
    left_out: tuple[LeftOut, ...]
    notices: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return the document that ``schemas/encrypt.schema.json`` describes."""
        return {
            "destination": self.destination,
            "digest": _text(self.digest),
            "dry_run": self.digest is None,
            "key_ids": list(self.key_ids),
            "images": [image.to_json() for image in self.images],
            "attestations": list(map(str, self.attestations)),
            "left_out": [
                {
                    "digest": str(entry.digest),
                    "platform": _text(entry.platform),
                    "what": entry.what,
                }
                for entry in self.left_out
            ],
            "notices": list(self.notices),
        }


@dataclass(frozen=True, slots=True)
class RewrappedLayer:
    """A layer, and for whom it is encrypted now.

    Attributes:
        number: The layer's, from 0.
        digest: The layer's, which does not change.
        kids: The key IDs of its packets; of another tool's packet its scheme.
    """

    number: int
    digest: Digest
    kids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RewrappedImage:
    """An image that was written.

    Attributes:
        platform: What it runs on; None where that is not known.
        digest: Of its new manifest.
        layers: Those of the image.
    """

    platform: str | None
    digest: Digest
    layers: tuple[RewrappedLayer, ...]


@dataclass(frozen=True, slots=True)
class RewrapResult:
    """What was made, or would be made where ``digest`` is None.

    Attributes:
        destination: The image's name.
        digest: Of its new manifest or index; None after a dry run.
        rewrapped: How many layers got new packets.
        recipients: Who has a packet now: key IDs; of another tool's packet its scheme.
        images: Those that were written.
    """

    destination: str
    digest: Digest | None
    rewrapped: int
    recipients: tuple[str, ...]
    images: tuple[RewrappedImage, ...]

    def to_json(self) -> dict[str, object]:
        """Return the document that ``schemas/rewrap.schema.json`` describes."""
        return {
            "destination": self.destination,
            "digest": _text(self.digest),
            "dry_run": self.digest is None,
            "rewrapped": self.rewrapped,
            "recipients": list(self.recipients),
            "images": [
                {
                    "platform": image.platform,
                    "digest": str(image.digest),
                    "layers": [
                        {
                            "number": layer.number,
                            "digest": str(layer.digest),
                            "kids": list(layer.kids),
                        }
                        for layer in image.layers
                    ],
                }
                for image in self.images
            ],
        }


def image_result(plan: ImagePlan, written: ImageManifest | None) -> ImageResult:
    """Return what ``plan`` became."""
    layers = []
    for layer in plan.layers:
        new = written.layers[layer.number] if written else None
        layers.append(
            LayerResult(
                layer.number,
                new.digest if new else None,
                _kids(layer.number, new) if new else (),
                layer.action,
                layer.transcode,
                layer.layer.media_type,
                layer.layer.digest,
                layer.layer.size,
                new.size if new else 0,
            )
        )
    return ImageResult(
        str(plan.image),
        _text(plan.image.platform),
        plan.image.manifest.digest,
        written.digest if written else None,
        tuple(layers),
    )


def rewrapped_images(images: Iterable[ImageNode]) -> tuple[RewrappedImage, ...]:
    """Return each image that was written once."""
    return tuple(
        RewrappedImage(
            _text(image.platform),
            image.manifest.digest,
            tuple(
                RewrappedLayer(number, layer.digest, _kids(number, layer))
                for number, layer in enumerate(image.manifest.layers)
            ),
        )
        for image in {image.manifest.digest: image for image in images}.values()
    )


def _kids(number: int, layer: Descriptor) -> tuple[str, ...]:
    return tuple(packet.name for packet in layer_facts(number, layer).packets)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
