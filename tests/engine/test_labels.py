"""Layers that are not what their label says, and what may stay readable beside encrypted ones."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.altered import altered, altered_config, altered_layer
from tests.support.command import KID, Command
from tests.support.documents import TAR, TAR_GZIP, Document, Layer, sha256
from tests.support.image import ENCRYPTED, Image, tar, write_image

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ARCHIVE = tar({"etc/motd": b"hello"})
DOCKER = "application/vnd.docker.image.rootfs.diff.tar"
OWN = ("--keyid", KID, "--keypath")


def labelled(folder: Path, data: bytes, media_type: str, content: bytes = ARCHIVE) -> Image:
    """Write an image whose one layer has these bytes under this label."""
    return write_image(folder, [Layer(data, media_type, content)])


@pytest.mark.parametrize(
    ("label", "data", "written"),
    [
        (TAR_GZIP, ARCHIVE, TAR),
        (f"{TAR}+zstd", ARCHIVE, TAR),
        (f"{TAR}+zstd", gzip.compress(ARCHIVE), TAR_GZIP),
        (TAR, gzip.compress(ARCHIVE), TAR_GZIP),
        (f"{DOCKER}.gzip", ARCHIVE, TAR),
        (DOCKER, gzip.compress(ARCHIVE), TAR_GZIP),
    ],
)
@pytest.mark.parametrize("transport", ["oci", "oci-archive"])
def test_encrypt_given_layer_under_wrong_label_names_what_it_is_and_says_so(
    tmp_path: Path,
    key: Path,
    command: Command,
    label: str,
    data: bytes,
    written: str,
    transport: str,
) -> None:
    """From a file it is looked at in place, from an archive the first bytes come but once."""
    plain = labelled(tmp_path / "plain", data, label)
    source = plain.reference
    if transport == "oci-archive":
        source = f"oci-archive:{shutil.make_archive(str(tmp_path / 'a'), 'tar', plain.folder)}"
    encrypted, target = Image(tmp_path / "e"), Image(tmp_path / "d")
    full = ("--verify", "full")
    out = command("encrypt", source, encrypted.reference, *OWN, key, *full)
    assert f"it is written as {written}{ENCRYPTED}" in out.err
    assert [layer.media_type for layer in encrypted.layers] == [written + ENCRYPTED]
    command("verify", encrypted.reference, "--keypath", key, "--target", "coco")
    command("decrypt", encrypted.reference, target.reference, "--keypath", key)
    assert [(layer.media_type, layer.blob) for layer in target.layers] == [(written, data)]


@pytest.mark.parametrize("label", [TAR_GZIP, TAR, f"{DOCKER}.zstd"])
def test_encrypt_given_zstd_under_any_label_compresses_it_anew(
    tmp_path: Path, key: Path, command: Command, label: str
) -> None:
    plain = labelled(tmp_path / "plain", zstd.compress(ARCHIVE), label)
    encrypted, target = Image(tmp_path / "e"), Image(tmp_path / "d")
    command("encrypt", plain.reference, encrypted.reference, *OWN, key)
    assert [layer.media_type for layer in encrypted.layers] == [TAR_GZIP + ENCRYPTED]
    command("verify", encrypted.reference, "--keypath", key, "--target", "coco")
    command("decrypt", encrypted.reference, target.reference, "--keypath", key)
    assert [gzip.decompress(layer.blob) for layer in target.layers] == [ARCHIVE]


@pytest.mark.parametrize(
    ("data", "options", "code"),
    [
        (b"\xfd7zXZ\x00 and so on", (), 7),
        (b"BZh91AY&SY and so on", (), 7),
        (b"nothing that anybody unpacks", (), 5),
        (zstd.compress(ARCHIVE), ("--zstd", "refuse"), 7),
    ],
    ids=["xz", "bzip2", "garbage", "zstd refused"],
)
def test_encrypt_given_layer_that_nobody_could_open_refuses_it(
    tmp_path: Path, key: Path, command: Command, data: bytes, options: tuple[str, ...], code: int
) -> None:
    plain, target = labelled(tmp_path / "plain", data, TAR_GZIP), tmp_path / "e"
    arguments = (plain.reference, f"oci:{target}", *OWN, key, *options)
    assert command("encrypt", *arguments, ok=False).code == code
    assert not target.exists()


@pytest.mark.parametrize("readable", [False, True])
@pytest.mark.parametrize("rest", [b"\x1f\x8b", bytes(512), b"garbage"])
def test_decrypt_gives_back_odd_gzip_with_wrong_diff_id_byte_for_byte(
    tmp_path: Path, key: Path, command: Command, rest: bytes, *, readable: bool
) -> None:
    odd = Layer(gzip.compress(ARCHIVE) + rest, TAR_GZIP, b"something else")
    plain = write_image(tmp_path / "lying", [odd, tar({"more": b""})])
    encrypted, target = Image(tmp_path / "e"), Image(tmp_path / "d")
    layer = ("--layer", "1") if readable else ()
    command("encrypt", plain.reference, encrypted.reference, *OWN, key, *layer)
    allowed = ("--allow-layer", "0") if readable else ()
    opening = ("--keypath", key)
    assert command("verify", encrypted.reference, *opening, *allowed, ok=False).code == 5
    command("decrypt", encrypted.reference, target.reference, *opening)
    assert target.manifest == plain.manifest
    assert target.layers == plain.layers


def test_decrypt_gives_back_layer_that_was_encrypted_under_wrong_label(
    tmp_path: Path, key: Path, command: Command
) -> None:
    """As skopeo does it, and coco-kp did: its bytes are those of the diff_id, and no gzip."""
    plain = write_image(tmp_path / "plain", [Layer(ARCHIVE)])
    encrypted, target = Image(tmp_path / "e"), Image(tmp_path / "d")
    command("encrypt", plain.reference, encrypted.reference, *OWN, key)

    def call_it_gzip(manifest: Document) -> None:
        manifest["layers"][0]["mediaType"] = TAR_GZIP + ENCRYPTED

    wrong = altered(encrypted, tmp_path / "wrong", call_it_gzip)
    assert command("verify", wrong.reference, "--keypath", key, ok=False).code == 5
    command("decrypt", wrong.reference, target.reference, "--keypath", key)
    assert [(layer.media_type, layer.blob) for layer in target.layers] == [(TAR_GZIP, ARCHIVE)]


@pytest.mark.parametrize("data", [ARCHIVE, gzip.compress(ARCHIVE), zstd.compress(ARCHIVE)])
def test_encrypt_refuses_to_keep_archive_that_is_called_encrypted(
    encrypted: Image, key: Path, tmp_path: Path, command: Command, data: bytes
) -> None:
    image = altered_layer(encrypted, tmp_path / "posing", 0, lambda _: data)
    target = tmp_path / "e"
    arguments = (image.reference, f"oci:{target}", *OWN, key, "--keep-encrypted")
    outcome = command("encrypt", *arguments, ok=False)
    assert (outcome.code, "is called encrypted, but is plainly" in outcome.err) == (7, True)
    assert not target.exists()
    command("encrypt", encrypted.reference, f"oci:{target}", *arguments[2:])


class TestKept:
    """Layers that are encrypted already, beside one that is not."""

    @pytest.fixture
    def half(self, plain: Image, key: Path, tmp_path: Path, command: Command) -> str:
        target = f"oci:{tmp_path}/half"
        command("encrypt", plain.reference, target, *OWN, key, "--layer", "2")
        return target

    def test_encrypt_refuses_another_key_under_key_id_of_layer_that_it_keeps(
        self,
        half: str,
        key: Path,
        make_key: Callable[[str], Path],
        tmp_path: Path,
        command: Command,
    ) -> None:
        target, other = tmp_path / "e", make_key("other")
        arguments = ("encrypt", half, f"oci:{target}", "--keep-encrypted")
        outcome = command(*arguments, *OWN, other, ok=False)
        assert (outcome.code, target.exists()) == (3, False)
        assert "layer 2 of linux/amd64 is kept encrypted with another key" in outcome.err
        command(*arguments, *OWN, key)

    def test_encrypt_names_keys_that_a_layer_has_and_no_other(
        self,
        half: str,
        encrypted: Image,
        make_key: Callable[[str], Path],
        tmp_path: Path,
        command: Command,
    ) -> None:
        new = "kbs:///default/key/2"
        for source, named in ((half, [new, KID]), (encrypted.reference, [KID])):
            target = f"oci:{tmp_path}/e{len(named)}"
            outcome = command(
                *("encrypt", source, target, "--keep-encrypted", "--format", "json"),
                *("--keyid", new, "--keypath", make_key(str(len(named)))),
            )
            assert outcome.json["key_ids"] == named


class TestBase:
    """Whoever controls the base's name knows the secret's diff_id from the published image."""

    secret = tar({"app": b"secret"})

    def refused(self, base: Image, app: Image, key: Path, target: Path, command: Command) -> None:
        arguments = (app.reference, f"oci:{target}", *OWN, key, "--skip-base", base.reference)
        outcome = command("encrypt", *arguments, ok=False)
        assert outcome.code in {3, 5}, outcome.err
        assert not target.exists()
        command("encrypt", app.reference, f"oci:{target}", *OWN, key, "--layer", "1")
        options = ("--keypath", key, "--skip-base", base.reference)
        assert command("verify", f"oci:{target}", *options, ok=False).code in {3, 5}

    def test_skip_base_does_not_believe_base_config_that_names_secret_content(
        self, tmp_path: Path, key: Path, command: Command
    ) -> None:
        app = write_image(tmp_path / "app", [self.secret, tar({"more": b"z"})])
        base = write_image(tmp_path / "base", [tar({"lib": b"x"})])
        named = json.loads(app.config)["rootfs"]["diff_ids"][0]

        def lie(config: Document) -> None:
            config["rootfs"]["diff_ids"] = [named]

        lying = altered_config(base, tmp_path / "lying", lie)
        self.refused(lying, app, key, tmp_path / "e", command)

    def test_skip_base_does_not_believe_base_that_lacks_the_blob_it_names(
        self, tmp_path: Path, key: Path, command: Command
    ) -> None:
        app = write_image(tmp_path / "app", [Layer(self.secret), Layer(tar({"more": b"z"}))])
        base = write_image(tmp_path / "base", [Layer(self.secret)])
        (base.folder / "blobs/sha256" / sha256(self.secret)[7:]).unlink()
        self.refused(base, app, key, tmp_path / "e", command)

    def test_skip_base_takes_base_layer_compressed_differently_and_names_it(
        self, tmp_path: Path, key: Path, command: Command
    ) -> None:
        lib = tar({"lib": b"x"})
        base = write_image(tmp_path / "base", [Layer(lib)])
        app = write_image(tmp_path / "app", [lib, self.secret])
        target = Image(tmp_path / "e")
        options = ("--skip-base", base.reference)
        out = command("encrypt", app.reference, target.reference, *OWN, key, *options).out
        assert out.splitlines()[0] == "layer 0 of linux/amd64: leave readable: base image"
        assert [layer.encrypted for layer in target.layers] == [False, True]
        command("verify", target.reference, "--keypath", key, *options)


@pytest.mark.parametrize("part", ["layer", "config"])
def test_encrypt_verify_full_reads_what_is_readable_and_was_there_before(
    plain: Image, key: Path, tmp_path: Path, command: Command, part: str
) -> None:
    """A layout that has a blob of this name and size is not asked for its content."""
    target = write_image(
        tmp_path / "target", [gzip.decompress(layer.blob) for layer in plain.layers]
    )
    there = {"layer": plain.manifest["layers"][2], "config": plain.manifest["config"]}[part]
    blob = target.folder / "blobs/sha256" / there["digest"][7:]
    blob.write_bytes(bytes(blob.stat().st_size))
    index = (target.folder / "index.json").read_bytes()
    arguments = (plain.reference, f"{target.reference}:new", *OWN, key, "--layer", "1")
    assert command("encrypt", *arguments, "--verify", "full", ok=False).code == 5
    assert (target.folder / "index.json").read_bytes() == index
