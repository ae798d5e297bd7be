"""``coco-kp decrypt``: the image as it was before."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.altered import altered, altered_config
from tests.support.command import KID, Command, files
from tests.support.documents import Document, Layer, gzipped
from tests.support.image import PACKETS, Image, tar, write_image
from tests.support.index import write_index
from tests.support.layout import entries


def test_decrypt_restores_the_same_image(
    plain: Image, encrypted: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    target = Image(tmp_path / "target")
    out = command("decrypt", encrypted.reference, target.reference, "--keypath", key).out
    assert target.manifest == plain.manifest
    assert target.layers == plain.layers
    assert target.config == plain.config
    assert out.splitlines()[-1].endswith(": layers 4 decrypted, 0 copied")


def test_decrypt_restores_foreign_annotations(
    plain: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    def annotate(manifest: Document) -> None:
        manifest["annotations"] = {"org.example": "image"}
        manifest["layers"][0]["annotations"] = {"org.example": "layer"}
        manifest["org.example.member"] = [1]

    image = altered(plain, tmp_path / "annotated", annotate)
    encrypted, target = Image(tmp_path / "e"), Image(tmp_path / "d")
    command("encrypt", image.reference, encrypted.reference, "--keyid", KID, "--keypath", key)
    assert encrypted.layers[0].annotations["org.example"] == "layer"
    assert encrypted.manifest["annotations"] == {"org.example": "image"}
    command("decrypt", encrypted.reference, target.reference, "--keypath", key)
    assert target.manifest == image.manifest


def test_decrypt_copies_layers_that_are_not_encrypted(
    plain: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    encrypted, target = Image(tmp_path / "e"), Image(tmp_path / "d")
    command(
        *("encrypt", plain.reference, encrypted.reference, "--layer", "2"),
        *("--keyid", KID, "--keypath", key),
    )
    out = command("decrypt", encrypted.reference, target.reference, "--keypath", key).out
    assert "layers 1 decrypted, 3 copied" in out
    assert target.layers == plain.layers


def test_decrypt_accepts_keys_file_or_kbc(plain: Image, tmp_path: Path, command: Command) -> None:
    keys = tmp_path / "keys.json"
    command("keys", "generate", "--count", "1", "-o", keys)
    key = tmp_path / "exported"
    command("keys", "export", keys, "default/key/key_id1", key)
    encrypted = f"oci:{tmp_path}/e"
    arguments = ("--keyid", "/default/key/key_id1", "--keypath", key)
    command("encrypt", plain.reference, encrypted, *arguments)
    for number, opening in enumerate(
        [("--keys", keys), ("--kbc", "offline_fs_kbc::null", "--keys", keys), ("--keypath", key)]
    ):
        target = Image(tmp_path / f"target{number}")
        command("decrypt", encrypted, target.reference, *opening)
        assert target.layers == plain.layers


def test_decrypt_finds_matching_key_among_several(
    plain: Image,
    encrypted: Image,
    key: Path,
    make_key: Callable[[str], Path],
    tmp_path: Path,
    command: Command,
) -> None:
    target = Image(tmp_path / "target")
    command(
        *("decrypt", encrypted.reference, target.reference),
        *("--keypath", make_key("other"), "--keypath", key),
    )
    assert target.layers == plain.layers


def test_decrypt_tries_next_packet_when_one_does_not_open(
    plain: Image, encrypted: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    def change(manifest: Document) -> None:
        for layer in manifest["layers"]:
            packets = layer["annotations"].pop(PACKETS)
            layer["annotations"] |= {
                "org.opencontainers.image.enc.keys.jwe": "bm90IG91cnM=",
                PACKETS: f"e30=,{packets}",
            }

    image = altered(encrypted, tmp_path / "altered", change)
    target = Image(tmp_path / "target")
    command("decrypt", image.reference, target.reference, "--keypath", key)
    assert target.layers == plain.layers


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "dir"])
def test_decrypt_round_trips_through_every_writable_transport(
    plain: Image, key: Path, tmp_path: Path, command: Command, transport: str
) -> None:
    encrypted, target = f"{transport}:{tmp_path}/e", f"{transport}:{tmp_path}/d"
    command("encrypt", plain.reference, encrypted, "--keyid", KID, "--keypath", key)
    command("verify", encrypted, "--keypath", key)
    command("decrypt", encrypted, target, "--keypath", key)
    inspected = command("inspect", target, "--format", "json").json
    digests = [layer["digest"] for layer in inspected["images"][0]["layers"]]
    assert digests == [layer["digest"] for layer in plain.manifest["layers"]]


def test_decrypt_json_names_destination_digest_and_counts(
    encrypted: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    target = tmp_path / "d"
    arguments = (encrypted.reference, f"oci:{target}", "--keypath", key, "--format", "json")
    result = command("decrypt", *arguments).json
    (entry,) = entries(target)
    assert result == {
        "destination": f"oci:{target}",
        "digest": entry["digest"],
        "dry_run": False,
        "decrypted": 4,
        "copied": 0,
    }


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("compress", [True, False])
def test_decrypt_restores_and_checks_single_layer_with_any_number_of_jobs(
    key: Path, tmp_path: Path, command: Command, jobs: int, *, compress: bool
) -> None:
    archive = tar({"data": bytes(3_000_000)})
    plain = write_image(tmp_path / "single", [gzipped(archive) if compress else Layer(archive)])
    encrypted, target = Image(tmp_path / "e"), Image(tmp_path / "d")
    arguments = ("--keyid", KID, "--keypath", key, "--jobs", jobs, "--verify", "full")
    command("encrypt", plain.reference, encrypted.reference, *arguments)
    opening = ("--keypath", key, "--jobs", jobs)
    command("decrypt", encrypted.reference, target.reference, *opening)
    assert target.layers == plain.layers

    def lie(config: Document) -> None:
        config["rootfs"]["diff_ids"] = [f"sha256:{'0' * 64}"]

    image = altered_config(encrypted, tmp_path / "altered", lie)
    outcome = command("verify", image.reference, *opening, ok=False)
    assert outcome.code == 5
    assert "not the one that the config names" in outcome.err


def test_decrypt_into_docker_archive_yields_the_image_that_was_encrypted(
    plain: Image, encrypted: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    """A list of one image, as builders write, is that image there."""
    archive = f"docker-archive:{tmp_path}/image.tar:team/app:1"
    listed = write_index(tmp_path / "listed", {encrypted: {}})
    command("decrypt", listed, archive, "--keypath", key)
    out = tmp_path / "out"
    with tarfile.open(tmp_path / "image.tar") as stream:
        stream.extractall(out, filter="data")
    (document,) = json.loads((out / "manifest.json").read_bytes())
    index = json.loads((out / "index.json").read_bytes())
    assert document["RepoTags"] == ["docker.io/team/app:1"]
    assert (out / document["Config"]).read_bytes() == plain.config
    assert [(out / name).read_bytes() for name in document["Layers"]] == [
        layer.blob for layer in plain.layers
    ]
    assert index["manifests"][0]["annotations"] == {
        "io.containerd.image.name": "docker.io/team/app:1",
        "org.opencontainers.image.ref.name": "1",
    }
    again = Image(tmp_path / "again")
    command("encrypt", archive, again.reference, "--keyid", KID, "--keypath", key)
    for name in (archive, f"oci-archive:{tmp_path}/image.tar"):
        assert command("inspect", name).code == 0
    refused = command("decrypt", encrypted.reference, archive, "--keypath", key, ok=False)
    assert refused.code == 7
    assert "exists" in refused.err


def test_decrypt_into_docker_archive_refuses_list_of_several_images(
    encrypted: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    arm = {"platform": {"os": "linux", "architecture": "arm64"}}
    copy = Image(shutil.copytree(encrypted.folder, tmp_path / "copy"))
    listed = write_index(tmp_path / "listed", {encrypted: {}, copy: arm})
    archive = tmp_path / "image.tar"
    done = command("decrypt", listed, f"docker-archive:{archive}", "--keypath", key, ok=False)
    assert done.code == 3
    assert "can hold one image, not the 2 of an index" in done.err
    assert not archive.exists()


def test_decrypt_dry_run_tries_the_key_and_writes_nothing(
    encrypted: Image, key: Path, make_key: Callable[[str], Path], tmp_path: Path, command: Command
) -> None:
    before, target = files(encrypted.folder), tmp_path / "d"
    arguments = ("decrypt", encrypted.reference, f"oci:{target}", "--dry-run", "--keypath")
    assert command(*arguments, key, "--format", "json").json == {
        "destination": f"oci:{target}",
        "digest": None,
        "dry_run": True,
        "decrypted": 4,
        "copied": 0,
    }
    assert "nothing was written" in command(*arguments, key).out
    assert command(*arguments, make_key("other"), ok=False).code == 4
    assert files(encrypted.folder) == before
    assert not target.exists()
