"""Manifests, indexes and descriptors as values over their exact bytes.

OCI image specification (manifest.md, image-index.md, descriptor.md), Docker image manifest
version 2 schema 2. What a document holds beyond the members named here is kept: a changed manifest
differs from its source only where something was changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from coco_kp.errors import InputError
from coco_kp.model.digest import Digest, parse_digest
from coco_kp.model.encoding import check_one_reading, member, parse_json_object, write_json
from coco_kp.model.media_type import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    DOCKER_SCHEMA1,
    INDEXES,
    MANIFESTS,
    OCI_INDEX,
    OCI_MANIFEST,
    is_encrypted,
    oci_equivalent,
)
from coco_kp.redact import shown
from coco_kp.values import dataclass, field

MAX_MANIFEST: Final = 4 * 1024 * 1024
"""Bytes of a manifest or an image's config; registries and c/image draw the line here too."""

MAX_BLOB: Final = 2**63 - 1
"""Bytes; the largest size that a Go program can read."""


_MANIFEST_MEMBERS: Final = (
    *("schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject"),
    "annotations",
    *("blobs", "fsLayers", "history", "signatures"),  # of formats that readers tell by these
)
"""The members of manifests and indexes of all kinds: which kind it is, readers tell by them."""

_DESCRIPTOR_MEMBERS: Final = (
    *("mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType"),
)
PLATFORM_MEMBERS: Final = ("architecture", "os", "os.version", "os.features", "variant", "features")
"""The members that say what an image runs on, in an index's entries and in configs."""

