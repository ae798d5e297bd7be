"""What the interop tests share: an image, keys, and our provider behind each of its doors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from coco_kp.keys.stores import pkcs11_token
from tests.peers.aws import ALIAS
from tests.peers.softhsm import MASTER, PIN
from tests.peers.upstream import attestation_agent, upstream_provider
from tests.sim.transit import TransitKey
from tests.sim.vault import ROOT_TOKEN
from tests.support.image import Image, tar, write_image
from tests.support.key import Key, make_key
from tests.support.provider import Provider, grpc_config, our_config, our_provider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.peers.skopeo import Skopeo
    from tests.peers.softhsm import SoftHsm
    from tests.sim.vault import SimulatedVault


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return make_key(tmp_path / "key")


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """Three layers: a small one, one without files, and one of many of the cipher's blocks."""
    archives = [tar({"etc/motd": b"hello"}), tar({}), tar({"data": os.urandom(200_000)})]
    return write_image(tmp_path / "image", archives)


@pytest.fixture
def hsm(softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    """A token, its PIN in the environment."""
    monkeypatch.setenv("COCO_KP_PKCS11_PIN", PIN)
    monkeypatch.delenv("COCO_KP_PKCS11_MODULE", raising=False)
    monkeypatch.setattr(pkcs11_token, "_rejected", set())
    return softhsm


@pytest.fixture
def open_vault(
    vault: SimulatedVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SimulatedVault:
    """A Vault in which we may do everything; its transit engine has the key ``kek``."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VAULT_TOKEN", ROOT_TOKEN)
    vault.transit.keys["kek"] = TransitKey()
    return vault


@pytest.fixture(params=["softhsm", "local_kms", "moto", "vault"])
def staying(request: pytest.FixtureRequest) -> str:
    """The URI of a key that stays in an HSM, an emulated AWS KMS or a simulated Vault."""
    if request.param == "softhsm":
        hsm: SoftHsm = request.getfixturevalue("hsm")
        return hsm.uri(MASTER)
    if request.param == "vault":
        request.getfixturevalue("open_vault")
        return "hashivault://kek"
    request.getfixturevalue(request.param)
    return f"awskms:///{ALIAS}"


@pytest.fixture(params=["tcp", "unix", "cmd"])
def any_door(
    request: pytest.FixtureRequest, skopeo: Skopeo, tmp_path: Path, key: Key
) -> Iterator[Provider]:
    """Our provider with the key at hand; once for each of the ways in which skopeo can call it."""
    keys = ("--keys", str(key.keys_file))
    if request.param == "cmd":
        config = our_config(tmp_path / "ocicrypt.json", "--cmd", "--", *keys)
        yield Provider(skopeo, config, tmp_path)
        return
    socket = "127.0.0.1:0" if request.param == "tcp" else f"unix://{tmp_path}/socket"
    told = ("--key-dir", str(tmp_path))  # over TCP, what is wrong with a key file is told only then
    with our_provider(skopeo, tmp_path, *keys, *told, socket=socket) as provider:
        yield provider


@pytest.fixture
def provider(skopeo: Skopeo, tmp_path: Path, key: Key) -> Iterator[Provider]:
    """Our provider with the key at hand, over TCP: for what the way of calling cannot change."""
    # Over TCP, what is wrong with a key file is told only with --key-dir.
    keys = ("--keys", str(key.keys_file), "--key-dir", str(tmp_path))
    with our_provider(skopeo, tmp_path, *keys) as provider:
        yield provider


@pytest.fixture
def upstream(skopeo: Skopeo, tmp_path: Path) -> Iterator[Provider]:
    """The upstream provider; it cannot decrypt."""
    with upstream_provider(tmp_path) as running:
        config = grpc_config(tmp_path / "upstream.json", running.address())
        yield Provider(skopeo, config, tmp_path)


@pytest.fixture
def agent(skopeo: Skopeo, tmp_path: Path, key: Key) -> Iterator[Provider]:
    """A guest's attestation agent with the key at hand; it cannot encrypt."""
    with attestation_agent(tmp_path, key.keys_file.read_text()) as running:
        config = grpc_config(tmp_path / "agent.json", running.address())
        yield Provider(skopeo, config, tmp_path)
