"""The manifests that decrypting gives, from the encrypted image's and the layers' digests."""

from __future__ import annotations

from collections.abc import Mapping

from coco_kp.image.tree import ImageNode, Node, images
from coco_kp.image.tree_writer import new_tree
from coco_kp.model.digest import Digest
from coco_kp.model.layer_encryption import without_encryption
from coco_kp.model.manifest import ImageManifest, Manifest
from coco_kp.model.media_type import plain_form

LayerKey = tuple[Digest, tuple[tuple[str, str], ...], Digest | None]
"""What tells encrypted layers apart: their bytes, their packets, and what they must decrypt to."""


def layer_key(image: ImageNode, number: int) -> LayerKey:
    """Return what identifies the layer."""
    layer = image.manifest.layers[number]
    return layer.digest, tuple(sorted(layer.annotations.items())), image.diff_id(number)


def restored_tree(tree: Node, plain: Mapping[LayerKey, Digest]) -> tuple[Manifest, ...]:
    """Return the manifests of an encrypted image's ``tree``, decrypted, the top last.

    ``plain`` has the digest of each layer that is decrypted.
    """
    return new_tree(
        tree, {image.manifest.digest: _restored(image, plain) for image in images(tree)}
    )


def _restored(image: ImageNode, plain: Mapping[LayerKey, Digest]) -> ImageManifest:
    layers = []
    for number, layer in enumerate(image.manifest.layers):
        digest = plain.get(layer_key(image, number))
        layers.append(
            layer.replaced(
                media_type=plain_form(layer.media_type),
                digest=digest,
                annotations=without_encryption(layer.annotations),
            )
            if digest
            else layer
        )
    return image.manifest.replaced(layers=layers)