_PLATFORM_WORD: Final = re.compile(r"[a-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on, such as ``linux/arm64/v8``.

    Attributes:
        os: In Go's words (``linux``); empty where an image says half a platform.
        architecture: In Go's words (``amd64``, ``arm64``); may be empty, too.
        variant: Of the architecture, where it has one.

    Raises:
        InputError: A word has other characters than ``a-z``, ``0-9``, ``.``, ``_`` and ``-``: a
            platform is printed, and compared.
    """

    os: str
    architecture: str
    variant: str | None = None

    def __post_init__(self) -> None:
        """Refuse an invalid word; half a platform is for others to judge."""
        if not all(map(_PLATFORM_WORD.fullmatch, (self.os, self.architecture, self.variant or ""))):
            raise InputError(
                f"{shown(str(self))} is not a platform",
                "its words are of a-z, 0-9, '.', '_' and '-': os/architecture[/variant]",
            )

    @property
    def whole(self) -> bool:
        """Whether it says enough to pick an image by."""
        return bool(self.os and self.architecture)

    def __str__(self) -> str:
        """Return ``os/architecture[/variant]``."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A pointer to content: what it is, its digest, and its size in bytes.

    ``document`` is the whole JSON object, unknown members included.
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(hash=False)
    urls: tuple[str, ...]
    platform: Platform | None
    document: Mapping[str, object] = field(hash=False, repr=False)

    @property
    def elsewhere(self) -> bool:
        """Whether the content is not kept with the image, but where its URLs lead.

        What is encrypted lies in the image, whatever URLs somebody wrote beside it.
        """
        return bool(self.urls) and not is_encrypted(self.media_type)

    def replaced(
        self,
        *,
        media_type: str | None = None,
        digest: Digest | None = None,
        size: int | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Descriptor:
        """Return a descriptor that differs in what is named here, and keeps the rest.

        With another ``digest``, ``urls`` and ``data`` go: they give the old content away.
        """
        document = dict(self.document)
        if digest is not None and digest != self.digest:
            document.pop("urls", None)
            document.pop("data", None)
        if annotations is not None and not annotations:
            document.pop("annotations", None)
        new = {
            "mediaType": media_type,
            "digest": None if digest is None else str(digest),
            "size": size,
            "annotations": dict(annotations) if annotations else None,
        }
        document |= {name: value for name, value in new.items() if value is not None}
        return parse_descriptor(document, "the new descriptor")

    def to_json(self) -> bytes:
        """Return its document as a manifest has it."""
        return write_json(self.document)


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """An image for one platform, or an artifact: a config and layers, lowest first."""

    raw: bytes = field(repr=False)
    media_type: str
    digest: Digest
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(hash=False)
    artifact_type: str | None
    subject: Descriptor | None
    document: Mapping[str, object] = field(hash=False, repr=False)

    def descriptor(self) -> Descriptor:
        """Return the descriptor of this manifest."""
        return describe(self.media_type, self.raw)

    def replaced(
        self,
        *,
        layers: Sequence[Descriptor] | None = None,
        config: Descriptor | None = None,
        subject: Descriptor | None = None,
    ) -> ImageManifest:
        """Return a manifest with other layers, config or subject, and the rest as it is.

        Where these are the same, so is the manifest, to the byte.
        """
        same = layers is None or tuple(layers) == self.layers
        if same and config in (None, self.config) and subject in (None, self.subject):
            return self
        document = dict(self.document)
        if subject is not None:
            document["subject"] = dict(subject.document)
        if layers is not None:
            document["layers"] = [dict(layer.document) for layer in layers]
        if config is not None:
            document["config"] = dict(config.document)
        return _image_manifest(write_json(document), document, self.media_type)

    def to_oci(self) -> ImageManifest:
        """Return the same image in OCI's terms: other media types, the same blobs.

        Raises ``InputError`` for a type that OCI has no word for.
        """
        if self.media_type == OCI_MANIFEST:
            return self
        document = {**self.document, "mediaType": OCI_MANIFEST}
        parts = (self.config, *self.layers)
        config, *layers = (p.replaced(media_type=oci_equivalent(p.media_type)) for p in parts)
        document["config"] = dict(config.document)
        document["layers"] = [dict(layer.document) for layer in layers]
        return _image_manifest(write_json(document), document, OCI_MANIFEST)


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """An index of manifests, for several platforms as a rule."""

    raw: bytes = field(repr=False)
    media_type: str
    digest: Digest
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(hash=False)
    artifact_type: str | None
    subject: Descriptor | None
    document: Mapping[str, object] = field(hash=False, repr=False)

    def descriptor(self) -> Descriptor:
        """Return the descriptor of this index."""
        return describe(self.media_type, self.raw)

    def replaced(
        self, manifests: Sequence[Descriptor], subject: Descriptor | None = None
    ) -> ImageIndex:
        """Return an index with other entries or another subject, the rest as it is.

        Where these are the same, so is the index, to the byte.
        """
        if tuple(manifests) == self.manifests and subject in (None, self.subject):
            return self
        document = {**self.document, "manifests": [dict(entry.document) for entry in manifests]}
        if subject is not None:
            document["subject"] = dict(subject.document)
        return _image_index(write_json(document), document, self.media_type)

    def to_oci(self) -> ImageIndex:
        """Return the same index in OCI's terms; what its entries point at is the caller's part."""
        if self.media_type == OCI_INDEX:
            return self
        document = {**self.document, "mediaType": OCI_INDEX}
        return _image_index(write_json(document), document, OCI_INDEX)


Manifest = ImageManifest | ImageIndex


def parse_manifest(raw: bytes, media_type: str | None = None) -> Manifest:
    """Read a manifest or an index from its exact bytes.

    ``media_type`` is what the pointer to it claims, or None where nothing does. A document that
    two readers could take for different things is refused (CVE-2021-41190): a type that differs
    from the claim, or members of both kinds. Raises ``InputError``.
    """
    document = parse_json_object(raw, "the manifest", MAX_MANIFEST)
    check_one_reading(document, _MANIFEST_MEMBERS, "the manifest")
    version = 1
    if media_type not in DOCKER_SCHEMA1:
        version = member(document, "schemaVersion", int, "the manifest")
    if version == 1:
        raise InputError(
            "the image has a Docker schema 1 manifest, which no current tool writes",
            "push it anew with a current docker, podman or skopeo, and use the result",
        )
    if version != 2:
        raise InputError("the manifest's 'schemaVersion' is not 2")
    if "manifests" in document and {"layers", "config"} & document.keys():
        raise InputError("the manifest has members of an image and of an index: it is ambiguous")
    found = _media_type(document, media_type)
    if found in INDEXES:
        return _image_index(raw, document, found)
    return _image_manifest(raw, document, found)


def parse_descriptor(value: object, what: str) -> Descriptor:
    """Read a descriptor from parsed JSON; ``what`` names it in the ``InputError``."""
    if not isinstance(value, dict):
        raise InputError(f"{what} is not an object")
    check_one_reading(value, _DESCRIPTOR_MEMBERS, what)
    size = member(value, "size", int, what)
    if not 0 <= size <= MAX_BLOB:
        raise InputError(f"{what} has a size of {size}, which no content has")
    urls = _array(value, "urls", what) if "urls" in value else []
    if not all(isinstance(url, str) for url in urls):
        raise InputError(f"the 'urls' of {what} are not an array of strings")
    return Descriptor(
        media_type=member(value, "mediaType", str, what),
        digest=parse_digest(member(value, "digest", str, what)),
        size=size,
        annotations=_annotations(value, what),
        urls=tuple(map(str, urls)),
        platform=_platform(value, what),
        document=value,
    )


def parse_platform(text: str) -> Platform:
    """Read ``os/architecture[/variant]``, as users write it. Raises ``InputError``."""
    match text.split("/"):
        case [os, architecture, *variant] if len(variant) <= 1 and all(text.split("/")):
            return Platform(os, architecture, *variant)
        case _:
            raise InputError(f"{shown(text)} is not a platform", "write os/architecture[/variant]")


def describe(media_type: str, data: bytes) -> Descriptor:
    """Return the descriptor of content that is at hand, with its SHA-256 digest."""
    document = {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}
    return parse_descriptor(document, "the new descriptor")


def _media_type(document: Mapping[str, object], claimed: str | None) -> str:
    stated = document.get("mediaType")
    if stated is not None and not isinstance(stated, str):
        raise InputError("the manifest's 'mediaType' is not a string")
    if stated and claimed and stated != claimed:
        raise InputError(
            f"the manifest says it is {shown(stated)}, what points to it says {shown(claimed)}"
        )
    found = stated or claimed or _guessed(document)
    if found not in (*MANIFESTS, *INDEXES):
        raise InputError(
            f"the manifest is {shown(found)}, which is not an image",
            f"accepted are {', '.join((*MANIFESTS, *INDEXES))}",
        )
    return found


def _guessed(document: Mapping[str, object]) -> str:
    """Return a document's type by its members: 'mediaType' is optional in OCI."""
    if "manifests" in document:
        return OCI_INDEX
    match document.get("config"):
        case {"mediaType": str(config)} if config == DOCKER_CONFIG:
            return DOCKER_MANIFEST
        case _:
            return OCI_MANIFEST


def _image_manifest(raw: bytes, document: dict[str, object], media_type: str) -> ImageManifest:
    return ImageManifest(
        raw=raw,
        media_type=media_type,
        digest=Digest.of(raw),
        config=parse_descriptor(document.get("config"), "the manifest's config"),
        layers=tuple(
            parse_descriptor(layer, f"layer {number} of the manifest")
            for number, layer in enumerate(_array(document, "layers", "the manifest"))
        ),
        annotations=_annotations(document, "the manifest"),
        artifact_type=_artifact_type(document),
        subject=_subject(document),
        document=document,
    )


def _image_index(raw: bytes, document: dict[str, object], media_type: str) -> ImageIndex:
    return ImageIndex(
        raw=raw,
        media_type=media_type,
        digest=Digest.of(raw),
        manifests=tuple(
            parse_descriptor(entry, f"entry {number} of the index")
            for number, entry in enumerate(_array(document, "manifests", "the index"))
        ),
        annotations=_annotations(document, "the index"),
        artifact_type=_artifact_type(document),
        subject=_subject(document),
        document=document,
    )


def _array(document: dict[str, object], name: str, what: str) -> list[object]:
    # Go writes a list that was never filled as null.
    return [] if document.get(name, "") is None else member(document, name, list, what)


def _annotations(document: Mapping[str, object], what: str) -> Mapping[str, str]:
    annotations = document.get("annotations")
    if annotations is None:
        return {}
    if not isinstance(annotations, dict) or not all(
        isinstance(value, str) for value in annotations.values()
    ):
        raise InputError(f"the 'annotations' of {what} are not an object of strings")
    return annotations


def _platform(document: Mapping[str, object], what: str) -> Platform | None:
    platform = document.get("platform")
    if isinstance(platform, dict):
        check_one_reading(platform, PLATFORM_MEMBERS, f"the 'platform' of {what}")
    if platform is None:
        return None
    if isinstance(platform, dict):
        # Go writes a member that is not set as an empty one or leaves it out.
        words = [platform.get(name) or "" for name in ("os", "architecture", "variant")]
        if all(isinstance(word, str) for word in words):
            os, architecture, variant = map(str, words)
            given = os or architecture or variant
            return Platform(os, architecture, variant or None) if given else None
    raise InputError(f"the 'platform' of {what} is invalid")


def _artifact_type(document: Mapping[str, object]) -> str | None:
    value = document.get("artifactType")
    if value is not None and not isinstance(value, str):
        raise InputError("'artifactType' is not a string")
    return value or None


def _subject(document: Mapping[str, object]) -> Descriptor | None:
    value = document.get("subject")
    return None if value is None else parse_descriptor(value, "the subject")
