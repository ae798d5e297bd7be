"""What skopeo shows a user who makes a typical mistake: our words, and the way out."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from tests.peers.skopeo import SkopeoError
from tests.support.provider import Provider, our_provider

if TYPE_CHECKING:
    from pathlib import Path

    from tests.peers.skopeo import Skopeo
    from tests.support.image import Image
    from tests.support.key import Key

pytestmark = pytest.mark.peer

OFFLINE_FS = "offline_fs_kbc::null"

MISTAKEN_PARAMETERS = {
    "a misspelt word": (
        "keypath={kek}::keyID=kbs:///default/key/key_id1",
        ["parameter 'keyID' is unknown", "keyid=kbs:///<repository>/<type>/<tag>"],
    ),
    "no key ID": ("keypath={kek}", ["keyid is missing"]),
    "a key ID that is only a name": (
        "keypath={kek}::keyid=key_id1",
        ["'key_id1'", "kbs:///<repository>/<type>/<tag>"],
    ),
    "an algorithm that does not exist": (
        "keypath={kek}::keyid=kbs:///default/key/key_id1::algorithm=AES-256-GCM",
        ["algorithm 'AES-256-GCM' is unknown", "A256GCM", "A256CTR"],
    ),
    "no such key file": (
        "keypath={kek}.old::keyid=kbs:///default/key/key_id1",
        ["{kek}.old", "no such file"],
    ),
    "sample=1": ("sample=1", ["sample is '1', not true or false"]),
    "a sample that no guest opens": (
        "sample=true::algorithm=A256CTR",
        ["the sample key", "A256GCM"],
    ),
    "no parameters": ("", ["the encryption parameters are empty", "sample=true for a trial"]),
}


@pytest.mark.parametrize("mistake", MISTAKEN_PARAMETERS)
def test_skopeo_shows_help_for_mistaken_parameters(
    provider: Provider, image: Image, key: Key, mistake: str
) -> None:
    parameters, words = MISTAKEN_PARAMETERS[mistake]
    with pytest.raises(SkopeoError) as error:
        provider.encrypt(image, parameters.format(kek=key.path))
    assert_helpful(error.value, *(word.format(kek=key.path) for word in words))


def test_skopeo_shows_help_for_base64_key_file(any_door: Provider, image: Image, key: Key) -> None:
    text = b64encode(key.raw)
    key.path.write_bytes(text)
    with pytest.raises(SkopeoError) as error:
        any_door.encrypt(image, key.parameters())
    assert_helpful(error.value, "expected a 32-byte key", "found 44 bytes", "base64 -d")
    assert text.decode() not in str(error.value)


def test_skopeo_shows_help_for_keys_file_with_another_key(
    any_door: Provider, image: Image, key: Key
) -> None:
    encrypted = any_door.encrypt(image, key.parameters())
    other = {"default/key/key_id1": b64encode(os.urandom(32)).decode()}
    key.keys_file.write_text(json.dumps(other))
    with pytest.raises(SkopeoError) as error:
        any_door.decrypt(encrypted, OFFLINE_FS)
    assert_helpful(error.value, "kbs:///default/key/key_id1", "does not open")


def test_skopeo_shows_help_for_keys_file_without_the_key(
    provider: Provider, image: Image, key: Key
) -> None:
    encrypted = provider.encrypt(image, key.parameters(keyid="kbs:///default/key/absent"))
    with pytest.raises(SkopeoError) as error:
        provider.decrypt(encrypted, OFFLINE_FS)
    assert_says(error.value, "default/key/absent", str(key.keys_file))


@pytest.mark.parametrize(
    ("kbc", "words"),
    [
        ("offline_fs_kbs::null", ["'offline_fs_kbs'", "offline_fs", "sample"]),
        ("sample_kbc::null", ["does not open"]),
    ],
)
def test_skopeo_shows_help_for_wrong_kbc(
    provider: Provider, image: Image, key: Key, kbc: str, words: list[str]
) -> None:
    encrypted = provider.encrypt(image, key.parameters())
    with pytest.raises(SkopeoError) as error:
        provider.decrypt(encrypted, kbc)
    assert_helpful(error.value, *words)


def test_skopeo_shows_help_for_key_file_outside_key_dir(
    skopeo: Skopeo, image: Image, key: Key, tmp_path: Path
) -> None:
    allowed = tmp_path / "keys"
    allowed.mkdir()
    with our_provider(skopeo, tmp_path, "--key-dir", str(allowed)) as provider:
        with pytest.raises(SkopeoError) as error:
            provider.encrypt(image, key.parameters())
        assert_helpful(error.value, "PermissionDenied", str(key.path), "outside")
        key.path.rename(allowed / "kek")
        provider.encrypt(image, key.parameters(keypath="kek"))


def assert_helpful(error: SkopeoError, *words: str) -> None:
    assert_says(error, "hint: ", *words)


def assert_says(error: SkopeoError, *words: str) -> None:
    text = str(error)
    assert [word for word in words if word not in text] == [], text
    assert "Traceback" not in text
