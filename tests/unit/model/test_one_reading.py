"""Every document whose members Go's readers find in any case has one reading, or is refused."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any, Final

import pytest

from coco_kp.errors import InputError
from coco_kp.model.layer_options import CIPHER, parse_private_options, parse_public_options
from coco_kp.model.manifest import parse_manifest
from coco_kp.model.packet import read_packet
from coco_kp.transport.layout_index import check_layout
from tests.support.documents import (
    CONFIG,
    INDEX,
    MANIFEST,
    TAR,
    Document,
    descriptor,
    to_json,
)
from tests.support.wrapping import KID

LAYER: Final = descriptor(TAR, b"layer", annotations={}, urls=["https://example.com/layer"])
PLATFORM: Final = {"architecture": "amd64", "os": "linux", "variant": "v2", "os.version": "1"}
ENTRY: Final = descriptor(MANIFEST, b"{}", platform=PLATFORM)
IMAGE: Final = {
    "schemaVersion": 2,
    "mediaType": MANIFEST,
    "config": descriptor(CONFIG, b"{}"),
    "layers": [LAYER],
    "subject": descriptor(MANIFEST, b"subject"),
    "annotations": {},
}
LIST: Final = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [ENTRY]}
KEY: Final = b64encode(bytes(32)).decode()
NONCE: Final = b64encode(bytes(16)).decode()
PACKET: Final = {
    "kid": KID,
    "wrapped_data": KEY,
    "iv": b64encode(bytes(12)).decode(),
    "wrap_type": "A256GCM",
    "version": "0.1.0",
    "provider": "kbs",
    "provider_settings": {},
    "annotations": {},
}
PUBLIC: Final = {"cipher": CIPHER, "hmac": KEY, "cipheroptions": {}}
PRIVATE: Final = {"symkey": KEY, "digest": "", "cipheroptions": {"nonce": NONCE}}

Read = Callable[[bytes], object]
DOCUMENTS: Final[dict[str, tuple[Read, Document, tuple[str | int, ...]]]] = {
    "manifest": (parse_manifest, IMAGE, ()),
    "config's descriptor": (parse_manifest, IMAGE, ("config",)),
    "layer's descriptor": (parse_manifest, IMAGE, ("layers", 0)),
    "subject": (parse_manifest, IMAGE, ("subject",)),
    "index": (parse_manifest, LIST, ()),
    "entry": (parse_manifest, LIST, ("manifests", 0)),
    "platform": (parse_manifest, LIST, ("manifests", 0, "platform")),
    "packet": (read_packet, PACKET, ()),
    "public options": (parse_public_options, PUBLIC, ()),
    "private options": (parse_private_options, PRIVATE, ()),
    "private cipher options": (parse_private_options, PRIVATE, ("cipheroptions",)),
    "oci-layout": (lambda data: check_layout(data, "x"), {"imageLayoutVersion": "1.0.0"}, ()),
}


def with_member(document: Document, path: tuple[str | int, ...], name: str) -> bytes:
    """Write the document with one member more in the object under the path, the last."""
    copy = json.loads(to_json(document))
    holder: Any = copy
    for step in path:
        holder = holder[step]
    known = next((there for there in holder if there.casefold() == name.casefold()), None)
    holder[name] = holder[known] if known else "x"
    return to_json(copy)


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_document_in_which_readers_that_ignore_case_find_another_member_is_refused(
    kind: str,
) -> None:
    read, document, path = DOCUMENTS[kind]
    read(with_member(document, path, "of nobody"))
    holder: Any = document
    for step in path:
        holder = holder[step]
    for name in holder:
        spellings = {name.upper(), name.title(), name.replace("s", "\u017f"), f"{name[:-1]}K"}
        spellings |= {name.replace("k", "\u212a")}
        for spelled in spellings - {name}:
            if spelled.casefold() == name.casefold():
                with pytest.raises(InputError):
                    read(with_member(document, path, spelled))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("manifest", ("Manifests", "ArtifactType", "fslayers", "Signatures")),
        ("index", ("Layers", "Config", "ArtifactType", "Subject", "Annotations")),
        ("layer's descriptor", ("Data", "Platform", "ArtifactType")),
        ("entry", ("URLs", "Data", "Annotations")),
        ("platform", ("OS.Features", "Features")),
    ],
)
def test_known_member_that_document_lacks_is_refused_in_another_case(
    kind: str, names: tuple[str, ...]
) -> None:
    read, document, path = DOCUMENTS[kind]
    for name in names:
        with pytest.raises(InputError):
            read(with_member(document, path, name))
