"""``coco-kp encrypt``: all is encrypted, or nothing is there."""

from __future__ import annotations

import base64
import json
import os
import random
import stat
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from coco_kp.crypto import Kek
from coco_kp.errors import InputError, IntegrityError
from coco_kp.image.encrypt import encrypt_image
from coco_kp.keys.wrapper import KekRecipient, sample_recipient
from coco_kp.model.layer_encryption import MAX_PACKETS
from coco_kp.model.manifest import MAX_MANIFEST
from coco_kp.model.resource_uri import parse_key_id
from tests.support.altered import altered, altered_config
from tests.support.command import KID, Command, files
from tests.support.documents import Document
from tests.support.full_disk import full_disk
from tests.support.image import ENCRYPTED, Image, tar, write_image
from tests.support.layout import entries
from tests.support.recipients import Careless

OWN = ("--keyid", KID, "--keypath")


def test_encrypt_prints_destination_digest_and_keys_on_last_line(
    plain: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    out = command("encrypt", plain.reference, f"oci:{tmp_path}/e:app", *OWN, key).out
    (entry,) = entries(tmp_path / "e")
    last = out.splitlines()[-1]
    assert last == f"oci:{tmp_path}/e:app {entry['digest']}: layers 4 encrypted; keys {KID}"


def test_encrypt_encrypts_identical_layers_once_and_others_separately(encrypted: Image) -> None:
    first, empty, data, last = encrypted.layers
    assert first == last
    assert len({layer.packet["wrapped_data"] for layer in (first, empty, data)}) == 3
    blobs = [path for path in encrypted.folder.rglob("*") if path.is_file()]
    assert len(blobs) == 3 + 2 + 2, "layers, config and manifest, layout and index; nothing else"


def test_encrypt_json_describes_images_and_layers(
    plain: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    arguments = ("--layer", "0", "--layer", "3", "--format", "json")
    result = command("encrypt", plain.reference, f"oci:{tmp_path}/e", *OWN, key, *arguments).json
    assert result["key_ids"] == [KID]
    (image,) = result["images"]
    assert image["platform"] == "linux/amd64"
    assert [(layer["action"], layer["readable"]) for layer in image["layers"]] == [
        ("encrypt", False),
        ("unselected", True),
        ("unselected", True),
        ("encrypt", False),
    ]


def test_encrypt_dry_run_writes_nothing(plain: Image, tmp_path: Path, command: Command) -> None:
    before = files(tmp_path)
    out = command(
        *("encrypt", plain.reference, f"oci:{tmp_path}/e", "--dry-run"),
        *("--keyid", KID, "--generate-key", tmp_path / "new"),
    ).out
    assert files(tmp_path) == before
    assert not (tmp_path / "e").exists()
    assert out.count(" encrypt ") == 4
    assert out.splitlines()[-1].endswith("nothing was written")


class TestKeys:
    def test_encrypt_refuses_a_link_as_the_file_of_a_new_key_before_the_work(
        self, plain: Image, tmp_path: Path, command: Command
    ) -> None:
        new = tmp_path / "new"
        new.symlink_to(tmp_path / "elsewhere")
        arguments = ("--keyid", KID, "--generate-key", new)
        outcome = command("encrypt", plain.reference, f"oci:{tmp_path}/e", *arguments, ok=False)
        assert outcome.code == 7
        assert f"'{new}' exists, and a key file is never overwritten" in outcome.err
        assert not (tmp_path / "elsewhere").exists()

    def test_encrypt_reads_base64_key_from_stdin(
        self,
        plain: Image,
        key: Path,
        tmp_path: Path,
        command: Command,
    ) -> None:
        text = base64.b64encode(key.read_bytes()).decode() + "\n"
        target = f"oci:{tmp_path}/e"
        command("encrypt", plain.reference, target, "--keyid", KID, "--key", "-", stdin=text)
        command("verify", target, "--keypath", key)

    def test_encrypt_makes_generated_key_readable_by_owner_only(
        self, plain: Image, tmp_path: Path, command: Command
    ) -> None:
        new, target = tmp_path / "new", f"oci:{tmp_path}/e"
        command("encrypt", plain.reference, target, "--keyid", KID, "--generate-key", new)
        assert stat.S_IMODE(new.stat().st_mode) == 0o600
        command("verify", target, "--keypath", new)

    def test_encrypt_for_several_recipients_lets_each_open_every_layer(
        self,
        plain: Image,
        make_key: Callable[[str], Path],
        tmp_path: Path,
        command: Command,
    ) -> None:
        keys = [make_key(name) for name in ("a", "b", "c")]
        target = f"oci:{tmp_path}/e"
        command(
            *("encrypt", plain.reference, target, *OWN, keys[0]),
            *("--recipient", f"keyid=kbs:///default/key/2,keypath={keys[1]}"),
            *("--recipient", f"keyid=/default/key/3,keypath={keys[2]}"),
        )
        for path in keys:
            command("verify", target, "--keypath", path)
        assert command("verify", target, "--keypath", make_key("d"), ok=False).code == 4


class TestDestination:
    def test_encrypt_into_layout_replaces_own_name_and_keeps_others(
        self, plain: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        for name in ("one", "two", "one"):
            command("encrypt", plain.reference, f"oci:{tmp_path}/e:{name}", *OWN, key)
        for name in ("one", "two"):
            command("verify", f"oci:{tmp_path}/e:{name}", "--keypath", key)


class TestDamagedSource:
    """Whatever is wrong with the source, the destination is as it was."""

    def outcome(self, image: Image, tmp_path: Path, command: Command) -> int:
        target = tmp_path / "target"
        old = write_image(tmp_path / "old", [tar({"old": b"old"})])
        command("encrypt", old.reference, f"oci:{target}:app", "--sample")
        before = files(target)
        code = command("encrypt", image.reference, f"oci:{target}:app", "--sample", ok=False).code
        assert files(target) == before
        command("verify", f"oci:{target}:app", "--kbc", "sample", "--allow-sample")
        return code

    def largest(self, image: Image) -> Path:
        return max((image.folder / "blobs/sha256").iterdir(), key=lambda p: p.stat().st_size)

    def test_encrypt_of_source_with_flipped_bit_leaves_destination_unchanged(
        self, plain: Image, tmp_path: Path, command: Command
    ) -> None:
        path = self.largest(plain)
        data = bytearray(path.read_bytes())
        data[300_000] ^= 1
        path.write_bytes(data)
        assert self.outcome(plain, tmp_path, command) == 5

    @pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"x", lambda _: b""])
    def test_encrypt_of_source_with_layer_of_wrong_size_leaves_destination_unchanged(
        self, plain: Image, tmp_path: Path, command: Command, change: Callable[[bytes], bytes]
    ) -> None:
        path = self.largest(plain)
        path.write_bytes(change(path.read_bytes()))
        assert self.outcome(plain, tmp_path, command) == 5

    def test_encrypt_of_source_without_layer_blob_leaves_destination_unchanged(
        self, plain: Image, tmp_path: Path, command: Command
    ) -> None:
        self.largest(plain).unlink()
        assert self.outcome(plain, tmp_path, command) == 3

    def test_encrypt_of_source_with_config_of_another_image_leaves_destination_unchanged(
        self, plain: Image, tmp_path: Path, command: Command
    ) -> None:
        blob = plain.folder / "blobs/sha256" / plain.manifest["config"]["digest"][7:]
        blob.write_bytes(blob.read_bytes().replace(b"amd64", b"arm64"))
        assert self.outcome(plain, tmp_path, command) == 5


class TestSkipBase:
    def test_encrypt_skip_base_leaves_layers_of_base_readable(
        self, tmp_path: Path, key: Path, command: Command
    ) -> None:
        base_layers = [tar({"lib": b"x" * 1000}), tar({"bin": b"y" * 1000})]
        base = write_image(tmp_path / "base", base_layers)
        image = write_image(tmp_path / "app", [*base_layers, tar({"app": b"secret"})])
        target = Image(tmp_path / "e")
        arguments = (*OWN, key, "--skip-base", base.reference)
        out = command("encrypt", image.reference, target.reference, *arguments).out
        assert "layers 1 encrypted, 2 left readable" in out
        assert [layer.encrypted for layer in target.layers] == [False, False, True]
        assert target.layers[:2] == image.layers[:2]
        assert command("verify", target.reference, "--keypath", key, ok=False).code == 7
        command("verify", target.reference, "--keypath", key, "--skip-base", base.reference)

    def test_encrypt_skip_base_refuses_base_layer_that_config_only_claims(
        self, tmp_path: Path, key: Path, command: Command
    ) -> None:
        """A config that lies must not leave a secret layer readable."""
        base = write_image(tmp_path / "base", [tar({"lib": b"x"})])
        image = write_image(tmp_path / "app", [tar({"app": b"secret"}), tar({"more": b"z"})])
        claimed = json.loads(base.config)["rootfs"]["diff_ids"][0]
        image = with_diff_id(image, tmp_path / "lying", 0, claimed)
        target = tmp_path / "e"
        arguments = (*OWN, key, "--skip-base", base.reference)
        assert command("encrypt", image.reference, f"oci:{target}", *arguments, ok=False).code == 5
        assert not target.exists()


def test_encrypt_refuses_packet_that_lacks_layer_key(plain: Image, tmp_path: Path) -> None:
    target = tmp_path / "e"
    with pytest.raises(IntegrityError):
        encrypt_image(plain.reference, f"oci:{target}", [Careless(sample_recipient())])
    assert not target.exists()


def test_encrypt_verify_full_detects_wrong_diff_id_of_gzip_layer(
    plain: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    """It finds what no packet shows: a config that names another content for a gzip layer."""
    plain = with_diff_id(plain, tmp_path / "lying", 2, f"sha256:{'0' * 64}")
    target = tmp_path / "e"
    command("encrypt", plain.reference, f"oci:{target}", *OWN, key)
    full = ("--verify", "full")
    other = tmp_path / "f"
    assert command("encrypt", plain.reference, f"oci:{other}", *OWN, key, *full, ok=False).code == 5
    assert not other.exists()


def test_encrypt_and_decrypt_round_trip_image_of_sixty_layers(
    tmp_path: Path, key: Path, command: Command
) -> None:
    image = write_image(tmp_path / "many", [tar({f"f{n}": bytes([n])}) for n in range(60)])
    target = Image(tmp_path / "e")
    command("encrypt", image.reference, target.reference, *OWN, key, "--jobs", "4")
    assert [layer.media_type.endswith(ENCRYPTED) for layer in target.layers] == [True] * 60
    decrypted = Image(tmp_path / "d")
    command("decrypt", target.reference, decrypted.reference, "--keypath", key, "--jobs", "4")
    assert decrypted.layers == image.layers


def with_diff_id(image: Image, folder: Path, number: int, diff_id: str) -> Image:
    """Copy an image whose config names another content for a layer."""

    def change(config: Document) -> None:
        config["rootfs"]["diff_ids"][number] = diff_id

    return altered_config(image, folder, change)


def test_encrypt_and_rewrap_copy_encrypted_layers_that_bear_urls(
    encrypted: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    """Whoever writes URLs beside an encrypted layer does not make it lie elsewhere."""

    def with_urls(manifest: Document) -> None:
        manifest["layers"][0]["urls"] = ["https://example.invalid/layer"]

    image = altered(encrypted, tmp_path / "urls", with_urls)
    kept, rewrapped = Image(tmp_path / "kept"), Image(tmp_path / "rewrapped")
    command("encrypt", image.reference, kept.reference, *OWN, key, "--keep-encrypted")
    command(
        *("rewrap", image.reference, rewrapped.reference, "--keypath", key),
        *("--add", f"keyid=kbs:///default/key/2,keypath={key}"),
    )
    for copy in (kept, rewrapped):
        assert [layer.blob for layer in copy.layers] == [layer.blob for layer in encrypted.layers]


@pytest.mark.parametrize("layers", [1, 3])
def test_encrypt_names_folder_of_full_disk(
    layers: int, key: Path, tmp_path: Path, command: Command
) -> None:
    content = random.Random(1)
    big = write_image(
        tmp_path / "big", [tar({"data": content.randbytes(300_000)}) for _ in range(layers)]
    )
    before = files(tmp_path)
    with full_disk(100_000):
        done = command("encrypt", big.reference, f"oci:{tmp_path}/out", *OWN, key, ok=False)
    assert done.code == 3
    assert f"cannot write to '{tmp_path}/out': file too large" in done.err
    assert files(tmp_path) == before


def recipients(count: int) -> list[KekRecipient]:
    kids = [parse_key_id(f"kbs:///default/key/{number}") for number in range(count)]
    return [KekRecipient(kid, Kek(os.urandom(32))) for kid in kids]


@pytest.mark.parametrize(("room", "refused"), [(0, False), (-1, True)])
def test_encrypt_that_is_dry_knows_which_manifest_would_be_too_large(
    plain: Image, tmp_path: Path, *, room: int, refused: bool
) -> None:
    """A bound on packets' sizes would let the layers be encrypted before anybody knows."""
    many = recipients(MAX_PACKETS)
    small = Image(tmp_path / "small")
    encrypt_image(plain.reference, small.reference, many)
    (entry,) = entries(small.folder)
    around = len(',"annotations":{"x":""}')

    def padded(manifest: Document) -> None:
        length = MAX_MANIFEST - entry["size"] - around - room
        manifest["annotations"] = {"x": "x" * length}

    image = altered(plain, tmp_path / "padded", padded)
    with pytest.raises(InputError, match="would have") if refused else nullcontext():
        encrypt_image(image.reference, f"oci:{tmp_path}/e", many, dry_run=True)
    with pytest.raises(InputError, match="would have") if refused else nullcontext():
        encrypt_image(image.reference, f"oci:{tmp_path}/e", many)


def test_encrypt_that_is_dry_refuses_more_recipients_than_anybody_reads(
    plain: Image, tmp_path: Path
) -> None:
    """It was said once all layers were encrypted, when they were read back."""
    many = recipients(MAX_PACKETS + 1)
    with pytest.raises(InputError, match="more than 64 packets") as error:
        encrypt_image(plain.reference, f"oci:{tmp_path}/e", many, dry_run=True)
    assert error.value.hint == "name fewer recipients"
