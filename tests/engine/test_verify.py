"""``coco-kp verify`` says yes to what it has checked, and says what that was."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import tracemalloc
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from coco_kp.crypto import Kek
from coco_kp.image.verify import verify_image
from coco_kp.keys.wrapper import KekOpener, wrap_options
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.layer_encryption import DEFAULT_SCHEME, LayerPacket
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.manifest import Descriptor
from coco_kp.model.resource_uri import parse_key_id
from coco_kp.transport import BlobReader
from coco_kp.transport.layout import LayoutSource
from tests.support.altered import altered, altered_config, altered_layer, copied, packet
from tests.support.command import KID, Command
from tests.support.documents import Document, sha256
from tests.support.image import PACKETS, Image, tar, write_image
from tests.support.layout import LayoutWriter, entries

OTHER = "kbs:///default/key/2"


@pytest.fixture
def shared(
    encrypted: Image, key: Path, make_key: Callable[[str], Path], command: Command
) -> tuple[Image, Path]:
    """The image for two recipients, and the key of the other one."""
    other = make_key("other")
    add = f"keyid={OTHER},keypath={other}"
    command("rewrap", encrypted.reference, "--keypath", key, "--add", add)
    return encrypted, other


@pytest.mark.parametrize("number", [4, 7, -5])
def test_verify_given_number_that_image_has_not_allows_nothing(
    plain: Image, command: Command, number: int
) -> None:
    numbers = [n for n in range(4) if n != number % 4]
    allowed = [part for n in (*numbers, number) for part in ("--allow-layer", n)]
    outcome = command("verify", plain.reference, *allowed, ok=False)
    assert outcome.code == 7
    assert f"layer {number % 4} of linux/amd64: the layer is not encrypted" in outcome.err


def test_verify_opens_encrypted_layer_that_has_urls(
    encrypted: Image, key: Path, make_key: Callable[[str], Path], tmp_path: Path, command: Command
) -> None:
    def add_urls(manifest: Document) -> None:
        manifest["layers"][2]["urls"] = ["https://example.com/layer"]

    image = altered(encrypted, tmp_path / "urls", add_urls)
    command("verify", image.reference, "--keypath", key)
    other = make_key("other")
    assert command("verify", image.reference, "--keypath", other, ok=False).code == 4
    damaged = altered_layer(image, tmp_path / "damaged", 2, lambda blob: bytes(len(blob)))
    assert command("verify", damaged.reference, "--keypath", key, ok=False).code == 5


def test_verify_calls_foreign_layer_unchecked(
    plain: Image, tmp_path: Path, command: Command
) -> None:
    def add_urls(manifest: Document) -> None:
        manifest["layers"][2]["urls"] = ["https://example.com/layer"]

    image = altered(plain, tmp_path / "foreign", add_urls)
    allowed = [part for n in range(4) for part in ("--allow-layer", n)]
    outcome = command("verify", image.reference, *allowed, "--format", "json")
    verdicts = [(layer["verdict"], layer["checked"]) for layer in outcome.json["layers"]]
    assert verdicts[2] == ("unchecked", [])
    assert verdicts[1] == ("ok", ["digest", "diff_id"])
    assert outcome.json["layers"][2]["remarks"] == [
        "its content lies elsewhere: nothing was checked"
    ]


class TestDigestNotRecorded:
    @pytest.fixture
    def image(self, encrypted: Image, key: Path, tmp_path: Path) -> Image:
        """The image with packets that record no digest, as ocicrypt allows."""
        kek = Kek(key.read_bytes())

        def forget(manifest: Document) -> None:
            for number in range(len(manifest["layers"])):
                packet(manifest, number, forget_digest)

        def forget_digest(document: Document) -> None:
            opened = KekOpener(kek).open(LayerPacket(DEFAULT_SCHEME, json.dumps(document).encode()))
            again = PrivateOptions(opened.symkey, opened.nonce, "").to_json()
            new = wrap_options(kek, parse_key_id(KID), Algorithm.A256GCM, again)
            document.update(json.loads(new.to_json()))

        return altered(encrypted, tmp_path / "no-digest", forget)

    def test_verify_checks_diff_id_alone_and_says_so(
        self, image: Image, key: Path, command: Command
    ) -> None:
        outcome = command("verify", image.reference, "--keypath", key, "--format", "json")
        for layer in outcome.json["layers"]:
            assert layer["checked"] == ["packet", "digest", "hmac", "diff_id"]
            assert "records no digest" in layer["remarks"][0]

    def test_decrypt_needs_diff_id_and_that_it_is_right(
        self, image: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        opening = ("--keypath", key)
        command("decrypt", image.reference, f"oci:{tmp_path}/d", *opening)
        bare = altered_config(image, tmp_path / "bare", lambda config: config.pop("rootfs"))
        refused = f"oci:{tmp_path}/refused"
        outcome = command("decrypt", bare.reference, refused, *opening, ok=False)
        assert outcome.code == 5
        assert "nothing tells what the layer" in outcome.err

        def lie(config: Document) -> None:
            config["rootfs"]["diff_ids"][2] = sha256(b"something else")

        lying = altered_config(image, tmp_path / "lying", lie)
        outcome = command("decrypt", lying.reference, refused, *opening, ok=False)
        assert outcome.code == 5
        assert "not the one that the config names" in outcome.err
        assert not (tmp_path / "refused").exists()

    def test_verify_without_diff_ids_says_no(
        self, image: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        bare = altered_config(image, tmp_path / "bare", lambda config: config.pop("rootfs"))
        outcome = command("verify", bare.reference, "--keypath", key, "--format", "json", ok=False)
        assert outcome.code == 5
        assert outcome.json["layers"][0]["checked"] == ["packet", "digest", "hmac"]
        assert "nothing tells what the layer should decrypt to" in outcome.err


def test_verify_lists_diff_id_as_checked_only_where_config_has_it(
    encrypted: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    bare = altered_config(encrypted, tmp_path / "bare", lambda config: config.pop("rootfs"))
    outcome = command("verify", bare.reference, "--keypath", key, "--format", "json")
    assert outcome.json["layers"][0]["checked"] == ["packet", "digest", "hmac", "plain digest"]


def test_verify_names_recipients_and_those_that_key_opens(
    shared: tuple[Image, Path], key: Path, command: Command
) -> None:
    image, other = shared
    for path, opened in ((key, [True, False]), (other, [False, True])):
        outcome = command("verify", image.reference, "--keypath", path, "--format", "json")
        for layer in outcome.json["layers"]:
            assert [each["kid"] for each in layer["recipients"]] == [KID, OTHER]
            assert [each["opened"] for each in layer["recipients"]] == opened
    outcome = command("verify", image.reference, "--format", "json")
    assert [each["opened"] for each in outcome.json["layers"][0]["recipients"]] == [None, None]
    assert f"{KID} (opened), {OTHER} " in command("verify", image.reference, "--keypath", key).out


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ((KID,), f"also encrypted for '{OTHER}'"),
        ((KID, OTHER, "kbs:///default/key/3"), "not encrypted for 'kbs:///default/key/3'"),
        (("kbs:///default/key/3",), f"also encrypted for '{KID}'"),
        ((KID, OTHER), ""),
        (("/default/key/2", "/default/key/1"), ""),
    ],
)
def test_verify_compares_recipients_with_those_expected(
    shared: tuple[Image, Path], command: Command, expected: tuple[str, ...], words: str
) -> None:
    options = [part for uri in expected for part in ("--expect-keyid", uri)]
    outcome = command("verify", shared[0].reference, *options, "--format", "json", ok=False)
    assert outcome.code == (7 if words else 0)
    found = [finding["message"] for finding in outcome.json["layers"][0]["findings"]]
    assert any(words in message for message in found) == bool(words)


def test_verify_expects_no_recipient_of_another_scheme(
    encrypted: Image, tmp_path: Path, command: Command
) -> None:
    def add(manifest: Document) -> None:
        annotations = manifest["layers"][1]["annotations"]
        annotations[PACKETS.replace("provider.attestation-agent", "jwe")] = "e30="

    image = altered(encrypted, tmp_path / "jwe", add)
    command("verify", image.reference)
    outcome = command("verify", image.reference, "--expect-keyid", KID, ok=False)
    assert outcome.code == 7
    assert "also encrypted for 'jwe'" in outcome.err


def test_verify_expecting_keys_refuses_image_without_encrypted_layer(
    tmp_path: Path, command: Command
) -> None:
    image = write_image(tmp_path / "open", [tar({"a": b"a"})])
    arguments = (image.reference, "--allow-layer", "0")
    command("verify", *arguments)
    outcome = command("verify", *arguments, "--expect-keyid", KID, ok=False)
    assert outcome.code == 7


def test_verify_refuses_packets_of_one_layer_that_hold_different_keys(
    encrypted: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    def add(manifest: Document) -> None:
        one, _, other, _ = (layer["annotations"] for layer in manifest["layers"])
        one[PACKETS] += f",{other[PACKETS]}"

    image = altered(encrypted, tmp_path / "two", add)
    assert command("verify", image.reference, "--keypath", key, ok=False).code == 5


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("gzip", gzip.compress),
        ("bzip2", bz2.compress),
        ("xz", lzma.compress),
        ("zstd", lambda data: b"\x28\xb5\x2f\xfd" + data),
        ("tar", lambda data: data),
    ],
)
def test_verify_without_key_refuses_readable_content_called_encrypted(
    encrypted: Image, tmp_path: Path, command: Command, kind: str, make: Callable[[bytes], bytes]
) -> None:
    content = tar({"etc/secret": b"TOPSECRET"})
    image = altered_layer(encrypted, tmp_path / "posing", 2, lambda _: make(content))
    outcome = command("verify", image.reference, ok=False)
    assert outcome.code == 7
    assert f"its content is plain {kind}" in outcome.err


def test_verify_without_key_takes_ciphertext_with_magic_number_for_ciphertext(
    encrypted: Image, tmp_path: Path, command: Command
) -> None:
    noise = random.Random(0).randbytes(100_000)  # chance may make a stream of it
    image = altered_layer(encrypted, tmp_path / "noise", 2, lambda _: b"\x1f\x8b\x08\xff" + noise)
    command("verify", image.reference)


class TestWhatGuestsLookAt:
    """Packets of the first provider by name, in their order (recordings/guest.json)."""

    theirs = PACKETS.replace("attestation-agent", "aaa")

    def two_providers(self, shared: Image, folder: Path) -> Image:
        """The first recipient's packets under one provider, the other's under one before it."""

        def move(manifest: Document) -> None:
            for layer in manifest["layers"]:
                annotations = layer["annotations"]
                annotations[PACKETS], annotations[self.theirs] = annotations[PACKETS].split(",")

        return altered(shared, folder, move)

    def test_verify_for_guests_refuses_packets_of_another_provider_than_the_first_by_name(
        self, shared: tuple[Image, Path], key: Path, tmp_path: Path, command: Command
    ) -> None:
        image = self.two_providers(shared[0], tmp_path / "two")
        command("verify", image.reference, "--keypath", key)
        command("verify", image.reference, "--keypath", shared[1], "--target", "coco")
        outcome = command("verify", image.reference, "--keypath", key, "--target", "coco", ok=False)
        assert outcome.code == 3
        assert "guests look at the first provider's packets by name alone" in outcome.err

    def test_verify_for_guests_refuses_first_provider_without_packets_also_without_key(
        self, encrypted: Image, tmp_path: Path, command: Command
    ) -> None:
        def add(manifest: Document) -> None:
            manifest["layers"][2]["annotations"][self.theirs] = ""

        image = altered(encrypted, tmp_path / "empty", add)
        command("verify", image.reference)
        outcome = command("verify", image.reference, "--target", "coco", ok=False)
        assert outcome.code == 3
        assert "guests take the first provider's packets by name, and it has none" in outcome.err

    def test_verify_for_guests_expects_key_where_they_look(
        self, shared: tuple[Image, Path], tmp_path: Path, command: Command
    ) -> None:
        image = self.two_providers(shared[0], tmp_path / "two")
        both = ("--expect-keyid", KID, "--expect-keyid", OTHER)
        command("verify", image.reference, *both)
        outcome = command("verify", image.reference, *both, "--target", "coco", ok=False)
        assert outcome.code == 7
        assert f"not encrypted for '{KID}'" in outcome.err

    @pytest.mark.parametrize(
        ("algorithm", "kid", "code"),
        [(Algorithm.A256CTR, KID, 3), (Algorithm.A256CTR, OTHER, 0), (Algorithm.A256GCM, KID, 0)],
    )
    def test_verify_for_guests_refuses_packet_that_they_would_take_for_theirs(
        self,
        encrypted: Image,
        key: Path,
        tmp_path: Path,
        command: Command,
        algorithm: Algorithm,
        kid: str,
        code: int,
    ) -> None:
        options = PrivateOptions(bytes(32), bytes(16), "").to_json()
        other = wrap_options(Kek(bytes(32)), parse_key_id(kid), algorithm, options).to_json()

        def put_first(manifest: Document) -> None:
            for layer in manifest["layers"]:
                packets = (b64encode(other).decode(), layer["annotations"][PACKETS])
                layer["annotations"][PACKETS] = ",".join(packets)

        image = altered(encrypted, tmp_path / "two", put_first)
        arguments = (image.reference, "--keypath", key, "--allow-ctr")
        command("verify", *arguments)
        assert command("verify", *arguments, "--target", "coco", ok=False).code == code


def test_list_that_names_an_image_a_hundred_times_costs_what_one_does(
    plain: Image,
    encrypted: Image,
    key: Path,
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []
    whole = LayoutSource.open_blob

    def noted(
        source: LayoutSource, blob: Descriptor, *, verify: bool = True, offset: int = 0
    ) -> BlobReader:
        opened.append(str(blob.digest))
        return whole(source, blob, verify=verify, offset=offset)

    monkeypatch.setattr(LayoutSource, "open_blob", noted)
    for image, name, *options in (
        (encrypted, "verify"),
        (encrypted, "decrypt", f"oci:{tmp_path}/d"),
        (plain, "encrypt", f"oci:{tmp_path}/e", "--keyid", KID),
    ):
        folder = copied(image, tmp_path / f"{len(list(tmp_path.iterdir()))}").folder
        (entry,) = entries(folder)
        layout = LayoutWriter(folder)
        layout.name(layout.put_index([entry] * 100))
        opened.clear()
        command(name, f"oci:{folder}", *options, "--keypath", key)
        manifest = image.manifest
        blobs = {part["digest"] for part in (manifest["config"], *manifest["layers"])}
        assert set(opened) == blobs
        # encrypt reads a config for its plan, and to copy it
        assert max(map(opened.count, blobs)) <= 2


def test_verify_of_many_damaged_layers_keeps_no_buffers(tmp_path: Path) -> None:
    """Each finding held the frames that it was raised in, with 256 KiB of the layer."""
    image = write_image(tmp_path / "image", [tar({"n": bytes([n])}) for n in range(200)])
    for layer in image.manifest["layers"]:
        blob = image.folder / "blobs/sha256" / layer["digest"][7:]
        blob.write_bytes(bytes(layer["size"]))
    tracemalloc.start()
    try:
        report = verify_image(image.reference, jobs=1)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len([1 for layer in report.layers if layer.findings]) == 200
    assert held < 16 << 20
