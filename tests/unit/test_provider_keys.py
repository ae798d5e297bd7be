"""Whose keys a provider wraps with: its own, those that callers name, and those that it makes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coco_kp.crypto import Kek
from coco_kp.errors import InputError, RefusedError
from coco_kp.kbs.admin import Admin
from coco_kp.kbs.record import Record
from coco_kp.keys.file_reference import FileReference
from coco_kp.keys.reference import VaultReference
from coco_kp.keys.register import Registrar
from coco_kp.keys.resolve import FetchedKek, UnkeptKeyError
from coco_kp.keys.wrapper import KekRecipient
from coco_kp.model.packet import read_packet
from coco_kp.model.protocol import WrapRequest
from coco_kp.provider import Provider
from tests.sim.vault import ROOT_TOKEN, SimulatedVault
from tests.vectors import load_vectors

if TYPE_CHECKING:
    from coco_kp.provider import Wrapped
    from tests.sim.kbs import SimulatedKbs

KID = "kbs:///default/key/1"
OPTIONS: bytes = load_vectors("packets")["good"][0]["optsdata"].encode()
TEAM = "vault:///kv/team/app?kv=1"


@pytest.fixture
def registrar(admin: Admin, tmp_path: Path) -> Registrar:
    return Registrar(admin, Record(tmp_path / "registered"))


@pytest.fixture
def kek(tmp_path: Path) -> Path:
    path = tmp_path / "kek"
    path.touch(0o600)
    path.write_bytes(os.urandom(32))
    return path


def wrap(provider: Provider, parameters: str) -> Wrapped:
    return provider.wrap(WrapRequest((parameters,), OPTIONS))


def opens(wrapped: Wrapped, kek: bytes) -> bool:
    key = read_packet(wrapped.packet).wrapped_key
    assert key
    return Kek(kek).unwrap(key.wrap_type, key.iv, key.wrapped_data) == OPTIONS


def test_provider_registers_no_key_of_a_caller_unless_its_owner_says_so(
    sim: SimulatedKbs, registrar: Registrar, kek: Path
) -> None:
    """He could name another team's file, and fetch its key under a key ID of his own."""
    wrapped = wrap(Provider(registrar=registrar), f"keypath={kek}::keyid={KID}")
    assert opens(wrapped, kek.read_bytes())
    assert any("it was not registered" in warning for warning in wrapped.warnings)
    assert not sim.requests
    wrap(Provider(registrar=registrar, register_callers_files=True), f"keypath={kek}::keyid={KID}")
    assert sim.resources == {"default/key/1": kek.read_bytes()}


@pytest.mark.parametrize("callers_files", [False, True])
def test_provider_registers_its_own_key_under_no_key_id_of_a_caller(
    sim: SimulatedKbs, registrar: Registrar, kek: Path, callers_files: bool
) -> None:
    """He could fetch it as a guest, and then open every image that it ever wrapped for."""
    own = FetchedKek(FileReference(str(kek)))
    provider = Provider(registrar=registrar, source=own, register_callers_files=callers_files)
    wrapped = wrap(provider, f"keyid={KID}")
    assert opens(wrapped, kek.read_bytes())
    assert any("provider's own: it was not registered" in text for text in wrapped.warnings)
    assert not sim.requests


def test_provider_registers_only_what_has_wrapped(
    sim: SimulatedKbs, registrar: Registrar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise InputError("no packet")

    monkeypatch.setattr(KekRecipient, "wrap", fails)
    with pytest.raises(InputError, match="no packet"):
        wrap(Provider(registrar=registrar), "algorithm=A256GCM")
    assert not sim.requests


def test_provider_makes_no_key_under_a_callers_key_id_that_only_the_kbs_would_keep(
    sim: SimulatedKbs, registrar: Registrar
) -> None:
    with pytest.raises(UnkeptKeyError) as error:
        wrap(Provider(registrar=registrar), f"keyid={KID}")
    assert error.value.code == "key-unkept"
    assert "keypath=" in error.value.hint
    assert not sim.requests


@pytest.fixture
def secrets(vault: SimulatedVault, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Keys in a Vault, by path."""
    monkeypatch.setenv("VAULT_TOKEN", ROOT_TOKEN)
    keks = {path: os.urandom(32) for path in ("kv/team/app", "kv/other/app")}
    vault.secrets |= {path: [{"data": list(kek)}] for path, kek in keks.items()}
    return keks


def test_provider_fetches_for_callers_what_its_owner_allows(secrets: dict[str, bytes]) -> None:
    provider = Provider(allow_kek=("vault:///kv/team/*",))
    assert opens(wrap(provider, f"kekfrom={TEAM}::keyid={KID}"), secrets["kv/team/app"])


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize(
    "reference",
    [
        "vault:///kv/other/app",
        "vault://vault.example/kv/team/app",
        "exec:cat /etc/passwd",
        "file:/etc/passwd",
        # A library of the caller's choice would run in this process.
        "pkcs11:object=k?module-path=/tmp/evil.so",
        "pkcs11:object=k?pin-source=/etc/shadow",
    ],
)
def test_provider_fetches_callers_key_from_nowhere_else(
    vault: SimulatedVault, reference: str
) -> None:
    allowed = ("vault:///kv/team/*", "pkcs11:*", "exec:*", "file:*")
    for provider in (Provider(allow_kek=allowed), Provider()):
        with pytest.raises(RefusedError, match="does not fetch keys from") as refused:
            wrap(provider, f"kekfrom={reference}::keyid={KID}")
        assert refused.value.code == "kek-source-not-allowed"
    with pytest.raises(RefusedError):
        wrap(Provider(), f"kekfrom={TEAM}::keyid={KID}")
    assert not vault.requests


def test_provider_wraps_with_its_own_key_for_callers_who_name_a_key_id_only(
    secrets: dict[str, bytes],
) -> None:
    source = FetchedKek(VaultReference("", "kv/team/app", version=1))
    wrapped = wrap(Provider(source=source), f"keyid={KID}")
    assert opens(wrapped, secrets["kv/team/app"])
    assert wrapped.kid == KID


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("path", ["team/../other/app", "team/%2e%2e/other/app", "team/./../../kv"])
def test_provider_is_not_led_out_of_what_its_owner_allows(vault: SimulatedVault, path: str) -> None:
    """The pattern matches, and an HTTP client would resolve the path to another team's key."""
    with pytest.raises(InputError):
        wrap(
            Provider(allow_kek=("vault:///kv/team/*",)),
            f"kekfrom=vault:///kv/{path}?kv=1::keyid={KID}",
        )
    assert not vault.requests
