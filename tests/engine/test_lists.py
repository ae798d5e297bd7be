"""Indexes: whole unless the user picks, without what describes the plaintext."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import KID, Command
from tests.support.documents import Document, Layer, config
from tests.support.image import Image, tar, write_image
from tests.support.index import layer_digests, read_index, read_manifest, write_index
from tests.support.layout import entries
from tests.support.schema import check_schema


@pytest.fixture
def listed(tmp_path: Path) -> str:
    """Two images and an attestation of the first, as BuildKit writes them."""
    return write_attested(tmp_path, b"{}")


def write_attested(
    tmp_path: Path, statement: bytes, subject: Callable[[Document], Document] | None = None
) -> str:
    """Write two images and an attestation of the first, which holds ``statement``."""
    images = {
        write_image(tmp_path / name, [tar({"arch": name.encode()})]): {
            "platform": {"os": "linux", "architecture": name}
        }
        for name in ("amd64", "arm64")
    }
    unknown = {"os": "unknown", "architecture": "unknown"}
    (described,) = entries(next(iter(images)).folder)
    layer = Layer(statement, "application/vnd.in-toto+json")
    settings = config([layer.diff_id], **unknown)
    more = {"subject": subject(described)} if subject else {}
    attestation = write_image(tmp_path / "attestation", [layer], settings=settings, **more)
    about = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": described["digest"],
    }
    return write_index(
        tmp_path / "list", {**images, attestation: {"annotations": about, "platform": unknown}}
    )


def test_encrypt_of_index_leaves_out_attestation_and_names_it(
    listed: str, tmp_path: Path, command: Command
) -> None:
    left_out = read_index(tmp_path / "list")[2]["digest"]
    outcome = command("encrypt", listed, f"oci:{tmp_path}/e", "--sample", "-q")
    assert len(read_index(tmp_path / "e")) == 2
    assert outcome.out.startswith(f"left out: attestation {left_out} for unknown/unknown\n")
    plan = command(
        *("encrypt", listed, f"oci:{tmp_path}/e", "--sample", "--dry-run", "--format", "json")
    ).json
    assert plan["attestations"] == []
    assert plan["left_out"] == [
        {"digest": left_out, "platform": "unknown/unknown", "what": "attestation"}
    ]


def test_encrypt_of_index_keeps_attestation_on_request_and_names_it(
    listed: str, tmp_path: Path, command: Command
) -> None:
    target = f"oci:{tmp_path}/e"
    outcome = command("encrypt", listed, target, "--sample", "-q", "--keep-attestations")
    before, after = read_index(tmp_path / "list"), read_index(tmp_path / "e")
    kept = before[2]["digest"]
    assert after[2]["digest"] == kept
    assert after[2]["annotations"]["vnd.docker.reference.digest"] == after[0]["digest"]
    assert [entry["platform"] for entry in after] == [entry["platform"] for entry in before]
    assert outcome.out.startswith(f"left readable: attestation {kept}: it describes")
    command("decrypt", target, f"oci:{tmp_path}/d", "--kbc", "sample")
    assert read_index(tmp_path / "d") == before


def test_subject_of_kept_attestation_follows_its_image_and_comes_back(
    tmp_path: Path, command: Command
) -> None:
    listed = write_attested(tmp_path, b"{}", subject=lambda described: described)
    command("encrypt", listed, f"oci:{tmp_path}/e", "--sample", "--keep-attestations")
    command("decrypt", f"oci:{tmp_path}/e", f"oci:{tmp_path}/d", "--kbc", "sample")
    before, encrypted, decrypted = (read_index(tmp_path / name) for name in ("list", "e", "d"))
    assert encrypted[2]["digest"] != before[2]["digest"]
    for name, index in (("list", before), ("e", encrypted), ("d", decrypted)):
        described, _, attestation = index
        subject = read_manifest(tmp_path / name, attestation)["subject"]
        members = ("mediaType", "digest", "size")
        assert [subject[m] for m in members] == [described[m] for m in members]
        assert attestation["annotations"]["vnd.docker.reference.digest"] == described["digest"]
    assert decrypted[0]["digest"] == before[0]["digest"]


def test_encrypt_of_one_platform_names_variant_and_attestation_that_it_leaves_out(
    tmp_path: Path, command: Command
) -> None:
    amd64, arm64 = ({"os": "linux", "architecture": name} for name in ("amd64", "arm64"))
    platforms = {
        "plain": amd64,
        "nydus": amd64 | {"os.features": ["nydus.remoteimage.v1"]},
        "arm64": arm64,
        "attestation": {"os": "unknown", "architecture": "unknown"},
    }
    images = {
        write_image(tmp_path / name, [tar({"name": name.encode()})]): {"platform": platform}
        for name, platform in platforms.items()
    }
    listed = write_index(tmp_path / "list", images)
    _, nydus, other, attestation = (entry["digest"] for entry in read_index(tmp_path / "list"))
    arguments = (listed, f"oci:{tmp_path}/e", "--sample", "--platform", "linux/amd64")
    lines = command("encrypt", *arguments).out.splitlines()
    assert lines[:-1] == [
        f"left out: variant {nydus} for linux/amd64",
        f"left out: attestation {attestation} for unknown/unknown",
    ]
    left_out = command("encrypt", *arguments, "--format", "json").json["left_out"]
    assert [(left["digest"], left["what"]) for left in left_out] == [
        (nydus, "variant"),
        (other, "image"),
        (attestation, "attestation"),
    ]


def test_verify_has_row_for_readable_attestation_and_fails_unless_it_is_allowed(
    listed: str, tmp_path: Path, key: Path, command: Command
) -> None:
    target = f"oci:{tmp_path}/e"
    arguments = ("--keyid", KID, "--keypath", key, "--keep-attestations")
    command("encrypt", listed, target, *arguments)
    attestation = read_index(tmp_path / "e")[2]["digest"]
    outcome = command("verify", target, "--keypath", key, ok=False)
    assert outcome.code == 7
    assert f"layer 0 of attestation {attestation}: an attestation is readable" in outcome.err
    allowed = ("--allow-attestations", "--format", "json")
    row = command("verify", target, "--keypath", key, *allowed).json["layers"][2]
    assert (row["image"], row["encrypted"]) == (f"attestation {attestation}", False)
    assert row["checked"] == ["digest"]
    for_guests = ("--target", "coco")  # which pull no attestation
    command("verify", target, "--keypath", key, "--allow-attestations", *for_guests)
    by_number = ("--allow-layer", "0")
    assert command("verify", target, "--keypath", key, *by_number, ok=False).code == 7


def test_verify_of_attestation_alone_says_that_there_is_no_image(
    listed: str, tmp_path: Path, command: Command
) -> None:
    assert listed
    alone = f"oci:{tmp_path}/attestation"
    outcome = command("verify", alone, "--allow-attestations", ok=False)
    assert (outcome.code, outcome.err) == (3, "coco-kp: the image has no layer\n")


def test_encrypt_of_one_platform_yields_image_and_of_several_an_index(
    listed: str, tmp_path: Path, command: Command
) -> None:
    command("encrypt", listed, f"oci:{tmp_path}/one", "--sample", "--platform", "linux/arm64")
    assert json.loads(Image(tmp_path / "one").config)["rootfs"]
    assert len(Image(tmp_path / "one").layers) == 1
    both = ("--platform", "linux/arm64", "--platform", "linux/amd64")
    command("encrypt", listed, f"oci:{tmp_path}/two", "--sample", *both)
    assert len(read_index(tmp_path / "two")) == 2
    assert layer_digests(tmp_path / "two").isdisjoint(layer_digests(tmp_path / "list"))


def test_rewrap_and_inspect_cover_every_image_of_index(
    listed: str, tmp_path: Path, key: Path, command: Command
) -> None:
    target = f"oci:{tmp_path}/e"
    command("encrypt", listed, target, "--sample", "--keep-attestations")
    sample = ("--kbc", "sample", "--to-keyid", "/default/key/1", "--to-keypath", key)
    command("rewrap", target, *sample)
    images = command("inspect", target, "--format", "json").json["images"]
    assert [image["attestation"] for image in images] == [False, False, True]
    kids = {r["kid"] for i in images for layer in i["layers"] for r in layer["recipients"]}
    assert kids == {"kbs:///default/key/1"}
    command("verify", target, "--keypath", key, "--allow-attestations")


def test_inspect_of_list_shows_what_is_there_and_names_what_is_missing(
    listed: str, tmp_path: Path, command: Command
) -> None:
    amd64, arm64, attestation = (entry["digest"] for entry in read_index(tmp_path / "list"))
    blobs = tmp_path / "list/blobs/sha256"
    (blobs / arm64.removeprefix("sha256:")).unlink()
    document = command("inspect", listed, "--format", "json").json
    assert [image["digest"] for image in document["images"]] == [amd64, attestation]
    (missing,) = document["missing"]
    assert (missing["platform"], missing["digest"]) == ("linux/arm64", arm64)
    check_schema(document, command("schema", "inspect").json)
    table = [line.split() for line in command("inspect", listed).out.splitlines()]
    assert ["linux/arm64", "-", "-", "missing", "-", "-", arm64] in table
    assert any(row[0] == "linux/amd64" for row in table)
    for digest in (amd64, attestation):
        (blobs / digest.removeprefix("sha256:")).unlink()
    outcome = command("inspect", listed, ok=False)
    assert (outcome.code, outcome.out) == (3, "")
    assert "lacks all manifests that it lists" in outcome.err


def test_inspect_of_list_does_not_take_damaged_manifest_for_missing(
    listed: str, tmp_path: Path, command: Command
) -> None:
    digest = read_index(tmp_path / "list")[1]["digest"].removeprefix("sha256:")
    (tmp_path / "list/blobs/sha256" / digest).write_bytes(b"{}")
    assert command("inspect", listed, ok=False).code == 5


SECRET = tar({"secret": b"of the image"})


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (SECRET, "a tar"),
        (gzip.compress(SECRET, mtime=0), "gzip"),
        (b"\x28\xb5\x2f\xfd, and a frame", "zstd"),
    ],
    ids=["tar", "gzip", "zstd"],
)
def test_attestation_that_holds_layer_of_image_is_not_kept_and_not_allowed(
    tmp_path: Path, key: Path, command: Command, content: bytes, kind: str
) -> None:
    listed = write_attested(tmp_path, content)
    target = f"oci:{tmp_path}/e"
    arguments = ("--keyid", KID, "--keypath", key, "--keep-attestations")
    outcome = command("encrypt", listed, target, *arguments, ok=False)
    assert outcome.code == 7
    assert f"is plainly {kind}" in outcome.err
    assert not (tmp_path / "e").exists()
    verified = command("verify", listed, "--allow-attestations", "--format", "json", ok=False)
    (finding,) = verified.json["layers"][2]["findings"]
    assert verified.code == 7
    assert f"is plainly {kind}" in finding["message"]


def test_attestation_that_is_longer_than_any_statement_is_neither_kept_nor_read(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coco_kp.image.layer.MAX_STATEMENT", 100)
    listed = write_attested(tmp_path, b"{%s}" % (b" " * 99))
    arguments = ("encrypt", listed, f"oci:{tmp_path}/e", "--sample", "--keep-attestations")
    outcome = command(*arguments, ok=False)
    assert outcome.code == 7
    assert "has 101 bytes, over 100" in outcome.err
    assert not (tmp_path / "e").exists()
    verified = command("verify", listed, "--allow-attestations", "--format", "json", ok=False)
    row = verified.json["layers"][2]
    assert (row["verdict"], row["checked"]) == ("failed", [])
