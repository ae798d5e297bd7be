"""The images that are altered, and how: one document of one image in one way each.

Each layout also holds a readable layer that an attacker wrote, to which hostile members lead.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from coco_kp.crypto import Kek
from coco_kp.image.encrypt import encrypt_image
from coco_kp.keys.wrapper import KekRecipient
from coco_kp.model.resource_uri import parse_key_id
from tests.differential.mutations import Mutation, Steps, at, mutations
from tests.support.documents import (
    CONFIG,
    INDEX,
    MANIFEST,
    TAR,
    TAR_GZIP,
    Document,
    config,
    descriptor,
    gzipped,
    sha256,
    to_json,
)
from tests.support.image import ENCRYPTED, PACKETS, PUBLIC_OPTIONS, tar, write_image
from tests.support.layout import LayoutWriter, entries

KEK: Final = bytes(range(32))
KID: Final = "kbs:///default/key/1"
NAMED: Final = {"org.opencontainers.image.ref.name": "latest"}

SECRET: Final = tuple(tar({f"secret{n}": bytes([n]) * 3000}) for n in range(2))
EVIL: Final = gzipped(tar({"evil": b"an attacker's"}))
EVIL_CONFIG: Final = config([EVIL.diff_id])

MEDIA_TYPES: Final = (
    *(TAR, TAR_GZIP, f"{TAR}+zstd", f"{TAR}+xz", f"{TAR}+gzip+encrypted+gzip", f"{TAR}+encrypted"),
    *(f"{TAR}+gzip+encrypted", f"{TAR}+zstd+encrypted", f"{TAR}+gzip; charset=x", f" {TAR}+gzip"),
    *(f"{TAR}+GZIP", "application/octet-stream", "", "application/vnd.in-toto+json"),
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.gzip+encrypted",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
)

ADDED: Final[dict[str, object]] = {
    "urls": ["https://example.invalid/layer"],
    "data": b64encode(EVIL.data).decode(),
    "subject": descriptor(MANIFEST, b"{}"),
    "artifactType": "application/vnd.example",
    "platform": {"os": "unknown", "architecture": "unknown"},
    "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    "unknown": {"Layers": 1, "layers": 2},
}


def hostile(name: str) -> object:
    """Return what an attacker would write under this name, in whatever document it stands."""
    written: dict[str, object] = {
        "layers": [EVIL.descriptor],
        "manifests": [],
        "config": descriptor(CONFIG, EVIL_CONFIG),
        "mediaType": TAR_GZIP,
        "digest": EVIL.descriptor["digest"],
        "size": EVIL.descriptor["size"],
        "annotations": {},
        "schemaVersion": 1,
        "diff_ids": [sha256(b"")],
        "rootfs": {"type": "layers", "diff_ids": []},
        "kid": "kbs:///evil/key/1",
        "wrap_type": "A256CTR",
        "hmac": b64encode(bytes(32)).decode(),
        "cipher": "NONE",
        "cipheroptions": {"nonce": b64encode(bytes(16)).decode()},
        "os": "windows",
        "architecture": "arm64",
    }
    return written.get(name, "hostile")


@dataclass(frozen=True)
class Parts:
    """An image with one manifest: its documents, and the blobs of its layers."""

    manifest: Document
    config: bytes
    layers: tuple[bytes, ...]

    def write(
        self,
        folder: Path,
        *,
        manifest: Document | None = None,
        config: bytes | None = None,
        index: Callable[[Document], Any] = lambda index: index,
        nested: Callable[[Document], Any] | None = None,
    ) -> Path:
        """Write a layout with other documents in place of some; digests are made right."""
        layout = LayoutWriter(folder)
        for blob in (*self.layers, EVIL.data, EVIL_CONFIG):
            layout.put("", blob)
        document = dict(self.manifest if manifest is None else manifest)
        if config is not None:
            document["config"] = layout.put(CONFIG, config)
        layout.put("", self.config)
        entry = layout.put(MANIFEST, to_json(document))
        if nested:
            platform = {"os": "linux", "architecture": "amd64"}
            inner = {"schemaVersion": 2, "mediaType": INDEX}
            inner |= {"manifests": [{**entry, "platform": platform}]}
            entry = layout.put(INDEX, to_json(nested(inner)))
        top = {"schemaVersion": 2, "mediaType": INDEX}
        top |= {"manifests": [{**entry, "annotations": NAMED}]}
        (folder / "index.json").write_bytes(to_json(index(top)))
        return folder


def plain_parts(folder: Path) -> Parts:
    """Return an image with two layers that is not encrypted."""
    return read_parts(write_image(folder, SECRET).folder)


def encrypted_parts(plain: Path, folder: Path) -> Parts:
    """Return the same image, encrypted with `KEK`."""
    encrypt_image(f"oci:{plain}", f"oci:{folder}", [KekRecipient(parse_key_id(KID), Kek(KEK))])
    return read_parts(folder)


def read_parts(folder: Path) -> Parts:
    """Read the only image of a layout."""
    (parts,) = read_all(folder)
    return parts


def read_all(folder: Path) -> list[Parts]:
    """Read the images of a layout, those that its indexes name, too."""

    def blob(found: Document) -> bytes:
        data: bytes = (folder / "blobs" / found["digest"].replace(":", "/")).read_bytes()
        return data

    def images(entry: Document) -> Iterator[Parts]:
        document = json.loads(blob(entry))
        for child in document.get("manifests", []):
            yield from images(child)
        if "layers" in document:
            config, layers = blob(document["config"]), tuple(map(blob, document["layers"]))
            yield Parts(document, config, layers)

    return [image for entry in entries(folder) for image in images(entry)]


def altered(parts: Parts) -> Iterator[tuple[str, Callable[[Path], Path]]]:
    """Yield each altered image by name, as a function that writes it into a folder."""
    for mutation in (*mutations(parts.manifest, hostile), *_of_layers(parts)):
        yield f"manifest: {mutation.name}", _manifest(parts, mutation)
    settings = json.loads(parts.config)
    for mutation in mutations(settings, hostile):
        yield f"config: {mutation.name}", _config(parts, mutation)
    index = {"schemaVersion": 2, "mediaType": INDEX}
    index |= {"manifests": [{**descriptor(MANIFEST, b""), "annotations": NAMED}]}
    for mutation in mutations(index, hostile):
        yield f"index.json: {mutation.name}", _index(parts, mutation)
    entry = {**descriptor(MANIFEST, b""), "platform": {"os": "linux", "architecture": "amd64"}}
    inner = {**index, "manifests": [entry]}
    for mutation in (*mutations(inner, hostile), *_of_entries()):
        yield f"index: {mutation.name}", _nested(parts, mutation)
    if parts.manifest["layers"][0]["mediaType"].endswith(ENCRYPTED):
        for annotation in (PACKETS, PUBLIC_OPTIONS):
            document = json.loads(b64decode(parts.manifest["layers"][0]["annotations"][annotation]))
            for mutation in mutations(document, hostile):
                name = annotation.rpartition(".")[2]
                yield f"{name}: {mutation.name}", _annotation(parts, annotation, mutation)


def _of_layers(parts: Parts) -> Iterator[Mutation]:
    """Yield mutations of whole layers, and members that descriptors and manifests may have."""
    changes: dict[str, Callable[[list[Any]], object]] = {
        "layers swapped": list.reverse,
        "layer 0 twice": lambda layers: layers.insert(0, layers[0]),
        "layer 1 left out": list.pop,
        "a readable layer on top": lambda layers: layers.append(EVIL.descriptor),
        "a readable layer below": lambda layers: layers.insert(0, EVIL.descriptor),
    }
    for name, change in changes.items():
        yield Mutation(name, partial(_in_layers, change))
    for number in range(len(parts.layers)):
        for media_type in MEDIA_TYPES:
            change = partial(_set, (number,), {"mediaType": media_type})
            yield Mutation(f"layer {number} called '{media_type}'", partial(_in_layers, change))
    for name, value in ADDED.items():
        yield Mutation(f"with {name}", partial(_set, (), {name: value}))
        yield Mutation(f"layer 0 with {name}", partial(_set, ("layers", 0), {name: value}))


def _of_entries() -> Iterator[Mutation]:
    """Yield mutations of an index's entries."""
    for name, value in ADDED.items():
        yield Mutation(f"entry with {name}", partial(_set, ("manifests", 0), {name: value}))
    yield Mutation("entry twice", lambda index: index["manifests"].append(index["manifests"][0]))
    yield Mutation("no entry", lambda index: index["manifests"].clear())


