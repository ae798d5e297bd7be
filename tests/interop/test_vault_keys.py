"""Keys in a simulated Vault, from login to bytes."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import hvac
import pytest

from coco_kp.errors import CocoKpError, KekError, RefusedError, RemoteError
from coco_kp.keys.kek import kek_of
from coco_kp.keys.reference import parse_kek_reference, parse_wrapping_reference
from coco_kp.keys.stores.interface import CiphertextError, Store, WrappingKey
from coco_kp.keys.stores.opening import open_store, open_wrapping_key
from tests.sim.vault import ROOT_TOKEN, SimulatedVault, Token, simulated_vault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEK = bytes(range(100, 132))
TEXT = "ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoM="


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SimulatedVault]:
    """A Vault in which we may do everything, and nobody else's in reach."""
    for name in [name for name in os.environ if name.startswith(("VAULT_", "TRANSIT_"))]:
        monkeypatch.delenv(name)
    with simulated_vault() as running:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("VAULT_ADDR", running.url)
        monkeypatch.setenv("VAULT_TOKEN", ROOT_TOKEN)
        yield running


@pytest.fixture
def admin(vault: SimulatedVault) -> Iterator[Any]:
    client = hvac.Client(vault.url, ROOT_TOKEN)
    yield client
    client.adapter.close()


def store(uri: str) -> Store:
    return open_store(parse_kek_reference(f"vault:///{uri}"))


def transit(name: str) -> WrappingKey:
    return open_wrapping_key(parse_wrapping_reference(f"hashivault://{name}"))


def message(call: Callable[[], object], kind: type[CocoKpError]) -> str:
    with pytest.raises(kind) as error:
        call()
    assert type(error.value) is kind
    return error.value.message


@pytest.mark.usefixtures("vault")
@pytest.mark.parametrize("uri", ["kv/default/key/1?kv=1", "secret/default/key/1?field=kek"])
def test_key_is_kept_once_and_fetched(uri: str) -> None:
    assert "there is no secret" in message(store(uri).fetch, KekError)
    store(uri).keep(KEK)
    assert store(uri).fetch() == KEK
    assert store(uri).check() == f"a key, {kek_of(KEK, 'it').fingerprint}"
    assert "a key is never replaced" in message(lambda: store(uri).keep(bytes(32)), RefusedError)
    assert store(uri).fetch() == KEK


def test_key_is_kept_where_trustee_reads_it(admin: Any) -> None:
    store("kv/default/key/1?kv=1").keep(KEK)
    assert admin.secrets.kv.v1.read_secret("default/key/1", "kv")["data"] == {"data": list(KEK)}


def test_text_is_decoded_as_reference_says(admin: Any) -> None:
    admin.secrets.kv.v2.create_or_update_secret("app", {"data": TEXT})
    assert store("secret/app?encoding=base64").fetch() == KEK
    assert store("secret/app").fetch() == TEXT.encode()


def test_engine_of_other_version_is_told_and_written_nothing(admin: Any) -> None:
    """One of version 1 takes a write for version 2, and replaces what is at ``data/…``."""
    admin.secrets.kv.v1.create_or_update_secret("data/app", {"a": "b"}, "POST", "kv")
    said = message(lambda: store("kv/app").keep(KEK), KekError)
    assert said == "the key-value engine at 'kv' of Vault is of version 1, not 2"
    assert admin.secrets.kv.v1.read_secret("data/app", "kv")["data"] == {"a": "b"}
    for use in (store("secret/app?kv=1").fetch, lambda: store("secret/app?kv=1").keep(KEK)):
        said = message(use, KekError)
        assert said == "the key-value engine at 'secret' of Vault is of version 2, not 1"


@pytest.mark.usefixtures("vault")
def test_missing_mount_is_told() -> None:
    said = message(store("nowhere/app").fetch, KekError)
    assert said.startswith("no secrets engine is mounted at 'nowhere' in Vault")
    with pytest.raises((KekError, RemoteError), match="nowhere"):
        store("nowhere/app").keep(KEK)


@pytest.mark.parametrize("derived", [False, True])
def test_transit_opens_what_it_wrapped_in_same_context_only(admin: Any, derived: bool) -> None:
    admin.write_data("transit/keys/prod", data={"derived": derived})
    wrapped = transit("prod").encrypt(KEK, {"name": "prod", "a": "é"})
    assert transit("prod").decrypt(wrapped, {"a": "é", "name": "prod"}) == KEK
    assert transit("prod").check() == (
        f"a transit key of type aes256-gcm96{', derived' if derived else ''}"
    )
    for context in ({}, {"name": "other", "a": "é"}):
        opening = partial(transit("prod").decrypt, wrapped, context)
        said = message(opening, CiphertextError)
        assert "does not open it: it was altered" in said
    admin.secrets.transit.rotate_key("prod")
    assert transit("prod").decrypt(wrapped, {"name": "prod", "a": "é"}) == KEK
    assert transit("prod").encrypt(KEK, {}).startswith(b"vault:v2:")


def test_transit_key_that_is_not_there_is_told_and_not_made(admin: Any) -> None:
    admin.write_data("transit/keys/prod", data={})
    wrapped = transit("prod").encrypt(KEK, {})
    for use in (
        transit("typo").check,
        lambda: transit("typo").encrypt(KEK, {}),
        lambda: transit("typo").decrypt(wrapped, {}),
    ):
        assert message(use, KekError) == "there is no transit key 'typo' in Vault"
    with pytest.raises(hvac.exceptions.InvalidPath):
        admin.secrets.transit.read_key("typo")


def test_app_role_may_use_what_its_policy_allows(
    vault: SimulatedVault, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.secrets.kv.v1.create_or_update_secret("other", {"data": list(KEK)}, "POST", "kv")
    vault.app_roles["role"] = "secret"
    vault.denied.add("kv/other")
    monkeypatch.delenv("VAULT_TOKEN")
    monkeypatch.setenv("VAULT_ROLE_ID", "role")
    monkeypatch.setenv("VAULT_SECRET_ID", "secret")
    store("kv/app?kv=1").keep(KEK)
    assert store("kv/app?kv=1").fetch() == KEK
    said = message(store("kv/other?kv=1").fetch, RemoteError)
    assert said.endswith("permission denied ('1 error occurred: * permission denied')")
    monkeypatch.setenv("VAULT_SECRET_ID", "other")
    said = message(store("kv/app?kv=1").fetch, RemoteError)
    assert "did not accept the login by AppRole" in said


def test_expired_token_is_told_from_missing_policy(
    vault: SimulatedVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.tokens["hvs.expired"] = Token("token", time.time() - 1)
    monkeypatch.setenv("VAULT_TOKEN", "hvs.expired")
    assert "the token has expired" in message(store("kv/app?kv=1").fetch, RemoteError)


def test_sealed_vault_is_told(admin: Any) -> None:
    admin.sys.seal()
    for use in (store("kv/app?kv=1").fetch, transit("prod").check):
        assert message(use, RemoteError).endswith("Vault is sealed")
