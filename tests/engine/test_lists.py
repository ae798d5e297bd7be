"""Lists of images: whole unless the user picks, and what describes the plaintext is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.altered import altered
from tests.support.command import Command
from tests.support.documents import Document
from tests.support.image import Image, tar, write_image
from tests.support.index import layer_digests, read_index, write_index


@pytest.fixture
def listed(tmp_path: Path) -> str:
    """Two images and an attestation of the first, as BuildKit writes them."""
    images = {
        write_image(tmp_path / name, [tar({"arch": name.encode()})]): {
            "platform": {"os": "linux", "architecture": name}
        }
        for name in ("amd64", "arm64")
    }

    def attest(manifest: Document) -> None:
        manifest["layers"][0]["mediaType"] = "application/vnd.in-toto+json"

    statement = write_image(tmp_path / "statement", [b"{}"], compress=False)
    attestation = altered(statement, tmp_path / "attestation", attest)
    about = {"vnd.docker.reference.type": "attestation-manifest"}
    unknown = {"os": "unknown", "architecture": "unknown"}
    return write_index(
        tmp_path / "list", {**images, attestation: {"annotations": about, "platform": unknown}}
    )


def test_encrypt_of_index_keeps_attestation_and_names_it(
    listed: str, tmp_path: Path, command: Command
) -> None:
    outcome = command("encrypt", listed, f"oci:{tmp_path}/e", "--sample")
    before, after = read_index(tmp_path / "list"), read_index(tmp_path / "e")
    assert after[2] == before[2]
    assert [entry["platform"] for entry in after] == [entry["platform"] for entry in before]
    assert f"{before[2]['digest']} stays as it is" in outcome.err
    command("verify", f"oci:{tmp_path}/e", "--kbc", "sample", "--allow-sample")
    command("decrypt", f"oci:{tmp_path}/e", f"oci:{tmp_path}/d", "--kbc", "sample")
    assert read_index(tmp_path / "d") == before


def test_encrypt_of_index_drops_attestation_on_request(
    listed: str, tmp_path: Path, command: Command
) -> None:
    outcome = command("encrypt", listed, f"oci:{tmp_path}/e", "--sample", "--drop-attestations")
    assert len(read_index(tmp_path / "e")) == 2
    assert "is left out" in outcome.err


def test_encrypt_of_one_platform_yields_image_and_of_several_an_index(
    listed: str, tmp_path: Path, command: Command
) -> None:
    command("encrypt", listed, f"oci:{tmp_path}/one", "--sample", "--platform", "linux/arm64")
    assert json.loads(Image(tmp_path / "one").config)["rootfs"]
    assert len(Image(tmp_path / "one").layers) == 1
    both = ("--platform", "linux/arm64", "--platform", "linux/amd64", "--drop-attestations")
    command("encrypt", listed, f"oci:{tmp_path}/two", "--sample", *both)
    assert len(read_index(tmp_path / "two")) == 2
    assert layer_digests(tmp_path / "two").isdisjoint(layer_digests(tmp_path / "list"))


def test_rewrap_and_inspect_cover_every_image_of_index(
    listed: str, tmp_path: Path, key: Path, command: Command
) -> None:
    target = f"oci:{tmp_path}/e"
    command("encrypt", listed, target, "--sample")
    sample = ("--kbc", "sample", "--to-keyid", "/default/key/1", "--to-keypath", key)
    command("rewrap", target, *sample)
    images = command("inspect", target, "--format", "json").json["images"]
    assert [image["attestation"] for image in images] == [False, False, True]
    kids = {r["kid"] for i in images for layer in i["layers"] for r in layer["recipients"]}
    assert kids == {"kbs:///default/key/1"}
    command("verify", target, "--keypath", key)
