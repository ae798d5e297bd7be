"""buildah and podman encrypt what they push through our provider, and open what they pull."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING

import pytest

from coco_kp.cli.main import run
from tests.peers.builder import BUILDERS, Builder, BuilderError
from tests.support.image import Image, tar, write_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.key import Key
    from tests.support.provider import Provider

pytestmark = pytest.mark.peer

OFFLINE_FS = "offline_fs_kbc::null"


@pytest.fixture(params=BUILDERS)
def builder(request: pytest.FixtureRequest, tmp_path: Path) -> Builder:
    return Builder(request.param, tmp_path / "builder")


@pytest.fixture
def archives() -> list[bytes]:
    """The layers, uncompressed: a builder's storage keeps no layer as it was compressed."""
    return [tar({"etc/motd": b"hello"}), tar({"data": os.urandom(200_000)})]


def contents(image: Image) -> list[bytes]:
    return [gzip.decompress(layer.blob) for layer in image.layers]


@pytest.mark.parametrize("any_door", ["tcp", "cmd"], indirect=True)
def test_builder_push_encrypts_and_pull_decrypts(
    builder: Builder, any_door: Provider, archives: list[bytes], key: Key, tmp_path: Path
) -> None:
    plain = write_image(tmp_path / "plain", archives)
    encrypted, decrypted = Image(tmp_path / "encrypted"), Image(tmp_path / "decrypted")
    pulled = builder.pull(plain.reference)
    builder.push(pulled, encrypted.reference, any_door.config, key.parameters())
    assert all(layer.encrypted for layer in encrypted.layers)
    assert {layer.packet["kid"] for layer in encrypted.layers} == {"kbs:///default/key/key_id1"}
    keys = ("--keys", str(key.keys_file), "--target", "coco")
    assert run(["verify", encrypted.reference, *keys]) == 0

    opened = builder.pull(encrypted.reference, any_door.config, OFFLINE_FS)
    builder.push(opened, decrypted.reference)
    assert contents(decrypted) == archives


def test_builder_pull_opens_images_encrypted_by_coco_kp(
    builder: Builder, provider: Provider, archives: list[bytes], key: Key, tmp_path: Path
) -> None:
    plain = write_image(tmp_path / "plain", archives)
    encrypted, decrypted = Image(tmp_path / "encrypted"), Image(tmp_path / "decrypted")
    keyid = ("--keyid", "/default/key/key_id1", "--keypath", str(key.path))
    assert run(["encrypt", plain.reference, encrypted.reference, *keyid]) == 0
    opened = builder.pull(encrypted.reference, provider.config, OFFLINE_FS)
    builder.push(opened, decrypted.reference)
    assert contents(decrypted) == archives


def test_builder_pull_without_the_key_shows_coco_kps_words(
    builder: Builder, provider: Provider, archives: list[bytes], key: Key, tmp_path: Path
) -> None:
    plain = write_image(tmp_path / "plain", archives)
    encrypted = provider.encrypt(plain, key.parameters(keyid="kbs:///default/key/absent"))
    with pytest.raises(BuilderError, match="default/key/absent"):
        builder.pull(encrypted.reference, provider.config, OFFLINE_FS)