def _in_layers(change: Callable[[list[Any]], object], manifest: Any) -> None:
    change(manifest["layers"])


def _set(path: Steps, members: Mapping[str, object], document: Any) -> None:
    """Set these members of an object; annotations are added to those that it has."""
    holder = at(document, path)
    for name, value in members.items():
        both = isinstance(value, dict) and isinstance(holder.get(name), dict)
        holder[name] = holder[name] | value if both else value


def _manifest(parts: Parts, mutation: Mutation) -> Callable[[Path], Path]:
    return lambda folder: parts.write(folder, manifest=mutation(parts.manifest))


def _config(parts: Parts, mutation: Mutation) -> Callable[[Path], Path]:
    return lambda folder: parts.write(folder, config=to_json(mutation(json.loads(parts.config))))


def _index(parts: Parts, mutation: Mutation) -> Callable[[Path], Path]:
    return lambda folder: parts.write(folder, index=mutation)


def _nested(parts: Parts, mutation: Mutation) -> Callable[[Path], Path]:
    return lambda folder: parts.write(folder, nested=mutation)


def _annotation(parts: Parts, annotation: str, mutation: Mutation) -> Callable[[Path], Path]:
    def change(manifest: Any) -> None:
        found = manifest["layers"][0]["annotations"]
        document = mutation(json.loads(b64decode(found[annotation])))
        found[annotation] = b64encode(to_json(document)).decode()

    return _manifest(parts, Mutation(mutation.name, change))
