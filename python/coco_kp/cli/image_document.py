"""What documents of several commands say of an image that was written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coco_kp.image.tree import ImageNode
    from coco_kp.model.manifest import Descriptor


def image_documents(images: Iterable[ImageNode]) -> list[dict[str, object]]:
    """Return each image with its layers and who opens them."""
    return [
        {
            "platform": str(image.platform) if image.platform else None,
            "digest": str(image.manifest.digest),
            "layers": [
                {"number": number, "digest": str(layer.digest), "kids": kids(number, layer)}
                for number, layer in enumerate(image.manifest.layers)
            ],
        }
        for image in {image.manifest.digest: image for image in images}.values()
    ]


def kids(number: int, layer: Descriptor) -> list[str]:
    """Return the key IDs, or schemes of other tools, of a layer's packets."""
    from coco_kp.image.facts import layer_facts

    return [packet.name for packet in layer_facts(number, layer).packets]
