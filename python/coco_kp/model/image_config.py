"""An image's config: what it runs on, and the digests of its layers uncompressed.

OCI image specification, config.md. Docker's config has the same members.
"""

from __future__ import annotations

from dataclasses import dataclass

from coco_kp.errors import InputError
from coco_kp.model.digest import Digest, parse_digest
from coco_kp.model.encoding import parse_json_object
from coco_kp.model.manifest import MAX_MANIFEST, Platform


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The members that matter here; ``diff_ids`` is empty where the config has none."""

    platform: Platform | None
    diff_ids: tuple[Digest, ...]


def parse_image_config(data: bytes) -> ImageConfig:
    """Read a config blob; members of no interest here are ignored. Raises ``InputError``."""
    document = parse_json_object(data, "the image's config", MAX_MANIFEST)
    return ImageConfig(_platform(document), _diff_ids(document))


def _platform(document: dict[str, object]) -> Platform | None:
    match document:
        case {"os": str(os), "architecture": str(architecture)} if os and architecture:
            variant = document.get("variant")
            return Platform(os, architecture, variant if isinstance(variant, str) else None)
    return None


def _diff_ids(document: dict[str, object]) -> tuple[Digest, ...]:
    rootfs = document.get("rootfs") or {}
    diff_ids = rootfs.get("diff_ids") or [] if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(isinstance(text, str) for text in diff_ids):
        raise InputError("the 'rootfs' of the image's config has no list of diff_ids")
    return tuple(parse_digest(text) for text in diff_ids)
