"""Images whose keys are kept in stores: the whole way, by commands and by skopeo."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest

from tests.peers.aws import REGION, RunningAws
from tests.peers.skopeo import SkopeoError
from tests.support.command import KID
from tests.support.image import Image
from tests.support.provider import LOG, our_provider
from tests.support.traces import traces

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.peers.skopeo import Skopeo
    from tests.peers.softhsm import SoftHsm
    from tests.sim.vault import SimulatedVault
    from tests.support.command import Command
    from tests.support.key import Key

pytestmark = pytest.mark.peer

OTHER: Final = "kbs:///default/key/other"


@dataclass(frozen=True)
class Place:
    """Where a KEK is, or is to be; ``read`` returns it as those read it who know nothing of us."""

    uri: str
    kek: bytes = field(default=b"", repr=False)
    read: Callable[[], bytes] = field(default=bytes, repr=False)


@pytest.fixture(
    params=["file", "exec", "vault KV 1", "vault KV 2", "vault text", "aws-sm", "pkcs11"]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A store with a KEK that others put there."""
    kek, file = os.urandom(32), tmp_path / "kek"
    file.touch(0o600)
    file.write_bytes(kek)
    if request.param in {"file", "exec"}:
        return Place(f"file:{file}" if request.param == "file" else f"exec:cat {file}", kek)
    if request.param == "aws-sm":
        moto: RunningAws = request.getfixturevalue("moto")
        with closing(moto.secrets_manager()) as client:
            client.create_secret(Name="team/app", SecretBinary=kek)
        return Place("aws-sm:///team/app", kek)
    if request.param == "pkcs11":
        hsm: SoftHsm = request.getfixturevalue("hsm")
        hsm.add_secret("app", kek)
        return Place(hsm.uri("app"), kek)
    vault: SimulatedVault = request.getfixturevalue("open_vault")
    vault.secrets["kv/team/app"] = [{"data": list(kek)}]
    vault.secrets["secret/team/app"] = [{"data": list(kek), "text": b64encode(kek).decode()}]
    uris = {
        "vault KV 1": "vault:///kv/team/app?kv=1",
        "vault KV 2": "vault:///secret/team/app",
        "vault text": "vault:///secret/team/app?field=text&encoding=base64",
    }
    return Place(uris[request.param], kek)


@pytest.fixture(params=["vault KV 1", "vault KV 2", "aws-sm", "pkcs11"])
def free_place(request: pytest.FixtureRequest) -> Place:
    """Where a KEK can be put, and nobody has yet."""
    if request.param == "aws-sm":
        moto: RunningAws = request.getfixturevalue("moto")

        def secret() -> bytes:
            # The AWS back end of a KBS looks for the last part of the key ID, and reads bytes.
            with closing(moto.secrets_manager()) as client:
                return client.get_secret_value(SecretId=KID.rpartition("/")[2])["SecretBinary"]

        return Place(f"aws-sm://{REGION}/1", read=secret)
    if request.param == "pkcs11":
        hsm: SoftHsm = request.getfixturevalue("hsm")
        return Place(hsm.uri("default/key/1"), read=lambda: hsm.secret("default/key/1"))
    vault: SimulatedVault = request.getfixturevalue("open_vault")
    mount, query = ("kv", "?kv=1") if request.param == "vault KV 1" else ("secret", "")

    def numbers() -> bytes:
        # The Vault back end of a KBS reads a JSON array of numbers under ``data``.
        (secret,) = vault.secrets[f"{mount}/default/key/1"]
        assert secret.keys() == {"data"}
        return bytes(secret["data"])

    return Place(f"vault:///{mount}/default/key/1{query}", read=numbers)


def key_file(folder: Path, kek: bytes) -> Path:
    """Write a KEK as guests' owners have it who know nothing of the store."""
    path = folder / "the same key"
    path.touch(0o600)
    path.write_bytes(kek)
    return path


def test_image_goes_the_whole_way_with_key_of_store(
    place: Place, image: Image, tmp_path: Path, command: Command
) -> None:
    encrypted, decrypted = Image(tmp_path / "e"), Image(tmp_path / "d")
    own = ("--kek-from", place.uri)
    outcomes = [
        command("encrypt", image.reference, encrypted.reference, *own, "--keyid", KID, "-vv"),
        command("verify", encrypted.reference, *own, "--target", "coco", "-vv"),
        command("decrypt", encrypted.reference, decrypted.reference, *own, "-vv"),
    ]
    assert decrypted.layers == image.layers
    assert decrypted.config == image.config
    printed = "".join(outcome.out + outcome.err for outcome in outcomes).encode()
    assert not [trace for trace in traces(place.kek) if trace in printed]

    guests = Image(tmp_path / "guests")
    file = key_file(tmp_path, place.kek)
    command("decrypt", encrypted.reference, guests.reference, "--keypath", file)
    assert guests.layers == image.layers


def test_key_of_store_opens_beside_another_recipients(
    place: Place, image: Image, key: Key, tmp_path: Path, command: Command
) -> None:
    encrypted = Image(tmp_path / "e")
    first = ("--keyid", KID, "--keypath", key.path)
    second = ("--recipient", f"keyid={OTHER},kek-from={place.uri}")
    command("encrypt", image.reference, encrypted.reference, *first, *second)
    expected = ("--expect-keyid", KID, "--expect-keyid", OTHER)
    command("verify", encrypted.reference, "--kek-from", place.uri, *expected)
    command("verify", encrypted.reference, "--keypath", key.path, *expected)


