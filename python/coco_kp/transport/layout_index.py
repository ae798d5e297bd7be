"""``index.json`` of an OCI layout: the images in it, by name (image-spec image-layout.md)."""

from __future__ import annotations

from typing import Final

from coco_kp.errors import InputError, shown
from coco_kp.model.digest import Digest
from coco_kp.model.encoding import check_one_reading, parse_json_object, write_json
from coco_kp.model.manifest import Descriptor, ImageIndex, parse_manifest
from coco_kp.model.media_type import OCI_INDEX

REF_NAME: Final = "org.opencontainers.image.ref.name"
"""The annotation that names an image in a layout (image-spec annotations.md)."""

LAYOUT_FILE: Final = "oci-layout"
LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
INDEX_FILE: Final = "index.json"
EMPTY_INDEX: Final = write_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})


def blob_name(digest: Digest) -> str:
    """Give the path of a blob inside a layout."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def check_layout(data: bytes, reference: str) -> None:
    """Refuse a layout of a version that is not ours. Raises ``InputError``."""
    what = f"'{LAYOUT_FILE}' of {reference}"
    document = parse_json_object(data, what)
    check_one_reading(document, ("imageLayoutVersion",), what)
    version = document.get("imageLayoutVersion")
    if version != "1.0.0":
        raise InputError(f"{reference} has layout version {shown(str(version))}, expected '1.0.0'")


def parse_layout_index(data: bytes) -> ImageIndex:
    """Read ``index.json``. Raises ``InputError``."""
    index = parse_manifest(data, OCI_INDEX)
    if not isinstance(index, ImageIndex):
        raise InputError(f"'{INDEX_FILE}' is not an index")
    return index


def image_names(index: ImageIndex) -> list[str | None]:
    """Give the name of each image, None for one without."""
    return [entry.annotations.get(REF_NAME) for entry in index.manifests]


def find_image(index: ImageIndex, name: str | None, reference: str) -> Descriptor:
    """Pick an image by its name, or the only one where no name is given."""
    found = [
        entry
        for entry in index.manifests
        if name is None or entry.annotations.get(REF_NAME) == name
    ]
    if len(found) == 1:
        return found[0]
    names = [shown(known) for known in image_names(index) if known is not None]
    hint = f"it has {', '.join(names) or 'no named images'}"
    if name is None and found:
        raise InputError(f"{reference} holds {len(found)} images", f"name one: {hint}")
    if found:
        raise InputError(f"{reference} is the name of {len(found)} images at once")
    raise InputError(f"{reference} does not exist in there", hint)


def digest_of_image(index: ImageIndex, name: str | None) -> Digest | None:
    """Return the digest of the image that `find_image` finds, None where it finds none."""
    try:
        return find_image(index, name, "").digest
    except InputError:
        return None


def with_image(index: ImageIndex, image: Descriptor, name: str | None) -> ImageIndex:
    """Give an index in which ``name`` points to ``image``, whatever it pointed to before."""
    check_room(index, name)
    kept = [entry for entry in index.manifests if entry.annotations.get(REF_NAME) != name]
    return index.replaced([*kept, image.replaced(annotations={REF_NAME: name} if name else {})])


def check_room(index: ImageIndex, name: str | None) -> None:
    """Refuse an image without a name beside others: nobody could ask for it any more."""
    named = [known for known in image_names(index) if known is not None]
    if name is None and named:
        raise InputError(
            f"the layout holds {len(named)} named images, one without a name cannot join them",
            "name the image: oci:path:name",
        )
