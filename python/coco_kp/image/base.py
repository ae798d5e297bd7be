"""The layers that an image has from its base, which everybody may read.

A config is its writer's word, and the diff_ids of a secret layer stand in clear in every published
image: whoever writes the base could name them. So a base has a layer only if it holds its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from coco_kp.image.tree import ImageNode, images, read_tree
from coco_kp.model.digest import Digest
from coco_kp.model.manifest import Descriptor
from coco_kp.model.media_type import is_encrypted
from coco_kp.transport import Source
from coco_kp.values import dataclass


@dataclass(frozen=True, slots=True)
class SharedLayer:
    """A layer that an image seems to have from its base.

    ``content`` is its diff_id, where the two are compressed in different ways. ``claimed`` tells
    that only the base's own bytes prove that it has the layer.
    """

    layer: Descriptor
    content: Digest | None
    claimed: bool


@dataclass(frozen=True, slots=True)
class BaseLayers:
    """The images of a base, one for each platform, and where they lie."""

    images: tuple[ImageNode, ...] = ()
    source: Source | None = None

    def shared(self, image: ImageNode) -> dict[int, SharedLayer]:
        """Return by number the layers, the first ones of ``image``, that its base has as well."""
        found = (dict(enumerate(_shared(image, base))) for base in self.images)
        return max(found, key=len, default={})


def base_layers(source: Source) -> BaseLayers:
    """Read the manifests of a base image."""
    return BaseLayers(tuple(images(read_tree(source))), source)


def _shared(image: ImageNode, base: ImageNode) -> Iterator[SharedLayer]:
    published = set(image.config.diff_ids) if image.config else set()
    for number, (mine, theirs) in enumerate(
        zip(image.manifest.layers, base.manifest.layers, strict=False)
    ):
        content = image.diff_id(number)
        if is_encrypted(mine.media_type) or is_encrypted(theirs.media_type):
            return
        if mine.urls or theirs.urls:  # nobody could read there what the base is to prove
            return
        if mine.digest == theirs.digest:
            # Of an uncompressed layer, the digest is published as its diff_id.
            yield SharedLayer(theirs, None, mine.digest in published)
        elif content is not None and content == base.diff_id(number):
            yield SharedLayer(theirs, content, claimed=True)
        else:
            return
