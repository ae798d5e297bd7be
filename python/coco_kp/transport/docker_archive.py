"""``docker-archive:path[:name]``, read: what ``docker save`` and ``podman save`` write.

Old archives hold ``<id>/layer.tar`` files, newer ones an OCI layout beside the same
``manifest.json``; both are read through that file. The archive has no manifest of the kind that
registries have, so one is made: Docker's schema 2, whose layers are the archive's own bytes. Where
those are plain tar, the image's diff_ids are their digests, and the stream is checked against them.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Final

from coco_kp.errors import InputError, IntegrityError
from coco_kp.model.digest import Digest, parse_digest
from coco_kp.model.encoding import check_one_reading, member, parse_json_object, write_json
from coco_kp.model.image_config import parse_image_config
from coco_kp.model.manifest import (
    MAX_MANIFEST,
    Descriptor,
    Manifest,
    describe,
    parse_descriptor,
    parse_manifest,
)
from coco_kp.model.media_type import DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST
from coco_kp.model.reference import FileReference, RegistryReference, parse_repository_reference
from coco_kp.redact import shown
from coco_kp.transport.access import Access
from coco_kp.transport.base import RawBlob, Source
from coco_kp.transport.tar import Member, TarFile
from coco_kp.unpacking import Unpacking

MANIFEST_FILE: Final = "manifest.json"
_COMPRESSED: Final = {b"\x1f\x8b": ".gzip", b"\x28\xb5\x2f\xfd": ".zstd"}
_IMAGE_MEMBERS: Final = ("Config", "RepoTags", "Layers", "Parent", "LayerSources")
_BLOB = re.compile(r"blobs/(sha256|sha512)/([0-9a-f]+)")


class DockerArchiveSource(Source):
    """An image in an archive."""

    def __init__(self, reference: FileReference, access: Access | None = None) -> None:
        self.reference = str(reference)
        self._tar = TarFile(Path(reference.path), Unpacking((access or Access()).max_unpacked))
        try:
            image = self._pick(reference)
            self._manifest, self._blobs = self._read_image(image)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the archive."""
        self._tar.close()

    def _top_manifest(self) -> Manifest:
        return self._manifest

    def _manifest_bytes(self, descriptor: Descriptor) -> bytes | None:  # noqa: ARG002
        return None  # it has the one that was made of its list of layers

    def _open_blob(self, blob: Descriptor) -> RawBlob:
        place = self._blobs.get(blob.digest)
        if place is None:
            raise InputError(f"{self.reference} lacks the blob {blob.digest}")
        return self._tar.part(place)

    def _pick(self, reference: FileReference) -> dict[str, object]:
        # The file is an array; one object around it lets the strict reader read it.
        data = b'{"images":%b}' % self._read(MANIFEST_FILE)
        document = parse_json_object(data, f"'{MANIFEST_FILE}' of {self.reference}")
        images = [
            image
            for image in member(document, "images", list, MANIFEST_FILE)
            if isinstance(image, dict)
        ]
        for image in images:
            check_one_reading(image, _IMAGE_MEMBERS, f"an image in '{MANIFEST_FILE}'")
        found = images
        if reference.position is not None:
            found = images[reference.position : reference.position + 1]
        elif reference.name is not None:
            wanted = parse_repository_reference(reference.name)
            found = [image for image in images if wanted in map(_repository, _tags(image))]
        if len(found) == 1:
            return found[0]
        known = [
            shown(tag)
            for position, image in enumerate(images)
            for tag in _tags(image) or [f"@{position}"]
        ]
        raise InputError(
            f"{self.reference} names {len(found)} of {len(images)} images",
            f"name one: it has {', '.join(known) or 'none'}",
        )

    def _read_image(self, image: dict[str, object]) -> tuple[Manifest, dict[Digest, Member]]:
        what = f"an image in '{MANIFEST_FILE}'"
        config_name = member(image, "Config", str, what)
        config = self._read(config_name)
        if (blob := _BLOB.fullmatch(config_name)) and not _digest(blob).matches(config):
            raise IntegrityError(f"{shown(config_name)} in {self.reference} is damaged")
        names = member(image, "Layers", list, what)
        diff_ids = parse_image_config(config).diff_ids
        if len(names) != len(diff_ids):
            raise InputError(
                f"{self.reference} has {len(names)} layers, its config names {len(diff_ids)}"
            )
        layers = []
        blobs = {Digest.of(config): self._place(config_name)}
        for name, diff_id in zip(names, diff_ids, strict=True):
            layer = self._layer(str(name), diff_id)
            layers.append(dict(layer.document))
            blobs[layer.digest] = self._place(str(name))
        document = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": dict(describe(DOCKER_CONFIG, config).document),
            "layers": layers,
        }
        return parse_manifest(write_json(document)), blobs

    def _layer(self, name: str, diff_id: Digest) -> Descriptor:
        place = self._place(name)
        start = self._tar.pread(min(4, place.size), place.offset)
        suffix = next((s for magic, s in _COMPRESSED.items() if start.startswith(magic)), "")
        digest = diff_id
        if suffix:
            # The config knows only the digest of what is inside.
            blob = _BLOB.fullmatch(name)
            digest = _digest(blob) if blob else Digest("sha256", self._tar.sha256(place))
        return parse_descriptor(
            {
                "mediaType": f"{DOCKER_LAYER}{suffix}",
                "size": place.size,
                "digest": str(digest),
            },
            "the new descriptor",
        )

    def _read(self, name: str) -> bytes:
        self._tar.check_alike(name)
        return self._tar.read(name, MAX_MANIFEST)

    def _place(self, name: str) -> Member:
        # A layer that several images share is a link to the first one's.
        self._tar.check_alike(name)
        place = self._tar.resolve(name)
        if place is None:
            raise InputError(f"{self.reference} has no {shown(name)}")
        return place


def _digest(blob: re.Match[str]) -> Digest:
    return parse_digest(f"{blob[1]}:{blob[2]}")


def _tags(image: dict[str, object]) -> list[str]:
    tags = image.get("RepoTags") or []
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _repository(tag: str) -> RegistryReference | None:
    with contextlib.suppress(InputError):
        return parse_repository_reference(tag)
    return None
