"""Images that coco-kp encrypts itself, before a real skopeo, a real registry and a real agent."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coco_kp.cli.main import run
from tests.peers.skopeo import with_each_client
from tests.support.documents import TAR, TAR_GZIP, Layer
from tests.support.image import ENCRYPTED, Image, tar, write_image
from tests.support.index import layer_digests, write_index
from tests.support.layout import entries

if TYPE_CHECKING:
    from tests.peers.skopeo import Skopeo
    from tests.support.key import Key
    from tests.support.provider import Provider

pytestmark = pytest.mark.peer

FILES = ["oci", "oci-archive", "dir"]


def coco_kp(*arguments: str | Path) -> None:
    """Run a command that must succeed."""
    assert run([str(argument) for argument in arguments]) == 0


def place(transport: str, folder: Path, name: str) -> str:
    """Name a place for an image in a folder."""
    return f"{transport}:{folder / name}"


def assert_encrypted(image: Image, plain: Image) -> None:
    for layer, before in zip(image.layers, plain.layers, strict=True):
        assert layer.media_type == before.media_type + ENCRYPTED
        assert len(layer.blob) == len(before.blob)
        assert layer.blob != before.blob
    assert image.config == plain.config


@with_each_client
@pytest.mark.parametrize("transport", FILES)
@pytest.mark.parametrize("algorithm", ["A256GCM", "A256CTR"])
def test_skopeo_decrypts_image_encrypted_by_coco_kp(
    provider: Provider, image: Image, key: Key, tmp_path: Path, transport: str, algorithm: str
) -> None:
    encrypted = place(transport, tmp_path, "encrypted")
    coco_kp(
        *("encrypt", image.reference, encrypted, "--keyid", "/default/key/key_id1"),
        *("--keypath", key.path, "--algorithm", algorithm),
    )
    copied, decrypted = Image(tmp_path / "copied"), Image(tmp_path / "decrypted")
    provider.skopeo.copy(encrypted, copied.reference)
    assert_encrypted(copied, image)
    kbc = "offline_fs_kbc::null"
    provider.skopeo.decrypt(encrypted, decrypted.reference, kbc, provider.config)
    assert decrypted.layers == image.layers
    assert decrypted.config == image.config


@with_each_client
@pytest.mark.parametrize("transport", FILES)
def test_coco_kp_decrypts_image_encrypted_by_skopeo(
    provider: Provider, image: Image, key: Key, tmp_path: Path, transport: str
) -> None:
    encrypted = place(transport, tmp_path, "encrypted")
    provider.skopeo.encrypt(image.reference, encrypted, key.parameters(), provider.config)
    decrypted = place(transport, tmp_path, "decrypted")
    coco_kp("decrypt", encrypted, decrypted, "--keys", key.keys_file)
    coco_kp("verify", encrypted, "--keys", key.keys_file, "--target", "coco")
    copied = Image(tmp_path / "copied")
    provider.skopeo.copy(decrypted, copied.reference)
    assert copied.layers == image.layers
    assert copied.config == image.config


def test_coco_kp_and_skopeo_decrypt_each_others_image_through_registry(
    provider: Provider, image: Image, key: Key, tmp_path: Path, registry_address: str
) -> None:
    registry = f"docker://{registry_address}/team/app"
    plain_http = ["--src-tls-verify=false", "--dest-tls-verify=false"]
    provider.skopeo.copy(image.reference, f"{registry}:plain")
    coco_kp(
        *("encrypt", f"{registry}:plain", f"{registry}:ours", *plain_http),
        *("--keyid", "/default/key/key_id1", "--keypath", key.path),
    )
    provider.skopeo.encrypt(
        f"{registry}:plain", f"{registry}:skopeo", key.parameters(), provider.config
    )
    coco_kp("decrypt", f"{registry}:skopeo", f"{registry}:a", *plain_http, "--keypath", key.path)
    kbc = "offline_fs_kbc::null"
    provider.skopeo.decrypt(f"{registry}:ours", f"{registry}:b", kbc, provider.config)
    coco_kp("verify", f"{registry}:ours", "--tls-verify=false", "--keypath", key.path)
    for name in ("a", "b"):
        pulled = Image(tmp_path / name)
        provider.skopeo.copy(f"{registry}:{name}", pulled.reference)
        assert pulled.layers == image.layers
        assert pulled.config == image.config


@pytest.mark.folder_peer
def test_attestation_agent_opens_image_encrypted_by_coco_kp(
    agent: Provider, image: Image, key: Key, tmp_path: Path
) -> None:
    encrypted = Image(tmp_path / "encrypted")
    coco_kp(
        *("encrypt", image.reference, encrypted.reference),
        *("--keyid", "/default/key/key_id1", "--keypath", key.path),
    )
    decrypted = agent.decrypt(encrypted, "offline_fs_kbc::null")
    assert decrypted.layers == image.layers


def test_skopeo_copies_image_encrypted_by_coco_kp_unchanged(
    skopeo: Skopeo, image: Image, tmp_path: Path
) -> None:
    encrypted, copied = Image(tmp_path / "encrypted"), Image(tmp_path / "copied")
    coco_kp("encrypt", image.reference, encrypted.reference, "--sample")
    skopeo.copy(encrypted.reference, copied.reference)
    assert copied.manifest == encrypted.manifest
    assert copied.layers == encrypted.layers
    raw = inspect_raw(skopeo, encrypted.reference)
    entry = entries(encrypted.folder)[0]
    assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == entry["digest"]


def test_skopeo_and_coco_kp_decrypt_encrypted_index(
    provider: Provider, key: Key, tmp_path: Path
) -> None:
    shared = tar({"shared": b"shared"})
    images = [
        write_image(tmp_path / name, [shared, tar({"arch": name.encode()})])
        for name in ("amd64", "arm64")
    ]
    platforms = [{"platform": {"os": "linux", "architecture": i.folder.name}} for i in images]
    listed = write_index(tmp_path / "list", dict(zip(images, platforms, strict=True)))
    encrypted, decrypted = f"oci:{tmp_path}/encrypted", f"oci:{tmp_path}/decrypted"
    coco_kp(
        *("encrypt", listed, encrypted, "--keyid", "/default/key/key_id1", "--keypath", key.path)
    )
    provider.skopeo.copy(
        encrypted,
        decrypted,
        *("--all", "--decryption-key", "provider:attestation-agent:offline_fs_kbc::null"),
        config=provider.config,
    )
    ours = f"oci:{tmp_path}/ours"
    coco_kp("decrypt", encrypted, ours, "--keypath", key.path)
    assert layer_digests(tmp_path / "decrypted") == layer_digests(tmp_path / "list")
    assert layer_digests(tmp_path / "ours") == layer_digests(tmp_path / "list")
    assert layer_digests(tmp_path / "encrypted").isdisjoint(layer_digests(tmp_path / "list"))


def test_coco_kp_encrypts_docker_archive_written_by_skopeo(
    provider: Provider, image: Image, key: Key, tmp_path: Path
) -> None:
    archive = f"docker-archive:{tmp_path}/archive.tar:team/app:1"
    provider.skopeo.copy(image.reference, archive)
    encrypted = Image(tmp_path / "encrypted")
    coco_kp(
        *("encrypt", archive, encrypted.reference),
        *("--keyid", "/default/key/key_id1", "--keypath", key.path, "--verify", "full"),
    )
    assert all(layer.media_type == TAR + ENCRYPTED for layer in encrypted.layers)
    decrypted = Image(tmp_path / "decrypted")
    coco_kp("decrypt", encrypted.reference, decrypted.reference, "--keypath", key.path)
    for layer, before in zip(decrypted.layers, image.layers, strict=True):
        assert layer.blob == gzip.decompress(before.blob)


@with_each_client
def test_coco_kp_decrypts_layer_that_skopeo_compressed_while_encrypting(
    provider: Provider, key: Key, tmp_path: Path
) -> None:
    """Its packet records the digest from before: that of the archive (docs/protocols.md 1.3)."""
    plain = write_image(tmp_path / "plain", [Layer(tar({"etc/motd": b"hello"}))])
    encrypted = provider.encrypt(plain, key.parameters())
    decrypted = Image(tmp_path / "decrypted")
    coco_kp("decrypt", encrypted.reference, decrypted.reference, "--keypath", key.path)
    (layer,) = decrypted.layers
    assert layer.media_type == TAR_GZIP
    assert gzip.decompress(layer.blob) == plain.layers[0].blob


@pytest.mark.folder_peer
def test_rewrap_repairs_image_of_upstream_that_no_guest_opens(
    upstream: Provider, provider: Provider, image: Image, key: Key, tmp_path: Path
) -> None:
    """Upstream's provider writes a kid without a scheme as it is (docs/protocols.md 3.4)."""
    parameters = key.parameters(keyid="/default/key/key_id1")
    broken = upstream.encrypt(image, parameters)
    assert run(["verify", broken.reference, "--keypath", str(key.path)]) == 3
    mended = Image(tmp_path / "mended")
    coco_kp(
        *("rewrap", broken.reference, mended.reference, "--keypath", key.path),
        *("--to-keyid", "kbs:///default/key/key_id1", "--to-keypath", key.path),
    )
    coco_kp("verify", mended.reference, "--keypath", key.path, "--target", "coco")
    decrypted = provider.decrypt(mended, "offline_fs_kbc::null")
    assert decrypted.layers == image.layers


