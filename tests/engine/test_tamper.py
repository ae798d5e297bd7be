"""Every alteration that the formats allow is found before anything has its final name.

Each attack keeps all digests right that need no key: the attacker owns the registry.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from coco_kp.crypto import Kek
from tests.support.altered import (
    altered,
    altered_config,
    altered_layer,
    copied,
    flip,
    packet,
    public_options,
)
from tests.support.command import Command
from tests.support.documents import Document, Layer, gzipped, sha256
from tests.support.image import ENCRYPTED, PACKETS, PUBLIC_OPTIONS, Image, tar, write_image
from tests.support.layout import entries


@pytest.fixture(params=["gzip", "uncompressed"])
def plain(request: pytest.FixtureRequest, tmp_path: Path) -> Image:
    """An image whose layers are decrypted in pieces, or from file to file."""
    archives = [tar({"etc/motd": b"hello"}), tar({}), tar({"data": os.urandom(600_000)})]
    packed = gzipped if request.param == "gzip" else Layer
    return write_image(tmp_path / "plain", list(map(packed, archives)))


def refused(
    image: Image, key: Path, tmp_path: Path, command: Command, code: int, words: str = ""
) -> None:
    """The image is neither decrypted nor verified, and nothing of it is left anywhere."""
    target = tmp_path / "target"
    opening = ("--keypath", key)
    outcome = command("decrypt", image.reference, f"oci:{target}", *opening, ok=False)
    assert (outcome.code, words in outcome.err) == (code, True), outcome.err
    assert not target.exists()
    verified = command("verify", image.reference, *opening, ok=False)
    # What is not encrypted at all outweighs the rest there.
    assert verified.code in {code, 7}, verified.err


def other_compression(media_type: str) -> str:
    """Return gzip for none, and none for gzip."""
    without = media_type.replace("+gzip", "")
    return without if without != media_type else media_type.replace(".tar", ".tar+gzip")


def swap(manifest: Document, one: int, other: int, *names: str) -> None:
    """Swap annotations of two layers."""
    a, b = (manifest["layers"][number]["annotations"] for number in (one, other))
    for name in names:
        a[name], b[name] = b[name], a[name]


CARRIED = {"two layers swapped", "a layer twice", "another compression"}
"""Each layer is still one that was encrypted: decrypt gives them back, verify judges the image."""


def judged(image: Image, key: Path, tmp_path: Path, command: Command, words: str = "") -> None:
    """The image is not verified; decrypted, it has the layers that its packets record."""
    target = Image(tmp_path / "target")
    opening = ("--keypath", key)
    verified = command("verify", image.reference, *opening, ok=False)
    assert (verified.code, words in verified.err) == (5, True), verified.err
    command("decrypt", image.reference, target.reference, *opening)
    kek = Kek(key.read_bytes())
    for before, layer in zip(image.layers, target.layers, strict=True):
        iv, wrapped = (b64decode(before.packet[name]) for name in ("iv", "wrapped_data"))
        recorded = json.loads(kek.unwrap("A256GCM", iv, wrapped))["digest"]
        assert recorded == sha256(layer.blob)


MANIFESTS: dict[str, tuple[int, Callable[[Document], None]]] = {
    "packets of two layers swapped": (5, lambda m: swap(m, 0, 2, PACKETS)),
    "HMACs of two layers swapped": (5, lambda m: swap(m, 0, 2, PUBLIC_OPTIONS)),
    "all annotations of two layers swapped": (5, lambda m: swap(m, 0, 2, PACKETS, PUBLIC_OPTIONS)),
    "two layers swapped": (5, lambda m: m["layers"].insert(0, m["layers"].pop(2))),
    "a layer twice": (5, lambda m: m["layers"].__setitem__(1, m["layers"][2])),
    "a layer left out": (3, lambda m: m["layers"].pop()),
    "HMAC flipped": (5, lambda m: public_options(m, 2, flip("hmac"))),
    "HMAC of zeros": (
        5,
        lambda m: public_options(m, 2, lambda d: d.update(hmac=b64encode(bytes(32)).decode())),
    ),
    "HMAC empty": (3, lambda m: public_options(m, 2, lambda d: d.update(hmac=""))),
    "HMAC null": (3, lambda m: public_options(m, 2, lambda d: d.update(hmac=None))),
    "another cipher": (3, lambda m: public_options(m, 2, lambda d: d.update(cipher="AES_256_CTR"))),
    "a public nonce": (
        3,
        lambda m: public_options(
            m, 2, lambda d: d.update(cipheroptions={"nonce": b64encode(bytes(16)).decode()})
        ),
    ),
    "public options gone": (3, lambda m: m["layers"][2]["annotations"].pop(PUBLIC_OPTIONS)),
    "packets gone": (3, lambda m: m["layers"][2]["annotations"].pop(PACKETS)),
    "packets empty": (3, lambda m: m["layers"][2]["annotations"].update({PACKETS: ""})),
    "packet cut off": (
        3,
        lambda m: m["layers"][2]["annotations"].update(
            {PACKETS: m["layers"][2]["annotations"][PACKETS][:-8]}
        ),
    ),
    "wrapped data flipped": (4, lambda m: packet(m, 2, flip("wrapped_data"))),
    "IV flipped": (4, lambda m: packet(m, 2, flip("iv"))),
    "another wrap type": (3, lambda m: packet(m, 2, lambda d: d.update(wrap_type="A256CTR"))),
    "a held-back tag": (
        4,
        lambda m: packet(
            m,
            2,
            lambda d: d.update(wrapped_data=b64encode(b64decode(d["wrapped_data"])[:-16]).decode()),
        ),
    ),
    "said to be plain": (
        3,
        lambda m: m["layers"][2].update(
            mediaType=m["layers"][2]["mediaType"].removesuffix(ENCRYPTED)
        ),
    ),
    "made plain": (
        5,
        lambda m: m["layers"][2].update(
            mediaType=m["layers"][2]["mediaType"].removesuffix(ENCRYPTED), annotations={}
        ),
    ),
    "another compression": (
        5,
        lambda m: m["layers"][2].update(mediaType=other_compression(m["layers"][2]["mediaType"])),
    ),
    "a size too large": (5, lambda m: m["layers"][2].update(size=m["layers"][2]["size"] + 1)),
    "a size too small": (5, lambda m: m["layers"][2].update(size=m["layers"][2]["size"] - 1)),
    "a digest of another layer": (
        5,
        lambda m: m["layers"][2].update(
            digest=m["layers"][0]["digest"], size=m["layers"][0]["size"]
        ),
    ),
}


@pytest.mark.parametrize("attack", MANIFESTS)
def test_decrypt_and_verify_refuse_tampered_manifest(
    encrypted: Image, key: Path, tmp_path: Path, command: Command, attack: str
) -> None:
    code, change = MANIFESTS[attack]
    if attack in CARRIED:
        judged(altered(encrypted, tmp_path / "altered", change), key, tmp_path, command)
        return
    refused(altered(encrypted, tmp_path / "altered", change), key, tmp_path, command, code)


LAYERS: dict[str, Callable[[bytes], bytes]] = {
    "first bit flipped": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "last bit flipped": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "cut off": lambda data: data[:-1],
    "extended": lambda data: data + b"\0",
    "empty": lambda _: b"",
    "blocks swapped": lambda data: data[16:32] + data[:16] + data[32:],
}


@pytest.mark.parametrize("attack", LAYERS)
def test_decrypt_and_verify_refuse_tampered_layer_with_matching_digest(
    encrypted: Image, key: Path, tmp_path: Path, command: Command, attack: str
) -> None:
    image = altered_layer(encrypted, tmp_path / "altered", 2, LAYERS[attack])
    refused(image, key, tmp_path, command, 5, "layer 2 of linux/amd64: ")


@pytest.mark.parametrize("attack", LAYERS)
def test_decrypt_and_verify_refuse_tampered_layer_under_its_old_digest(
    encrypted: Image, key: Path, tmp_path: Path, command: Command, attack: str
) -> None:
    image = copied(encrypted, tmp_path / "altered")
    path = max((image.folder / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    path.write_bytes(LAYERS[attack](path.read_bytes()))
    refused(image, key, tmp_path, command, 5)


def test_verify_refuses_wrong_diff_id_in_config_and_decrypt_carries_the_layer(
    encrypted: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    def change(config: Document) -> None:
        config["rootfs"]["diff_ids"][2] = f"sha256:{'0' * 64}"

    image = altered_config(encrypted, tmp_path / "altered", change)
    judged(image, key, tmp_path, command, "not the one that the config names")


def test_decrypt_refuses_tampered_manifest_under_its_old_digest(
    encrypted: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    image = copied(encrypted, tmp_path / "altered")
    (entry,) = entries(image.folder)
    path = image.folder / "blobs/sha256" / entry["digest"][7:]
    path.write_bytes(path.read_bytes().replace(b"+encrypted", b"          "))
    target = tmp_path / "target"
    arguments = (image.reference, f"oci:{target}", "--keypath", key)
    assert command("decrypt", *arguments, ok=False).code == 5
    assert not target.exists()


def test_verify_refuses_layer_from_another_image_of_same_key_and_decrypt_carries_it(
    encrypted: Image, plain: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    """A whole layer with all its annotations, from an older image of the same owner."""
    other = Image(tmp_path / "other")
    arguments = ("--keyid", "/default/key/1", "--keypath", key)
    command("encrypt", plain.reference, other.reference, *arguments)
    foreign = other.manifest["layers"][0]
    (encrypted.folder / "blobs/sha256" / foreign["digest"][7:]).write_bytes(other.layers[0].blob)

    def change(manifest: Document) -> None:
        manifest["layers"][1] = foreign

    judged(altered(encrypted, tmp_path / "altered", change), key, tmp_path, command)


def test_decrypt_and_verify_refuse_layer_under_digest_of_other_content(
    encrypted: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    """Its HMAC is right, for its bytes are; its name would be anybody's."""

    def change(manifest: Document) -> None:
        blobs = tmp_path / "altered/blobs/sha256"
        layer = manifest["layers"][2]
        (blobs / layer["digest"][7:]).rename(blobs / ("0" * 64))
        layer["digest"] = f"sha256:{'0' * 64}"

    image = altered(encrypted, tmp_path / "altered", change)
    refused(image, key, tmp_path, command, 5, "does not have the content that it names")


@pytest.mark.parametrize("digest", [f"sha256:{'0' * 64}", f"sha512:{'0' * 128}"])
def test_decrypt_and_verify_refuse_packet_with_digest_of_other_content(
    encrypted: Image, key: Path, tmp_path: Path, command: Command, digest: str
) -> None:
    """Only who has the key can write it; all else about the layer is right."""
    kek = Kek(key.read_bytes())

    def change(document: Document) -> None:
        iv, wrapped = b64decode(document["iv"]), b64decode(document["wrapped_data"])
        options = json.loads(kek.unwrap("A256GCM", iv, wrapped))
        options["digest"] = digest
        iv, wrapped = kek.wrap("A256GCM", json.dumps(options).encode())
        document |= {"iv": b64encode(iv).decode(), "wrapped_data": b64encode(wrapped).decode()}

    image = altered(encrypted, tmp_path / "altered", lambda m: packet(m, 2, change))
    refused(image, key, tmp_path, command, 5, "something else than what was encrypted")