def test_rewrap_to_key_of_store_and_back(
    place: Place, image: Image, key: Key, tmp_path: Path, command: Command
) -> None:
    encrypted = Image(tmp_path / "e")
    file, store = ("--keypath", key.path), ("--kek-from", place.uri)
    command("encrypt", image.reference, encrypted.reference, "--keyid", KID, *file)
    to = ("--to-keyid", OTHER, "--to-kek-from", place.uri)
    command("rewrap", encrypted.reference, *file, *to)
    command("verify", encrypted.reference, *store, "--expect-keyid", OTHER)
    assert command("verify", encrypted.reference, *file, ok=False).code == 4
    back = ("--to-keyid", KID, "--to-keypath", key.path)
    command("rewrap", encrypted.reference, *store, *back)
    decrypted = Image(tmp_path / "d")
    command("decrypt", encrypted.reference, decrypted.reference, *file)
    assert decrypted.layers == image.layers


@pytest.mark.parametrize("in_file", [True, False], ids=["and in file", "alone"])
def test_new_key_is_kept_where_a_kbs_looks_for_it(
    free_place: Place, image: Image, tmp_path: Path, command: Command, in_file: bool
) -> None:
    encrypted, new = Image(tmp_path / "e"), tmp_path / "new"
    keep = ("--keyid", KID, "--kek-into", free_place.uri)
    more = ("--generate-key", new) if in_file else ()
    command("encrypt", image.reference, encrypted.reference, *keep, *more)
    kek = free_place.read()
    assert len(kek) == 32
    assert new.exists() is in_file
    assert not in_file or new.read_bytes() == kek
    command("verify", encrypted.reference, "--kek-from", free_place.uri, "--expect-keyid", KID)
    command("verify", encrypted.reference, "--keypath", key_file(tmp_path, kek))


def test_dry_run_puts_no_key_anywhere(
    free_place: Place, image: Image, tmp_path: Path, command: Command
) -> None:
    keep = ("--keyid", KID, "--kek-into", free_place.uri)
    command("encrypt", image.reference, f"oci:{tmp_path}/never", *keep, "--dry-run")
    encrypted = Image(tmp_path / "e")
    command("encrypt", image.reference, encrypted.reference, *keep)
    assert len(free_place.read()) == 32
    assert not (tmp_path / "never").exists()


def test_place_that_has_a_key_gets_no_other(
    free_place: Place, image: Image, tmp_path: Path, command: Command
) -> None:
    keep = ("--keyid", KID, "--kek-into", free_place.uri)
    first, second, new = tmp_path / "first", tmp_path / "second", tmp_path / "new"
    command("encrypt", image.reference, f"oci:{first}", *keep)
    kek = free_place.read()
    for more in ((), ("--generate-key", new)):
        outcome = command("encrypt", image.reference, f"oci:{second}", *keep, *more, ok=False)
        assert outcome.code == 7
        assert not second.exists()
        assert not new.exists()
    assert free_place.read() == kek
    command("verify", f"oci:{first}", "--kek-from", free_place.uri)


def test_keys_register_puts_a_key_where_a_kbs_looks_for_it(
    free_place: Place, image: Image, key: Key, tmp_path: Path, command: Command
) -> None:
    into = (KID, "--into", free_place.uri)
    command("keys", "register", key.path, *into)
    assert free_place.read() == key.raw
    other = key_file(tmp_path, os.urandom(32))
    assert command("keys", "register", other, *into, ok=False).code == 7
    assert free_place.read() == key.raw
    encrypted = f"oci:{tmp_path}/e"
    command("encrypt", image.reference, encrypted, "--keyid", KID, "--kek-from", free_place.uri)
    command("verify", encrypted, "--keypath", key.path)


# The provider.


def test_skopeo_encrypts_with_the_servers_key_of_a_store(
    place: Place, image: Image, skopeo: Skopeo, tmp_path: Path
) -> None:
    """skopeo's user names nothing but the key ID."""
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"default/key/1": b64encode(place.kek).decode()}))
    keys.chmod(0o600)
    flags = ("--kek-from", place.uri, "--keys", str(keys))
    with our_provider(skopeo, tmp_path, *flags) as provider:
        encrypted = provider.encrypt(image, f"keyid={KID}")
        assert provider.decrypt(encrypted, "offline_fs_kbc::null").layers == image.layers
    assert {layer.packet["kid"] for layer in encrypted.layers} == {KID}
    log = (tmp_path / LOG).read_bytes()
    assert not [trace for trace in traces(place.kek) if trace in log]


def test_skopeo_names_a_key_of_a_store_where_the_server_allows(
    open_vault: SimulatedVault, image: Image, skopeo: Skopeo, tmp_path: Path, command: Command
) -> None:
    keks = {team: os.urandom(32) for team in ("ours", "theirs")}
    for team, kek in keks.items():
        open_vault.secrets[f"secret/{team}/app"] = [{"data": list(kek)}]
    ours, theirs = (f"keyid={KID}::kekfrom=vault:///secret/{team}/app" for team in keks)
    with our_provider(skopeo, tmp_path, "--allow-kek", "vault:///secret/ours/*") as provider:
        encrypted = provider.encrypt(image, ours)
        asked = len(open_vault.requests)
        with pytest.raises(SkopeoError) as refused:
            provider.encrypt(image, theirs)
        assert "does not fetch keys from 'vault:///secret/theirs/app'" in str(refused.value)
        assert "its owner says where" in str(refused.value)
        assert len(open_vault.requests) == asked
    command("verify", encrypted.reference, "--keypath", key_file(tmp_path, keks["ours"]))
