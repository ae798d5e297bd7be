"""zstd layers, which guests cannot read once they are encrypted: compressed anew, or not at all."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

from tests.support.altered import altered_layer
from tests.support.command import KID, Command
from tests.support.documents import TAR, TAR_GZIP, Layer
from tests.support.image import ENCRYPTED, Image, write_image

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OWN = {"org.example.component": "kernel"}
TOC = {"io.github.containers.zstd-chunked.manifest-checksum": f"sha256:{'0' * 64}"}


@pytest.fixture
def compressed(plain: Image, tmp_path: Path) -> Image:
    """The image with its layers compressed by zstd, and annotations about that."""
    contents = [gzip.decompress(layer.blob) for layer in plain.layers]
    about = {"annotations": TOC | OWN}
    layers = [Layer(zstd.compress(each), f"{TAR}+zstd", each, about) for each in contents]
    return write_image(tmp_path / "compressed", layers)


def test_encrypt_transcodes_zstd_layer_to_gzip_with_same_content(
    plain: Image, compressed: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    encrypted, target = Image(tmp_path / "e"), Image(tmp_path / "d")
    arguments = ("--keyid", KID, "--keypath", key, "--verify", "full")
    out = command("encrypt", compressed.reference, encrypted.reference, *arguments)
    assert "compressed anew with gzip" in out.err
    assert "another digest than" in out.err
    assert "layers that were compressed anew stay so" in out.err
    assert all(layer.media_type == TAR_GZIP + ENCRYPTED for layer in encrypted.layers)
    for layer in encrypted.layers:
        assert TOC.keys().isdisjoint(layer.annotations)
        assert layer.annotations.items() >= OWN.items()
    assert encrypted.config == compressed.config
    command("verify", encrypted.reference, "--keypath", key, "--target", "coco")
    command("decrypt", encrypted.reference, target.reference, "--keypath", key)
    for layer, before in zip(target.layers, plain.layers, strict=True):
        assert gzip.decompress(layer.blob) == gzip.decompress(before.blob)


def test_encrypt_transcodes_zstd_layer_reproducibly(
    compressed: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    """So that it can be reused and compared: a gzip stream made here carries no time."""
    digests = []
    for name in ("one", "two"):
        encrypted, target = f"oci:{tmp_path}/e{name}", Image(tmp_path / name)
        arguments = ("--keyid", KID, "--keypath", key)
        command("encrypt", compressed.reference, encrypted, *arguments)
        command("decrypt", encrypted, target.reference, "--keypath", key)
        digests.append([layer["digest"] for layer in target.manifest["layers"]])
    assert digests[0] == digests[1]


def test_encrypt_refuses_malformed_zstd_layer(
    compressed: Image, tmp_path: Path, command: Command
) -> None:
    image = altered_layer(compressed, tmp_path / "altered", 1, lambda _: b"no zstd")
    target = tmp_path / "e"
    assert command("encrypt", image.reference, f"oci:{target}", "--sample", ok=False).code == 5
    assert not target.exists()


def test_encrypt_keeps_or_refuses_zstd_layer_as_told(
    compressed: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    encrypted, target = Image(tmp_path / "e"), Image(tmp_path / "d")
    arguments = (compressed.reference, encrypted.reference, "--keyid", KID, "--keypath", key)
    assert command("encrypt", *arguments, "--zstd", "refuse", ok=False).code == 7
    command("encrypt", *arguments, "--zstd", "keep")
    assert command("verify", encrypted.reference, "--target", "coco", ok=False).code == 3
    command("decrypt", encrypted.reference, target.reference, "--keypath", key)
    assert target.manifest == compressed.manifest
