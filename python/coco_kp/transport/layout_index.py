"""``index.json`` of an OCI layout: the images in it, by name (image-spec image-layout.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from coco_kp.errors import InputError
from coco_kp.model.digest import Digest
from coco_kp.model.encoding import check_one_reading, parse_json_object, write_json
from coco_kp.model.manifest import Descriptor, ImageIndex, parse_manifest
from coco_kp.model.media_type import OCI_INDEX
from coco_kp.model.reference import FileReference
from coco_kp.redact import shown

REF_NAME: Final = "org.opencontainers.image.ref.name"
"""The annotation that names an image in a layout (image-spec annotations.md)."""

LAYOUT_FILE: Final = "oci-layout"
LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
INDEX_FILE: Final = "index.json"
EMPTY_INDEX: Final = write_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})


def blob_name(digest: Digest) -> str:
    """Return the path of a blob inside a layout."""
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
    """Return the name of each image, None for one without."""
    return [entry.annotations.get(REF_NAME) for entry in index.manifests]


def find_image(index: ImageIndex, reference: FileReference) -> Descriptor | ImageIndex:
    """Pick an image by its name or position, or the only one where neither is given.

    Several of one name that are for different platforms are one image: their index is returned.
    """
    found = _entries(index, reference)
    if len(found) == 1:
        return found[0]
    names = {entry.annotations.get(REF_NAME) for entry in found}
    if len(names) == 1 and None not in names and _differ(found):
        return index.replaced([_without_name(entry) for entry in found])
    known = [
        shown(name) if name is not None else f"'@{position}'"
        for position, name in enumerate(image_names(index))
    ]
    hint = f"it has {', '.join(known) or 'no images'}"
    if reference.name is None and found:
        raise InputError(f"{reference} holds {len(found)} images", f"name one: {hint}")
    if found:
        raise InputError(f"{reference} is the name of {len(found)} images at once", hint)
    if known == ["'@0'"]:
        hint = "it has one image, without a name: leave the name out"
    raise InputError(f"{reference} does not exist in there", hint)


def _entries(index: ImageIndex, reference: FileReference) -> Sequence[Descriptor]:
    if reference.position is not None:
        return index.manifests[reference.position : reference.position + 1]
    if reference.name is None:
        return index.manifests
    return [entry for entry in index.manifests if entry.annotations.get(REF_NAME) == reference.name]


def _differ(entries: Sequence[Descriptor]) -> bool:
    platforms = {entry.platform for entry in entries}
    return None not in platforms and len(platforms) == len(entries)


def _without_name(entry: Descriptor) -> Descriptor:
    kept = {name: value for name, value in entry.annotations.items() if name != REF_NAME}
    return entry.replaced(annotations=kept)


def digest_of_image(index: ImageIndex, reference: FileReference) -> Digest | None:
    """Return the digest of the image that `find_image` finds, None where it finds none."""
    try:
        return find_image(index, reference).digest
    except InputError:
        return None


def with_image(index: ImageIndex, image: Descriptor, name: str | None) -> ImageIndex:
    """Return an index in which ``name`` points to ``image``, whatever it pointed to before."""
    check_room(index, name)
    kept = [entry for entry in index.manifests if entry.annotations.get(REF_NAME) != name]
    return index.replaced([*kept, image.replaced(annotations={REF_NAME: name} if name else {})])


def check_writable(reference: FileReference) -> None:
    """Refuse to write to a position: what is there has a name, or is the only one."""
    if reference.position is not None:
        raise InputError(f"{reference} cannot be written", "name the image: oci:path:name")


def check_room(index: ImageIndex, name: str | None) -> None:
    """Refuse an image without a name beside others: nobody could ask for it any more."""
    named = [known for known in image_names(index) if known is not None]
    if name is None and named:
        raise InputError(
            f"the layout holds {len(named)} named images, one without a name cannot join them",
            "name the image: oci:path:name",
        )
