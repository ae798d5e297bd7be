"""Images that skopeo, upstream's provider and coco-kp wrote decrypt to what they were made from."""

from __future__ import annotations

import tarfile
from base64 import b64decode
from typing import TYPE_CHECKING, Final

import pytest

from coco_kp.crypto import Kek
from coco_kp.errors import InputError
from coco_kp.image.decrypt import decrypt_image
from coco_kp.keys.wrapper import KekOpener
from tests.replay.recording import FOLDER, Recorded, recording
from tests.support.image import Image

if TYPE_CHECKING:
    from pathlib import Path

IMAGES: Final = {image["name"]: image for image in recording("images")["images"]}
ENCRYPTED: Final = [name for name, image in IMAGES.items() if image["keks"]]
PLAIN: Final = [name for name, image in IMAGES.items() if not image["keks"]]


@pytest.mark.parametrize("name", ENCRYPTED)
def test_decrypt_given_a_recorded_image_and_any_of_its_keys_yields_the_recorded_layers(
    name: str, tmp_path: Path
) -> None:
    recorded = IMAGES[name]
    source = unpacked(recorded, tmp_path / "source")
    for number, kek in enumerate(recorded["keks"].values()):
        opened = Image(tmp_path / f"opened-{number}")
        decrypt_image(source, opened.reference, [KekOpener(Kek(b64decode(kek)))])
        layers = opened.manifest["layers"]
        assert [layer["digest"] for layer in layers] == plain_digests(recorded)
        assert not any(layer.encrypted or layer.annotations for layer in opened.layers)


@pytest.mark.parametrize("name", PLAIN)
def test_decrypt_given_a_recorded_image_that_is_plain_says_so(name: str, tmp_path: Path) -> None:
    recorded = IMAGES[name]
    source = unpacked(recorded, tmp_path / "source")
    layers = Image(tmp_path / "source").manifest["layers"]
    assert [layer["digest"] for layer in layers] == plain_digests(recorded)
    with pytest.raises(InputError, match="has no encrypted layer"):
        decrypt_image(source, f"oci:{tmp_path / 'opened'}", [KekOpener(Kek(bytes(32)))])


def plain_digests(recorded: Recorded) -> list[str]:
    """Return the digests of a recorded image's layers when they are decrypted."""
    return [layer["plain_digest"] for layer in recorded["layers"]]


def unpacked(recorded: Recorded, folder: Path) -> str:
    """Unpack the layout of a recorded image and return its reference."""
    with tarfile.open(FOLDER / recorded["file"]) as archive:
        archive.extractall(folder, filter="data")
    return f"oci:{folder}:{recorded['reference']}"
