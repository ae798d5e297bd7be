"""``coco-kp verify --target coco`` reads each layer's content as a guest would unpack it."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

from tests.support.altered import altered_layer
from tests.support.command import KID, Command
from tests.support.documents import Layer, gzipped
from tests.support.image import Image, write_image
from tests.support.tar_blocks import END, entry

GOOD = entry(b"etc/motd", b"hello") + END
BAD = entry(b"etc/motd", b"hello") + entry(b"topsecret", kind=b"1", target=b"none") + END
SAID = "layer 1 of linux/amd64: guests refuse the layer's content: the entry at block 2 leads to"


@pytest.fixture(params=["gzip", "plain"])
def bad(request: pytest.FixtureRequest, tmp_path: Path) -> Image:
    """An image whose second layer no guest unpacks."""
    packed = gzipped if request.param == "gzip" else Layer
    return write_image(tmp_path / "bad", [packed(GOOD), packed(BAD)])


@pytest.fixture
def sealed(bad: Image, key: Path, tmp_path: Path, command: Command) -> Image:
    """The same, encrypted: `encrypt` and `decrypt` carry what they are given."""
    image = Image(tmp_path / "sealed")
    command("encrypt", bad.reference, image.reference, "--keyid", KID, "--keypath", key)
    return image


@pytest.mark.parametrize("jobs", [1, 2])
def test_verify_target_finds_encrypted_content_that_guests_refuse(
    sealed: Image, key: Path, command: Command, jobs: int
) -> None:
    arguments = ("verify", sealed.reference, "--keypath", key, "--jobs", jobs)
    command(*arguments)
    outcome = command(*arguments, "--target", "coco", ok=False)
    assert outcome.code == 3
    assert SAID in outcome.err
    assert "topsecret" not in outcome.out + outcome.err


def test_verify_target_finds_it_where_two_threads_read_the_only_layer(
    key: Path, tmp_path: Path, command: Command
) -> None:
    image = write_image(tmp_path / "image", [BAD])
    sealed = f"oci:{tmp_path}/sealed"
    command("encrypt", image.reference, sealed, "--keyid", KID, "--keypath", key)
    arguments = ("verify", sealed, "--keypath", key, "--jobs", 2)
    command(*arguments)
    outcome = command(*arguments, "--target", "coco", ok=False)
    assert SAID.replace("layer 1", "layer 0") in outcome.err


def test_verify_target_finds_readable_content_that_guests_refuse(
    bad: Image, command: Command
) -> None:
    arguments = ("verify", bad.reference, "--allow-layer", 0, "--allow-layer", 1)
    command(*arguments)
    outcome = command(*arguments, "--target", "coco", ok=False)
    assert outcome.code == 3
    assert SAID in outcome.err


def test_verify_target_lists_content_as_checked_where_it_was(
    encrypted: Image, key: Path, command: Command
) -> None:
    def checked(*more: object) -> list[str]:
        outcome = command("verify", encrypted.reference, *more, "--format", "json")
        found: list[str] = outcome.json["layers"][0]["checked"]
        return found

    everything = ["packet", "digest", "hmac", "plain digest", "diff_id"]
    assert checked("--keypath", key) == everything
    assert checked("--keypath", key, "--target", "coco") == [*everything, "tar"]
    assert checked("--target", "coco") == ["digest"]


def test_verify_target_says_of_altered_layer_that_it_was_altered_alone(
    sealed: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    image = altered_layer(sealed, tmp_path / "altered", 1, lambda blob: bytes(len(blob)))
    outcome = command(
        *("verify", image.reference, "--keypath", key, "--target", "coco", "--format", "json"),
        ok=False,
    )
    assert outcome.code == 5
    (finding,) = outcome.json["layers"][1]["findings"]
    assert "guests refuse" not in str(finding)


def test_verify_target_finds_checksum_in_the_header_of_any_gzip_member(
    key: Path, tmp_path: Path, command: Command
) -> None:
    """Guests take it for the first bytes of deflate (guest.json, "with a header CRC")."""
    image = write_image(tmp_path / "image", [GOOD, GOOD])
    plain = gzip.compress(b"", mtime=0)
    header = plain[:3] + b"\x02" + plain[4:10]
    odd = header + (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little") + plain[10:]
    image = altered_layer(image, tmp_path / "odd", 1, lambda blob: blob + odd)
    sealed = f"oci:{tmp_path}/sealed"
    command("encrypt", image.reference, sealed, "--keyid", KID, "--keypath", key)
    command("verify", sealed, "--keypath", key)
    outcome = command("verify", sealed, "--keypath", key, "--target", "coco", ok=False)
    assert outcome.code == 3
    assert "it has a gzip header with a checksum (FHCRC)" in outcome.err
