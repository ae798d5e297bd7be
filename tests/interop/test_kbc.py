"""Each KBC opens an image that a real skopeo encrypted through our provider: with its real broker.

What the guest's attestation agent of the time can open, it opens too (docs/protocols.md 4).
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.peers.kbs import kbs
from tests.peers.simple_kbs import simple_kbs
from tests.peers.skopeo import SkopeoError
from tests.peers.upstream import attestation_agent
from tests.peers.verdictd import verdictd
from tests.support.key import KEY_ID
from tests.support.provider import Provider, grpc_config, our_provider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.peers.skopeo import Skopeo
    from tests.support.image import Image
    from tests.support.key import Key

pytestmark = pytest.mark.peer

both_algorithms = pytest.mark.parametrize("algorithm", ["A256GCM", "A256CTR"])

# the names under which a SEV guest's kernel shows its secrets (docs/protocols.md 4)
KEYS_GUID = "e6f5a162-d67f-4750-a67c-5d065f2a9910"
CONNECTION_GUID = "1ee27366-0c87-43a6-af48-28543eaf7cb0"


@both_algorithms
def test_offline_sev_opens_image_with_copy_of_injected_secret(
    skopeo: Skopeo, image: Image, key: Key, tmp_path: Path, algorithm: str
) -> None:
    """With a copy of the injected secret: there is no SEV hardware here."""
    with our_provider(skopeo, tmp_path, "--keys", str(key.keys_file)) as provider:
        encrypted = provider.encrypt(image, key.parameters(algorithm=algorithm))
        assert provider.decrypt(encrypted, "offline_sev_kbc::null").layers == image.layers
    assert key.keys_file.exists()


def test_offline_sev_deletes_injected_secret_and_keeps_serving(
    skopeo: Skopeo, image: Image, key: Key, tmp_path: Path
) -> None:
    """From a folder that stands for the kernel's: read at the first layer, then deleted."""
    secret = tmp_path / "secrets" / KEYS_GUID
    secret.parent.mkdir()
    shutil.copy(key.keys_file, secret)
    with our_provider(skopeo, tmp_path, "--sev-secrets", str(secret.parent)) as provider:
        encrypted = provider.encrypt(image, key.parameters())
        assert secret.exists()
        for _ in range(2):
            assert provider.decrypt(encrypted, "offline_sev_kbc::null").layers == image.layers
            assert not secret.exists()


@pytest.mark.folder_peer
@both_algorithms
def test_attestation_agent_opens_our_image_with_offline_sev(
    skopeo: Skopeo, provider: Provider, image: Image, key: Key, tmp_path: Path, algorithm: str
) -> None:
    encrypted = provider.encrypt(image, key.parameters(algorithm=algorithm))
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    shutil.copy(key.keys_file, secrets / KEYS_GUID)
    with agent_with(skopeo, secrets, tmp_path) as agent:
        assert agent.decrypt(encrypted, "offline_sev_kbc::null").layers == image.layers


@pytest.mark.folder_peer
@both_algorithms
def test_online_sev_opens_image_with_key_from_simple_kbs(
    skopeo: Skopeo, image: Image, key: Key, tmp_path: Path, algorithm: str
) -> None:
    with simple_kbs(tmp_path / "broker", key.keys_file) as broker:
        kbc = f"online_sev_kbc::{broker.address}"
        with our_provider(skopeo, tmp_path, "--keys", str(broker.connection)) as provider:
            encrypted = provider.encrypt(image, key.parameters(algorithm=algorithm))
            assert provider.decrypt(encrypted, kbc).layers == image.layers

        secrets = tmp_path / "secrets"
        secrets.mkdir()
        shutil.copy(broker.connection, secrets / CONNECTION_GUID)
        with agent_with(skopeo, secrets, tmp_path) as agent:
            assert agent.decrypt(encrypted, kbc).layers == image.layers


