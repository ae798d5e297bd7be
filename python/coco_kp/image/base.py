"""The layers of a base image, which everybody may read."""

from __future__ import annotations

from dataclasses import dataclass

from coco_kp.image.tree import Node, images
from coco_kp.model.digest import Digest


@dataclass(frozen=True, slots=True)
class BaseLayers:
    """The layers of a base image, by their digests and by those of their content."""

    digests: frozenset[Digest] = frozenset()
    diff_ids: frozenset[Digest] = frozenset()


def base_layers(base: Node) -> BaseLayers:
    """Give the layers of a base image, on all its platforms."""
    found = list(images(base))
    return BaseLayers(
        frozenset(layer.digest for image in found for layer in image.manifest.layers),
        frozenset(diff_id for image in found if image.config for diff_id in image.config.diff_ids),
    )
