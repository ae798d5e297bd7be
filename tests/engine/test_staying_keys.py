"""Keys that stay in their KMS or HSM, through the commands; the KMS is one of these tests' own.

Against real emulators and a real HSM: tests/interop/test_staying_keys.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from coco_kp.crypto import Kek
from coco_kp.errors import CocoKpError, KekError, RemoteError
from coco_kp.keys import staying
from coco_kp.keys.reference import (
    AwsKmsReference,
    TransitReference,
    WrappingReference,
    parse_wrapping_reference,
)
from coco_kp.keys.resolve import StayingKey
from coco_kp.keys.stores import opening
from coco_kp.model.algorithm import Algorithm
from coco_kp.provider import Provider
from coco_kp.service import readiness
from tests.support.command import Command
from tests.support.image import Image
from tests.support.many_images import PLAIN_HTTP, Results

EXTERNAL = "kbs+external:///coco-kp/prod"


@dataclass
class Kms:
    """Keys by name; what each encrypts only it decrypts, with the same context."""

    keys: dict[str, Kek] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    opened: list[KmsKey] = field(default_factory=list)

    def open(self, reference: WrappingReference) -> KmsKey:
        assert isinstance(reference, AwsKmsReference | TransitReference)
        own = dict(reference.context) if isinstance(reference, AwsKmsReference) else {}
        kek = self.keys.setdefault(reference.key, Kek.generate())
        self.opened.append(KmsKey(self, kek, own))
        return self.opened[-1]


@dataclass
class KmsKey:
    kms: Kms
    kek: Kek
    own: dict[str, str]
    region: str = "eu-west-1"
    closed: bool = False

    def encrypt(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        self.kms.calls.append("Encrypt")
        iv, wrapped = self.kek.wrap(Algorithm.A256GCM, plaintext)
        return json.dumps([{**self.own, **context}, iv.hex(), wrapped.hex()]).encode()

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str]) -> bytes:
        self.kms.calls.append("Decrypt")
        bound, iv, wrapped = json.loads(ciphertext)
        if bound != {**self.own, **context}:
            raise KekError("the context is another one")
        return self.kek.unwrap(Algorithm.A256GCM, bytes.fromhex(iv), bytes.fromhex(wrapped))

    def re_encrypt(self, ciphertext: bytes, source: AwsKmsReference) -> bytes:
        with closing(self.kms.open(source)) as old:
            plaintext = old.decrypt(ciphertext, {})
        made = self.encrypt(plaintext, {})
        self.kms.calls[-2:] = ["ReEncrypt"]
        return made

    def check(self) -> str:
        return "a key"

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kms]:
    """A KMS to which no command may leave a connection."""
    kms = Kms()
    for module in (staying, opening):
        monkeypatch.setattr(module, "open_wrapping_key", kms.open)
    yield kms
    assert kms.opened
    assert all(key.closed for key in kms.opened)


@pytest.fixture
def for_aws(kms: Kms, plain: Image, tmp_path: Path, command: Command) -> Image:
    image = Image(tmp_path / "aws")
    outcome = command(
        "encrypt", plain.reference, image.reference, "--wrap-with", "awskms:///alias/a"
    )
    assert "KMS_PROVIDER=aws" in outcome.err
    assert kms.calls
    return image


def test_image_for_aws_kms_opens_with_the_key_alone(
    for_aws: Image, plain: Image, tmp_path: Path, command: Command
) -> None:
    own, other = ("--wrap-with", "awskms:///alias/a"), ("--wrap-with", "awskms:///alias/b")
    command("verify", for_aws.reference, *own)
    assert command("verify", for_aws.reference, *other, ok=False).code == 4
    decrypted = Image(tmp_path / "d")
    command("decrypt", for_aws.reference, decrypted.reference, *own)
    assert decrypted.layers == plain.layers


def test_packet_for_aws_kms_is_that_which_guests_read(for_aws: Image) -> None:
    """image-rs and a CDH built with the provider aws opened packets of exactly these members."""
    packet = for_aws.layers[0].packet
    assert {name: value for name, value in packet.items() if name != "wrapped_data"} == {
        "version": "0.1.0",
        "kid": "alias/a",
        "provider": "aws",
        "provider_settings": {"region": "eu-west-1"},
        "annotations": {},
    }


def test_context_stands_in_the_packet_and_is_asked_for(
    kms: Kms, plain: Image, tmp_path: Path, command: Command
) -> None:
    image = Image(tmp_path / "e")
    uri = "awskms:///alias/a?context=app=demo"
    command("encrypt", plain.reference, image.reference, "--wrap-with", uri)
    packet: dict[str, object] = dict(image.layers[0].packet)
    assert packet["annotations"] == {"encryption_context": {"app": "demo"}}
    command("verify", image.reference, "--wrap-with", "awskms:///alias/a")
    assert "Decrypt" in kms.calls


def test_inspect_shows_provider_key_and_region(for_aws: Image, command: Command) -> None:
    assert "alias/a (aws eu-west-1)" in command("inspect", for_aws.reference).out
    document = command("inspect", for_aws.reference, "--format", "json").json
    recipient = document["images"][0]["layers"][0]["recipients"][0]
    assert (recipient["provider"], recipient["region"]) == ("aws", "eu-west-1")


def test_verify_for_guests_says_which_open_an_image_for_aws_kms(
    for_aws: Image, key: Path, command: Command
) -> None:
    own = ("--wrap-with", "awskms:///alias/a")
    outcome = command("verify", for_aws.reference, *own, "--target", "coco", ok=False)
    assert "built with the provider 'aws'" in outcome.out
    assert outcome.code == 3
    # Once it has a key that every guest fetches, too, it is for all of them.
    add = ("--add", f"keyid=kbs:///default/key/1,keypath={key}")
    command("rewrap", for_aws.reference, *own, *add)
    command("verify", for_aws.reference, "--keypath", key, "--target", "coco")


def test_verify_expects_a_key_of_aws_kms(for_aws: Image, command: Command) -> None:
    for expected, code in (("awskms:///alias/a", 0), ("awskms:///alias/b", 7)):
        outcome = command(
            *("verify", for_aws.reference, "--wrap-with", "awskms:///alias/a"),
            *("--expect-keyid", expected),
            ok=not code,
        )
        assert outcome.code == code


def test_key_of_aws_kms_is_removed_as_it_is_named(
    for_aws: Image, key: Path, command: Command
) -> None:
    kid, own = "kbs:///default/key/1", ("--wrap-with", "awskms:///alias/a")
    command("rewrap", for_aws.reference, *own, "--add", f"keyid={kid},keypath={key}")
    command("rewrap", for_aws.reference, "--keypath", key, "--remove", "awskms:///alias/a")
    command("verify", for_aws.reference, "--keypath", key, "--expect-keyid", kid)


@pytest.mark.parametrize("more", ["awskms:///alias/a?context=app=prod", "awskms://kms/alias/a"])
def test_nothing_is_expected_or_removed_that_is_not_compared(
    for_aws: Image, command: Command, more: str
) -> None:
    own = ("--wrap-with", "awskms:///alias/a")
    for act in (("verify", "--expect-keyid"), ("rewrap", "--remove")):
        outcome = command(act[0], for_aws.reference, *own, act[1], more, ok=False)
        assert outcome.code == 3
        assert "names more than a key" in outcome.err


def test_rewrap_between_keys_of_aws_kms_sees_no_layer_key(
    kms: Kms, for_aws: Image, command: Command
) -> None:
    kms.calls.clear()
    arguments = ("--wrap-with", "awskms:///alias/a", "--to-wrap-with", "awskms:///alias/b")
    command("rewrap", for_aws.reference, *arguments)
    assert set(kms.calls) == {"ReEncrypt"}
    command("verify", for_aws.reference, "--wrap-with", "awskms:///alias/b")
    assert (
        command("verify", for_aws.reference, "--wrap-with", "awskms:///alias/a", ok=False).code == 4
    )


def test_rewrap_with_a_key_of_aws_kms_that_opens_nothing_changes_nothing(
    for_aws: Image, command: Command
) -> None:
    before = for_aws.manifest
    arguments = ("--wrap-with", "awskms:///alias/c", "--to-wrap-with", "awskms:///alias/b")
    assert command("rewrap", for_aws.reference, *arguments, ok=False).code == 4
    assert for_aws.manifest == before


def test_rewrap_between_keys_of_aws_kms_moves_packets_of_the_named_context_only(
    kms: Kms, plain: Image, tmp_path: Path, command: Command
) -> None:
    """All are moved where none is named."""
    image, to = Image(tmp_path / "e"), ("--to-wrap-with", "awskms:///alias/b")
    key = "awskms:///alias/a"
    command("encrypt", plain.reference, image.reference, "--wrap-with", f"{key}?context=app=test")
    before = image.manifest
    for context in ("app=prod", "other=test"):
        own = ("--wrap-with", f"{key}?context={context}")
        assert command("rewrap", image.reference, *own, *to, ok=False).code == 4
        assert image.manifest == before
    kms.calls.clear()
    command("rewrap", image.reference, "--wrap-with", key, *to)
    assert set(kms.calls) == {"ReEncrypt"}


def test_rewrap_between_keys_of_aws_kms_leaves_other_packets_where_they_are(
    kms: Kms, for_aws: Image, key: Path, command: Command
) -> None:
    own, kid = ("--wrap-with", "awskms:///alias/a"), "kbs:///default/key/1"
    command("rewrap", for_aws.reference, *own, "--add", f"keyid={kid},keypath={key}")
    kms.calls.clear()
    command("rewrap", for_aws.reference, *own, "--to-wrap-with", "awskms:///alias/b")
    assert set(kms.calls) == {"ReEncrypt"}
    expected = ("--expect-keyid", kid, "--expect-keyid", "awskms:///alias/b")
    for one in (("--keypath", key), ("--wrap-with", "awskms:///alias/b")):
        command("verify", for_aws.reference, *one, *expected)


@pytest.mark.parametrize(("failure", "code"), [(KekError, 0), (RemoteError, 6)])
def test_rewrap_between_keys_of_aws_kms_passes_over_packets_of_another_key_alone(
    kms: Kms,
    for_aws: Image,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
    failure: type[CocoKpError],
    code: int,
) -> None:
    """Nobody knows what a packet is of that KMS was too busy for."""
    own = ("--wrap-with", "awskms:///alias/a")
    command("rewrap", for_aws.reference, *own, "--add", "wrap-with=awskms:///alias/c")
    before, re_encrypt = for_aws.manifest, KmsKey.re_encrypt

    def fails(self: KmsKey, ciphertext: bytes, source: AwsKmsReference) -> bytes:
        try:
            return re_encrypt(self, ciphertext, source)
        except KekError:
            raise failure("no") from None

    monkeypatch.setattr(KmsKey, "re_encrypt", fails)
    outcome = command(
        "rewrap", for_aws.reference, *own, "--to-wrap-with", "awskms:///alias/b", ok=not code
    )
    assert outcome.code == code
    if code:
        assert for_aws.manifest == before
        return
    expected = (f"--expect-keyid=awskms:///alias/{name}" for name in "bc")
    command("verify", for_aws.reference, "--wrap-with", "awskms:///alias/c", *expected)
    assert kms.keys


def test_rewrap_between_keys_of_aws_kms_moves_all_layers_or_none(
    kms: Kms, for_aws: Image, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    before, re_encrypt = for_aws.manifest, KmsKey.re_encrypt

    def two(self: KmsKey, ciphertext: bytes, source: AwsKmsReference) -> bytes:
        if kms.calls.count("ReEncrypt") == 2:
            raise KekError("the key is disabled")
        return re_encrypt(self, ciphertext, source)

    monkeypatch.setattr(KmsKey, "re_encrypt", two)
    kms.calls.clear()
    own = ("--wrap-with", "awskms:///alias/a", "--to-wrap-with", "awskms:///alias/b")
    outcome = command("rewrap", for_aws.reference, *own, ok=False)
    assert outcome.code == 4
    assert "layer 2 of" in outcome.err
    assert for_aws.manifest == before


@pytest.mark.parametrize("uri", ["awskms:///alias/a", "hashivault://a"])
def test_wrapped_kek_stands_in_the_key_id_and_opens_under_its_name_alone(
    kms: Kms, plain: Image, tmp_path: Path, command: Command, uri: str
) -> None:
    image = Image(tmp_path / "e")
    own = ("--wrap-with", uri)
    command("encrypt", plain.reference, image.reference, *own, "--keyid", EXTERNAL)
    kids = {layer.packet["kid"] for layer in image.layers}
    (kid,) = kids  # one KEK for the image
    assert kid.startswith(f"{EXTERNAL}?ct=")
    assert set(image.layers[0].packet) == {"kid", "wrapped_data", "iv", "wrap_type"}
    command("verify", image.reference, *own, "--target", "coco", "--expect-keyid", EXTERNAL)
    kms.calls.clear()
    command("decrypt", image.reference, f"oci:{tmp_path}/d", *own)
    assert kms.calls == ["Decrypt"], "one call for all layers"

    other = kid.replace("/prod?", "/test?")
    assert other != kid
    rename_kid(image, kid, other)
    outcome = command("verify", image.reference, *own, ok=False)
    assert outcome.code == 4
    assert "context" in outcome.out


def test_two_images_have_two_wrapped_keks(
    kms: Kms, plain: Image, tmp_path: Path, command: Command
) -> None:
    kids = set()
    for name in ("one", "two"):
        image = Image(tmp_path / name)
        own = ("--wrap-with", "hashivault://a", "--keyid", EXTERNAL)
        command("encrypt", plain.reference, image.reference, *own)
        kids |= {layer.packet["kid"] for layer in image.layers}
    assert len(kids) == 2
    assert kms.calls


def test_reuse_opens_the_earlier_image_of_the_same_name(
    kms: Kms, plain: Image, tmp_path: Path, command: Command
) -> None:
    """Each image has another KEK, and none would open the one before."""
    first, second = Image(tmp_path / "first"), Image(tmp_path / "second")
    own = ("--wrap-with", "hashivault://a", "--keyid", EXTERNAL)
    command("encrypt", plain.reference, first.reference, *own)
    kms.calls.clear()
    reuse = ("--reuse", first.reference)
    outcome = command("encrypt", plain.reference, second.reference, *own, *reuse)
    assert "layers 0 encrypted, 4 reused" in outcome.out
    assert kms.calls == ["Encrypt", "Decrypt", "Decrypt"], "no call for each layer"
    assert [layer.blob for layer in second.layers] == [layer.blob for layer in first.layers]
    (kid,) = {layer.packet["kid"] for layer in second.layers}
    assert kid not in {layer.packet["kid"] for layer in first.layers}
    command("verify", second.reference, "--wrap-with", "hashivault://a")

    other = ("--wrap-with", "hashivault://a", "--keyid", EXTERNAL.replace("prod", "test"))
    never = f"oci:{tmp_path}/never"
    assert command("encrypt", plain.reference, never, *other, *reuse, ok=False).code == 4


def test_rewrap_adds_a_wrapped_kek_once(
    kms: Kms, encrypted: Image, key: Path, command: Command
) -> None:
    add = ("--add", f"keyid={EXTERNAL},wrap-with=hashivault://a")
    command("rewrap", encrypted.reference, "--keypath", key, *add)
    once = encrypted.manifest
    command("rewrap", encrypted.reference, "--keypath", key, *add)
    assert encrypted.manifest == once
    kms.keys.clear()
    outcome = command("rewrap", encrypted.reference, "--keypath", key, *add, ok=False)
    assert outcome.code == 3
    assert "another key has the key ID" in outcome.err
    assert encrypted.manifest == once


def test_layer_that_is_kept_may_have_another_kek_of_the_same_name(
    kms: Kms, plain: Image, tmp_path: Path, command: Command
) -> None:
    image = Image(tmp_path / "e")
    own = ("--wrap-with", "hashivault://a", "--keyid", EXTERNAL)
    command("encrypt", plain.reference, image.reference, *own, "--layer", "1")
    both = Image(tmp_path / "both")
    command("encrypt", image.reference, both.reference, *own, "--keep-encrypted")
    assert len({layer.packet["kid"] for layer in both.layers}) == 2
    command("verify", both.reference, "--wrap-with", "hashivault://a")
    kms.keys.clear()  # whoever has another key of this name, has not these
    other = ("encrypt", image.reference, f"oci:{tmp_path}/never", *own, "--keep-encrypted")
    outcome = command(*other, ok=False)
    assert outcome.code == 3
    assert "kept encrypted with another key" in outcome.err


def test_remove_takes_a_wrapped_kek_by_its_name(
    kms: Kms, plain: Image, key: Path, tmp_path: Path, command: Command
) -> None:
    image = Image(tmp_path / "e")
    add = ("--recipient", f"keyid=kbs:///default/key/1,keypath={key}")
    own = ("--wrap-with", "hashivault://a", "--keyid", EXTERNAL)
    command("encrypt", plain.reference, image.reference, *own, *add)
    command("rewrap", image.reference, "--keypath", key, "--remove", EXTERNAL)
    expected = ("--expect-keyid", "kbs:///default/key/1")
    command("verify", image.reference, "--keypath", key, *expected)
    assert kms.calls


def test_fleet_closes_the_keys_that_its_lines_name(
    plain: Image, kms: Kms, host: str, tmp_path: Path, command: Command
) -> None:
    image, plan = f"docker://{host}/team/app:1", tmp_path / "plan.jsonl"
    own = "awskms:///alias/a"
    command("encrypt", plain.reference, image, "--wrap-with", own, *PLAIN_HTTP)
    line = ("--action", "verify", "--recipient", f"wrap-with={own}")
    command("fleet", "plan", image, "--tls-verify=false", *line, "-o", plan)
    kms.calls.clear()
    results = Results(tmp_path / "results.jsonl")
    command("fleet", "run", plan, *PLAIN_HTTP, "--results", results.path)
    assert results.outcomes == {"done": 1}
    assert "Decrypt" in kms.calls


def test_doctor_and_readiness_close_the_key_that_they_try(
    kms: Kms, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "awskms:///alias/a"
    assert "a key" in command("doctor", "--wrap-with", uri, ok=False).out
    monkeypatch.setattr(readiness, "open_wrapping_key", kms.open)
    source = StayingKey(parse_wrapping_reference(uri))
    readiness.checks_of(Provider(source=source))["key"]()
    assert len(kms.opened) == 2


def test_nitro_sandbox_takes_no_image_with_a_readable_layer(
    encrypted: Image, key: Path, plain: Image, tmp_path: Path, command: Command
) -> None:
    nitro = ("--target", "nitro")
    command("verify", encrypted.reference, "--keypath", key, *nitro)
    mixed = f"oci:{tmp_path}/mixed"
    own = ("--keyid", "kbs:///default/key/1", "--keypath", key)
    command("encrypt", plain.reference, mixed, *own, "--layer", "2")
    allowed = ("--keypath", key, *(f"--allow-layer={n}" for n in (0, 1, 3)))
    command("verify", mixed, *allowed)
    assert command("verify", mixed, *allowed, *nitro, ok=False).code == 7


def rename_kid(image: Image, old: str, new: str) -> None:
    """Write another key ID into all packets of an image, as whoever holds the registry could."""
    index = json.loads((image.folder / "index.json").read_bytes())
    manifest = image.manifest
    for layer in manifest["layers"]:
        for name, value in layer["annotations"].items():
            if ".enc.keys." in name:
                packet = base64.b64decode(value).replace(old.encode(), new.encode())
                layer["annotations"][name] = base64.b64encode(packet).decode()
    data = json.dumps(manifest).encode()
    digest = hashlib.sha256(data).hexdigest()
    (image.folder / "blobs" / "sha256" / digest).write_bytes(data)
    index["manifests"][0] |= {"digest": f"sha256:{digest}", "size": len(data)}
    (image.folder / "index.json").write_text(json.dumps(index))