@pytest.mark.folder_peer
@pytest.mark.parametrize(
    ("key_id", "words"),
    [("default/key/other", "no rows returned"), ("default/key/key_id1", "Connection not found")],
)
def test_online_sev_reports_key_or_connection_unknown_to_simple_kbs(
    skopeo: Skopeo, image: Image, key: Key, tmp_path: Path, key_id: str, words: str
) -> None:
    connection = tmp_path / "connection.json"
    with simple_kbs(tmp_path / "broker", key.keys_file) as broker:
        text = broker.connection.read_text()
        if words == "Connection not found":
            client = text.split('"')[3]
            text = text.replace(client, client[::-1].translate(str.maketrans("", "", "-")))
        connection.write_text(text)
        with our_provider(skopeo, tmp_path, "--keys", str(connection)) as provider:
            encrypted = provider.encrypt(image, key.parameters(keyid=f"kbs:///{key_id}"))
            with pytest.raises(SkopeoError, match=words):
                provider.decrypt(encrypted, f"online_sev_kbc::{broker.address}")


@pytest.mark.folder_peer
@both_algorithms
def test_cc_opens_image_with_key_from_kbs(
    skopeo: Skopeo, image: Image, key: Key, tmp_path: Path, algorithm: str
) -> None:
    with kbs(tmp_path) as broker, our_provider(skopeo, tmp_path) as provider:
        broker.allow_all()
        broker.configure("set-resource", "--path", KEY_ID, "--resource-file", key.path)
        encrypted = provider.encrypt(image, key.parameters(algorithm=algorithm))
        assert provider.decrypt(encrypted, f"cc_kbc::{broker.url}").layers == image.layers


@pytest.mark.folder_peer
def test_eaa_opens_image_through_verdictd_or_reports_failure(
    skopeo: Skopeo, image: Image, key: Key, tmp_path: Path
) -> None:
    keys = {KEY_ID: key.raw, "default/key/other": os.urandom(32)}
    with (
        verdictd(tmp_path / "verdictd", keys) as address,
        our_provider(skopeo, tmp_path) as provider,
    ):
        kbc = f"eaa_kbc::{address}"
        encrypted = provider.encrypt(image, key.parameters())
        assert provider.decrypt(encrypted, kbc).layers == image.layers

        ctr = provider.encrypt(image, key.parameters(algorithm="A256CTR"))
        with pytest.raises(SkopeoError, match="A256CTR cannot be opened through eaa"):
            provider.decrypt(ctr, kbc)

        other = provider.encrypt(image, key.parameters(keyid="kbs:///default/key/other"))
        with pytest.raises(SkopeoError, match="decryption failed"):
            provider.decrypt(other, kbc)

        missing = provider.encrypt(image, key.parameters(keyid="kbs:///default/key/none"))
        with pytest.raises(SkopeoError, match="key not found"):
            provider.decrypt(missing, kbc)


@pytest.mark.folder_peer
def test_provider_uses_the_kbc_named_in_each_call(
    skopeo: Skopeo, image: Image, key: Key, tmp_path: Path
) -> None:
    """One server opens the same image in each way; the agent would keep the first for ever."""
    with (
        kbs(tmp_path / "first") as first,
        kbs(tmp_path / "second") as second,
        verdictd(tmp_path / "verdictd", {KEY_ID: key.raw}) as address,
        our_provider(skopeo, tmp_path, "--keys", str(key.keys_file)) as provider,
    ):
        first.allow_all()
        second.allow_all()
        second.configure("set-resource", "--path", KEY_ID, "--resource-file", key.path)
        encrypted = provider.encrypt(image, key.parameters())
        with pytest.raises(SkopeoError, match="there is no such resource"):
            provider.decrypt(encrypted, f"cc_kbc::{first.url}")
        for kbc in (f"cc::{second.url}", f"eaa::{address}", "offline_fs::null", "offline_sev_kbc"):
            assert provider.decrypt(encrypted, kbc).layers == image.layers


@contextmanager
def agent_with(skopeo: Skopeo, secrets: Path, folder: Path) -> Iterator[Provider]:
    """A guest's attestation agent that was launched with these secrets."""
    with attestation_agent(folder, secrets=secrets) as running:
        yield Provider(skopeo, grpc_config(folder / "agent.json", running.address()), folder)