def test_encrypt_and_decrypt_through_another_provider_round_trip(
    any_door: Provider, image: Image, key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the other provider is our own; it is called as ocicrypt calls any."""
    monkeypatch.setenv("OCICRYPT_KEYPROVIDER_CONFIG", str(any_door.config))
    encrypted, decrypted = Image(tmp_path / "encrypted"), Image(tmp_path / "decrypted")
    coco_kp(
        *("encrypt", image.reference, encrypted.reference),
        *("--provider", f"attestation-agent:{key.parameters()}"),
        *("--provider-unwrap", "offline_fs_kbc::null"),
    )
    opening = ["--provider", "attestation-agent:offline_fs_kbc::null"]
    coco_kp("decrypt", encrypted.reference, decrypted.reference, *opening)
    assert decrypted.layers == image.layers


@pytest.mark.folder_peer
def test_encrypt_through_provider_that_cannot_unwrap_requires_trust_provider(
    upstream: Provider, image: Image, key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCICRYPT_KEYPROVIDER_CONFIG", str(upstream.config))
    encrypted = tmp_path / "encrypted"
    command = ["encrypt", image.reference, f"oci:{encrypted}"]
    command += ["--provider", f"attestation-agent:{key.parameters()}"]
    assert run(command) == 6
    assert not encrypted.exists()
    coco_kp(*command, "--trust-provider")
    coco_kp("verify", f"oci:{encrypted}", "--keypath", key.path)


def inspect_raw(skopeo: Skopeo, reference: str) -> bytes:
    command = [str(skopeo.program), "inspect", "--raw", reference]
    return subprocess.run(
        command, env=skopeo.environment(None), capture_output=True, check=True
    ).stdout
