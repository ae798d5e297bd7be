"""An image's config: what it runs on, and the digests of its layers uncompressed.

OCI image specification, config.md. Docker's config has the same members.
"""

from __future__ import annotations

from coco_kp.errors import InputError
from coco_kp.model.digest import Digest, parse_digest
from coco_kp.model.encoding import Members, check_known_once, parse_lenient_object
from coco_kp.model.manifest import MAX_MANIFEST, PLATFORM_MEMBERS, Platform
from coco_kp.values import dataclass


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The members that matter here; ``diff_ids`` is empty where the config has none.

    ``guest_fault`` says why a Confidential Containers guest would refuse the config, or is empty.
    """

    platform: Platform | None
    diff_ids: tuple[Digest, ...]
    guest_fault: str = ""


def parse_image_config(data: bytes) -> ImageConfig:
    """Read a config blob, whatever stands in the members that are of no interest here.

    A config is never written again, so that labels and history may hold what strict readers of
    JSON refuse; the members that are read must have one reading. Raises ``InputError``.
    """
    what = "the image's config"
    document = parse_lenient_object(data, what, MAX_MANIFEST)
    check_known_once(document, (*PLATFORM_MEMBERS, "rootfs"), what)
    return ImageConfig(_platform(document), _diff_ids(document), _guest_fault(data, document))


def _guest_fault(data: bytes, document: Members) -> str:
    """Say what ``oci-client``'s reader misses, by which guests pull (tests/recordings/guest.json).

    That no diff_id is missing is for the reader of the manifest to see.
    """
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "is not UTF-8"
    for name in ("architecture", "os"):
        if not isinstance(document.get(name), str):
            return f"has no '{name}'"
    rootfs = document.get("rootfs")
    if not isinstance(rootfs, dict) or not isinstance(rootfs.get("type"), str):
        return "has no 'rootfs' with a 'type'"
    settings = document.get("config")
    if settings is not None and not isinstance(settings, dict):
        return "has a 'config' that is not an object"
    return _wrong_setting(settings or {})


def _wrong_setting(settings: dict[str, object]) -> str:
    """Name the first member of the kind that readers with types refuse (config.md)."""
    kinds: dict[str, type] = {
        **dict.fromkeys(("User", "WorkingDir", "StopSignal"), str),
        **dict.fromkeys(("Env", "Entrypoint", "Cmd"), list),
        **dict.fromkeys(("ExposedPorts", "Volumes", "Labels"), dict),
    }
    for name, kind in kinds.items():
        if settings.get(name) is not None and not isinstance(settings[name], kind):
            return f"has '{name}' of the wrong kind in its 'config'"
    return ""


def _platform(document: Members) -> Platform | None:
    match dict(document):
        case {"os": str(os), "architecture": str(architecture)} if os and architecture:
            variant = document.get("variant")
            return Platform(os, architecture, variant if isinstance(variant, str) else None)
    return None


def _diff_ids(document: Members) -> tuple[Digest, ...]:
    rootfs = document.get("rootfs") or {}
    if isinstance(rootfs, Members):
        check_known_once(rootfs, ("type", "diff_ids"), "the 'rootfs' of the image's config")
    diff_ids = rootfs.get("diff_ids") or [] if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(isinstance(text, str) for text in diff_ids):
        raise InputError("the 'rootfs' of the image's config has no list of diff_ids")
    return tuple(parse_digest(text) for text in diff_ids)
