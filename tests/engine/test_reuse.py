"""``encrypt --reuse`` takes over what an earlier image has, and never its word.

Whoever can write the earlier image can say in it what he likes.
"""

from __future__ import annotations

import gzip
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coco_kp.crypto import Kek
from coco_kp.errors import RefusedError
from coco_kp.image.encrypt import encrypt_image
from coco_kp.image.reuse import EarlierLayer
from coco_kp.keys.wrapper import KekOpener, KekRecipient, sample_recipient
from coco_kp.model.layer_encryption import parse_layer_encryption, parse_packets
from coco_kp.model.layer_options import PrivateOptions
from coco_kp.model.manifest import parse_descriptor
from coco_kp.model.reference import parse_image_reference
from coco_kp.model.resource_uri import parse_key_id
from coco_kp.transport import open_source
from tests.sim.registry import Registry, serve
from tests.support.altered import altered, altered_layer, packet, public_options
from tests.support.command import KID, Command
from tests.support.documents import Document, Layer
from tests.support.image import PACKETS, Image, tar, write_image
from tests.support.layout import entries

OWN = ("--keyid", KID, "--keypath")


class TestReuse:
    def rebuilt(self, plain: Image, folder: Path) -> Image:
        """Write the image with its data layer alone replaced."""
        archives = [gzip.decompress(layer.blob) for layer in plain.layers]
        archives[2] = tar({"data": b"changed"})
        return write_image(folder, archives)

    def test_encrypt_reuse_copies_unchanged_layers_with_their_packets(
        self, plain: Image, encrypted: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        image = self.rebuilt(plain, tmp_path / "rebuilt")
        target = Image(tmp_path / "e")
        arguments = (*OWN, key, "--reuse", encrypted.reference)
        out = command("encrypt", image.reference, target.reference, *arguments).out
        assert "layers 1 encrypted, 3 reused" in out
        assert [a == b for a, b in zip(target.layers, encrypted.layers, strict=True)] == [
            True,
            True,
            False,
            True,
        ]
        command("verify", target.reference, "--keypath", key)

    def test_encrypt_reuse_in_same_layout_rewrites_no_blob(
        self, plain: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        target = f"oci:{tmp_path}/e"
        command("encrypt", plain.reference, f"{target}:1", *OWN, key)
        blobs = {p: p.stat().st_ino for p in (tmp_path / "e/blobs/sha256").iterdir()}
        image = self.rebuilt(plain, tmp_path / "rebuilt")
        command("encrypt", image.reference, f"{target}:2", *OWN, key, "--reuse", f"{target}:1")
        assert {p: p.stat().st_ino for p in blobs} == blobs
        new = set((tmp_path / "e/blobs/sha256").iterdir()) - set(blobs)
        assert len(new) == 3, "a layer, the config and the manifest"

    def test_encrypt_reuse_with_another_key_wraps_packets_anew(
        self,
        plain: Image,
        encrypted: Image,
        key: Path,
        make_key: Callable[[str], Path],
        tmp_path: Path,
        command: Command,
    ) -> None:
        new, target = make_key("new"), Image(tmp_path / "e")
        command(
            *("encrypt", plain.reference, target.reference, "--keyid", "/default/key/2"),
            *("--keypath", new, "--reuse", encrypted.reference, "--reuse-keypath", key),
        )
        command("verify", target.reference, "--keypath", new)
        assert command("verify", target.reference, "--keypath", key, ok=False).code == 4
        for layer, before in zip(target.layers, encrypted.layers, strict=True):
            assert layer.blob == before.blob
            assert layer.packet["kid"] == "kbs:///default/key/2"

    @pytest.mark.parametrize(
        ("arguments", "member", "value"),
        [
            (("--keyid", "/default/key/2"), "kid", "kbs:///default/key/2"),
            (("--keyid", KID, "--packet", "v2"), "version", "0.1.0"),
            (("--keyid", KID, "--algorithm", "A256CTR"), "wrap_type", "A256CTR"),
        ],
    )
    def test_encrypt_reuse_with_another_packet_form_wraps_packets_anew(
        self,
        plain: Image,
        encrypted: Image,
        key: Path,
        tmp_path: Path,
        command: Command,
        arguments: tuple[str, ...],
        member: str,
        value: str,
    ) -> None:
        target = Image(tmp_path / "e")
        reuse = ("--keypath", key, "--reuse", encrypted.reference)
        command("encrypt", plain.reference, target.reference, *arguments, *reuse)
        assert {layer.packet[member] for layer in target.layers} == {value}
        assert [x.blob for x in target.layers] == [x.blob for x in encrypted.layers]

    def test_encrypt_reuse_with_another_key_under_same_id_wraps_packets_anew(
        self,
        plain: Image,
        encrypted: Image,
        key: Path,
        make_key: Callable[[str], Path],
        tmp_path: Path,
        command: Command,
    ) -> None:
        new, target = make_key("new"), f"oci:{tmp_path}/e"
        reuse = ("--reuse", encrypted.reference, "--reuse-keypath", key)
        command("encrypt", plain.reference, target, *OWN, new, *reuse)
        command("verify", target, "--keypath", new)

    def test_encrypt_reuse_refuses_image_that_key_does_not_open(
        self,
        plain: Image,
        encrypted: Image,
        make_key: Callable[[str], Path],
        tmp_path: Path,
        command: Command,
    ) -> None:
        arguments = (*OWN, make_key("other"), "--reuse", encrypted.reference)
        target = tmp_path / "e"
        assert command("encrypt", plain.reference, f"oci:{target}", *arguments, ok=False).code == 4
        assert not target.exists()

    def test_encrypt_reuses_layer_that_was_compressed_while_it_was_encrypted(
        self, plain: Image, encrypted: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        """As buildah does it: what is recorded is the digest of the archive before."""
        archives = [gzip.decompress(layer.blob) for layer in plain.layers]
        uncompressed = write_image(tmp_path / "uncompressed", list(map(Layer, archives)))
        digests = [layer["digest"] for layer in uncompressed.manifest["layers"]]

        def record(manifest: Document) -> None:
            for number, digest in enumerate(digests):
                options = replace(private_options(encrypted, number, key), digest=digest)
                manifest["layers"][number]["annotations"][PACKETS] = wrapped(options, key)

        earlier = altered(encrypted, tmp_path / "earlier", record)
        target = Image(tmp_path / "e")
        arguments = (*OWN, key, "--reuse", earlier.reference)
        command("encrypt", uncompressed.reference, target.reference, *arguments)
        for layer, before in zip(target.layers, earlier.layers, strict=True):
            assert (layer.media_type, layer.blob) == (before.media_type, before.blob)
        command("verify", target.reference, "--keypath", key, "--target", "coco")


class TestLies:
    """The data layer, number 2, is what the earlier image lies about."""

    def refused(
        self, plain: Image, earlier: Image, key: Path, tmp_path: Path, command: Command
    ) -> str:
        """Return why the lie is refused, after a look at what is left: nothing."""
        target = tmp_path / "e"
        arguments = (*OWN, key, "--reuse", earlier.reference)
        outcome = command("encrypt", plain.reference, f"oci:{target}", *arguments, ok=False)
        assert outcome.code == 5
        assert "cannot be reused" in outcome.err
        assert not target.exists()
        return outcome.err

    def test_encrypt_does_not_reuse_plain_layer_that_lies_where_ciphertext_should(
        self, plain: Image, encrypted: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        lying = altered_layer(encrypted, tmp_path / "lying", 2, lambda _: plain.layers[2].blob)
        assert "HMAC" in self.refused(plain, lying, key, tmp_path, command)

    def test_encrypt_does_not_reuse_ciphertext_of_another_layer(
        self, plain: Image, encrypted: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        def lie(manifest: Document) -> None:
            other = manifest["layers"][0]
            manifest["layers"][2] |= {"digest": other["digest"], "size": other["size"]}

        lying = altered(encrypted, tmp_path / "lying", lie)
        assert "HMAC" in self.refused(plain, lying, key, tmp_path, command)

    def test_encrypt_does_not_reuse_layer_whose_hmac_is_another(
        self, plain: Image, encrypted: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        def lie(manifest: Document) -> None:
            hmac = b64encode(bytes(32)).decode()
            public_options(manifest, 2, lambda options: options.update(hmac=hmac))

        lying = altered(encrypted, tmp_path / "lying", lie)
        assert "HMAC" in self.refused(plain, lying, key, tmp_path, command)

    def test_encrypt_does_not_reuse_layer_whose_packet_claims_digest_of_another(
        self, plain: Image, encrypted: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        """Such a packet takes a KEK, or for A256CTR a layer's leaked key."""
        options = private_options(encrypted, 0, key)
        claimed = replace(options, digest=plain.manifest["layers"][2]["digest"])

        def lie(manifest: Document) -> None:
            annotations = manifest["layers"][0]["annotations"]
            manifest["layers"][2] = manifest["layers"][0] | {
                "annotations": annotations | {PACKETS: wrapped(claimed, key)}
            }

        lying = altered(encrypted, tmp_path / "lying", lie)
        assert "something else" in self.refused(plain, lying, key, tmp_path, command)

    def test_encrypt_does_not_reuse_layer_whose_nonce_was_altered_in_its_ctr_packet(
        self, plain: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        """The HMAC covers the ciphertext, not the nonce: it would decrypt to garbage."""
        earlier = Image(tmp_path / "earlier")
        command("encrypt", plain.reference, earlier.reference, *OWN, key, "--algorithm", "A256CTR")
        nonce = b'"nonce":"'

        def flip(document: Document) -> None:
            data = bytearray(b64decode(document["wrapped_data"]))
            options = private_options(earlier, 2, key).to_json()
            assert len(options) == len(data)
            place = options.index(nonce) + len(nonce)
            data[place] ^= options[place] ^ (ord("A") if options[place] != ord("A") else ord("B"))
            document["wrapped_data"] = b64encode(data).decode()

        lying = altered(earlier, tmp_path / "lying", lambda m: packet(m, 2, flip))
        assert private_options(lying, 2, key).nonce != private_options(earlier, 2, key).nonce
        assert "something else" in self.refused(plain, lying, key, tmp_path, command)

    @pytest.mark.parametrize("label", ["", "+zstd"])
    def test_encrypt_reuse_writes_media_type_that_says_what_layer_is(
        self,
        plain: Image,
        encrypted: Image,
        key: Path,
        tmp_path: Path,
        command: Command,
        label: str,
    ) -> None:
        def lie(manifest: Document) -> None:
            for layer in manifest["layers"]:
                layer["mediaType"] = layer["mediaType"].replace("+gzip", label)

        lying = altered(encrypted, tmp_path / "lying", lie)
        target = Image(tmp_path / "e")
        arguments = (*OWN, key, "--reuse", lying.reference)
        assert "4 reused" in command("encrypt", plain.reference, target.reference, *arguments).out
        assert target.layers == encrypted.layers
        command("verify", target.reference, "--keypath", key, "--target", "coco")

    def test_encrypt_compresses_zstd_layer_anew_although_earlier_image_has_it(
        self, plain: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        def mislabelled(gzipped: bytes) -> bytes:
            return zstd_raw(gzip.decompress(gzipped))

        first = altered_layer(plain, tmp_path / "first", 0, mislabelled)
        source = altered_layer(first, tmp_path / "zstd", 3, mislabelled)
        earlier, target = Image(tmp_path / "earlier"), Image(tmp_path / "e")
        kept = ("--zstd", "keep")
        command("encrypt", source.reference, earlier.reference, *OWN, key, *kept)
        assert earlier.layers[0].media_type.endswith("+zstd+encrypted")
        reuse = ("--reuse", earlier.reference)
        out = command("encrypt", source.reference, target.reference, *OWN, key, *reuse).out
        assert "layers 2 encrypted, 2 reused" in out
        assert [layer.media_type.endswith("+gzip+encrypted") for layer in target.layers] == [
            True
        ] * 4
        assert target.layers[2] == earlier.layers[2]
        command("verify", target.reference, "--keypath", key, "--target", "coco")

    def test_encrypt_does_not_reuse_layer_whose_packets_hold_different_keys(
        self, plain: Image, encrypted: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        def lie(manifest: Document) -> None:
            annotations = manifest["layers"][2]["annotations"]
            annotations[PACKETS] += "," + manifest["layers"][1]["annotations"][PACKETS]

        lying = altered(encrypted, tmp_path / "lying", lie)
        target = Image(tmp_path / "e")
        reuse = ("--reuse", lying.reference)
        out = command("encrypt", plain.reference, target.reference, *OWN, key, *reuse).out
        assert "layers 1 encrypted, 3 reused" in out
        command("verify", target.reference, "--keypath", key)

    def test_packet_that_holds_another_key_is_not_taken_over(
        self, encrypted: Image, key: Path
    ) -> None:
        recipient = KekRecipient(parse_key_id(KID), Kek(key.read_bytes()))
        options, other = (private_options(encrypted, number, key) for number in (2, 0))
        layer = parse_descriptor(encrypted.manifest["layers"][2], "a layer")
        encryption = parse_layer_encryption(layer.annotations)
        lying = encryption._replace(packets=(recipient.wrap(other.to_json()), *encryption.packets))
        with open_source(parse_image_reference(encrypted.reference)) as source:
            (found,) = EarlierLayer(source, layer, lying, options).packets_for([recipient])
        assert found == encryption.packets[0]

    def test_encrypt_reuse_leaves_readable_blob_in_registry_where_it_is(
        self, plain: Image, encrypted: Image, key: Path, tmp_path: Path, command: Command
    ) -> None:
        """The repository of plain images is often beside that of encrypted ones."""
        lying = altered_layer(encrypted, tmp_path / "lying", 2, lambda _: plain.layers[2].blob)
        registry = Registry()
        push(lying, registry, "team/app", "1")
        with serve(registry) as host:
            outcome = command(
                *("encrypt", plain.reference, f"docker://{host}/other/app:1"),
                *("--src-tls-verify=false", "--dest-tls-verify=false"),
                *(*OWN, key, "--reuse", f"docker://{host}/team/app:1"),
                ok=False,
            )
        assert (outcome.code, "HMAC" in outcome.err) == (5, True)
        readable = lying.manifest["layers"][2]["digest"]
        assert ("team/app", readable) in registry.blobs
        assert ("other/app", readable) not in registry.blobs


class TestSample:
    """What everybody can open already is not encrypted by taking it over."""

    def test_encrypt_encrypts_layers_anew_that_sample_key_opens(
        self, plain: Image, key: Path, tmp_path: Path
    ) -> None:
        own = KekRecipient(parse_key_id(KID), Kek(key.read_bytes()))
        earlier = f"oci:{tmp_path}/earlier"
        encrypt_image(plain.reference, earlier, [own, sample_recipient()])
        with pytest.raises(RefusedError, match="open to everybody"):
            encrypt_image(plain.reference, f"oci:{tmp_path}/e", [own], reuse=earlier)
        assert not (tmp_path / "e").exists()

    def test_encrypt_reuses_layers_of_trial_for_trial(
        self, plain: Image, tmp_path: Path, command: Command
    ) -> None:
        earlier, target = Image(tmp_path / "earlier"), Image(tmp_path / "e")
        command("encrypt", plain.reference, earlier.reference, "--sample")
        reuse = ("--sample", "--reuse", earlier.reference)
        command("encrypt", plain.reference, target.reference, *reuse)
        assert target.layers == earlier.layers


def private_options(image: Image, number: int, key: Path) -> PrivateOptions:
    """Open a layer's packet."""
    descriptor = parse_descriptor(image.manifest["layers"][number], "a layer")
    (only,) = parse_packets(descriptor.annotations)
    return KekOpener(Kek(key.read_bytes())).open(only)


def wrapped(options: PrivateOptions, key: Path) -> str:
    """Return options in a packet of the key, as the annotation has it."""
    recipient = KekRecipient(parse_key_id(KID), Kek(key.read_bytes()))
    return b64encode(recipient.wrap(options.to_json()).data).decode()


def zstd_raw(data: bytes) -> bytes:
    """Return a zstd frame with one block that is not compressed (RFC 8878, 3.1.1)."""
    header = b"\x28\xb5\x2f\xfd\xa0" + len(data).to_bytes(4, "little")
    return header + (len(data) << 3 | 1).to_bytes(3, "little") + data


def push(image: Image, registry: Registry, repository: str, tag: str) -> None:
    """Put an image into a registry as it is, whatever is wrong with it."""
    manifest = image.manifest
    for blob in (manifest["config"], *manifest["layers"]):
        registry.blobs[repository, blob["digest"]] = image.blob(blob)
    (entry,) = entries(image.folder)
    stored = (entry["mediaType"], image.blob(entry))
    registry.manifests[repository, tag] = registry.manifests[repository, entry["digest"]] = stored
