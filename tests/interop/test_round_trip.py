"""A real skopeo encrypts through our provider, and gets back what it gave."""

from __future__ import annotations

import gzip
import json
from base64 import b64decode
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.peers.skopeo import PROVIDER, with_each_client
from tests.support import ocicrypt
from tests.support.documents import TAR_GZIP, Layer
from tests.support.image import ENCRYPTED, Image, tar, write_image
from tests.support.key import make_key
from tests.support.provider import (
    COCO_KP,
    Provider,
    our_config,
    our_provider,
    served_address,
    serving,
)

if TYPE_CHECKING:
    from tests.peers.skopeo import Skopeo
    from tests.support.key import Key

pytestmark = pytest.mark.peer


def has_ipv6_loopback() -> bool:
    addresses = Path("/proc/net/if_inet6")
    return addresses.exists() and f"{1:032x}" in addresses.read_text()


@with_each_client
@pytest.mark.parametrize("algorithm", ["A256GCM", "A256CTR"])
def test_skopeo_round_trip_restores_each_layer_byte_for_byte(
    any_door: Provider, image: Image, key: Key, algorithm: str
) -> None:
    encrypted = any_door.encrypt(image, key.parameters(algorithm=algorithm))
    for plain, layer in zip(image.layers, encrypted.layers, strict=True):
        assert layer.media_type == plain.media_type + ENCRYPTED
        assert len(layer.blob) == len(plain.blob)
        assert layer.blob != plain.blob
        assert layer.packet["kid"] == "kbs:///default/key/key_id1"
        assert layer.packet["wrap_type"] == algorithm

    decrypted = any_door.decrypt(encrypted, "offline_fs_kbc::null")
    assert decrypted.layers == image.layers
    assert decrypted.config == image.config


def test_skopeo_round_trip_with_sample_key_restores_layers(
    any_door: Provider, image: Image
) -> None:
    encrypted = any_door.encrypt(image, "sample=true")
    assert all(layer.encrypted for layer in encrypted.layers)
    assert any_door.decrypt(encrypted, "sample_kbc::null").layers == image.layers


def test_skopeo_round_trip_works_with_provider_of_any_name(
    skopeo: Skopeo, image: Image, tmp_path: Path
) -> None:
    encrypted, decrypted = Image(tmp_path / "encrypted"), Image(tmp_path / "decrypted")
    with serving(tmp_path) as server:
        door = ("--grpc", served_address(server), "--name", "our-keys")
        config = our_config(tmp_path / "ocicrypt.json", *door)
        use = ("--encryption-key", "provider:our-keys:sample=true")
        skopeo.copy(image.reference, encrypted.reference, *use, config=config)
        use = ("--decryption-key", "provider:our-keys:sample_kbc::null")
        skopeo.copy(encrypted.reference, decrypted.reference, *use, config=config)
    packets = "org.opencontainers.image.enc.keys.provider.our-keys"
    assert all(packets in layer.annotations for layer in encrypted.layers)
    assert decrypted.layers == image.layers


@with_each_client
def test_two_providers_of_one_request_each_wrap_with_the_key_of_their_own_parameters(
    skopeo: Skopeo, image: Image, tmp_path: Path
) -> None:
    """Both packets had the key of the first: a client sends all parameters to each provider."""
    keys = {name: make_key(tmp_path / name) for name in ("attestation-agent", "mine")}
    uses: list[str] = []
    providers: dict[str, object] = {}
    for name, key in keys.items():
        command = ["keyprovider", "--name", name]
        providers[name] = {"cmd": {"path": str(COCO_KP), "args": command}}
        parameters = key.parameters(keyid=f"kbs:///default/key/{name}")
        uses += ["--encryption-key", f"provider:{name}:{parameters}"]
    config = tmp_path / "ocicrypt.json"
    config.write_text(json.dumps({"key-providers": providers}))
    encrypted = Image(tmp_path / "encrypted")
    skopeo.copy(image.reference, encrypted.reference, *uses, config=config)
    for layer in encrypted.layers:
        for name, key in keys.items():
            annotation = layer.annotations[f"org.opencontainers.image.enc.keys.provider.{name}"]
            packet = json.loads(b64decode(annotation))
            assert packet["kid"] == f"kbs:///default/key/{name}"
            iv, wrapped = (b64decode(packet[member]) for member in ("iv", "wrapped_data"))
            assert b"symkey" in AESGCM(key.raw).decrypt(iv, wrapped, None)


def test_client_that_sends_no_parameters_has_packets_opened_with_keys_of_the_server(
    tmp_path: Path, key: Key
) -> None:
    """So do containerd's CRI and ``nerdctl pull``."""
    options = ocicrypt.new_private_options()
    with (
        serving(tmp_path, "--keys", str(key.keys_file)) as server,
        ocicrypt.connection(served_address(server)) as channel,
    ):
        packet = ocicrypt.wrap(channel, key.parameters(), options)
        request = json.loads(ocicrypt.unwrap_request("", packet))
        nothing: list[object] = [None, {"Parameters": None}, {"Parameters": {}}]
        for config in nothing:
            request["keyunwrapparams"]["dc"] = config
            answer = ocicrypt.send(channel, ocicrypt.UNWRAP_KEY, json.dumps(request).encode())
            assert bytes(json.loads(answer)["keyunwrapresults"]["optsdata"]) == options


def test_skopeo_needs_no_kbc_parameter_when_server_has_its_own(
    skopeo: Skopeo, image: Image, key: Key, tmp_path: Path
) -> None:
    """With a KBC of the server's own, users need not name one: skopeo then says ``Enabled``."""
    decrypted = Image(tmp_path / "decrypted")
    with our_provider(skopeo, tmp_path, "--keys", str(key.keys_file)) as provider:
        encrypted = provider.encrypt(image, key.parameters())
        use = ("--decryption-key", PROVIDER)
        skopeo.copy(encrypted.reference, decrypted.reference, *use, config=provider.config)
    assert decrypted.layers == image.layers


@pytest.mark.skipif(not has_ipv6_loopback(), reason="this machine has no IPv6 loopback")
def test_skopeo_round_trip_works_over_ipv6(skopeo: Skopeo, image: Image, tmp_path: Path) -> None:
    with our_provider(skopeo, tmp_path, socket="[::1]:0") as provider:
        encrypted = provider.encrypt(image, "sample=true")
        assert provider.decrypt(encrypted, "sample_kbc::null").layers == image.layers


@with_each_client
def test_skopeo_round_trip_keeps_content_of_uncompressed_layer(
    provider: Provider, key: Key, tmp_path: Path
) -> None:
    """skopeo compresses such a layer on its way into a layout: what is kept is the archive."""
    archive = tar({"etc/motd": b"hello"})
    image = write_image(tmp_path / "image", [Layer(archive)])
    encrypted = provider.encrypt(image, key.parameters())
    (layer,) = provider.decrypt(encrypted, "offline_fs_kbc::null").layers
    assert layer.media_type == TAR_GZIP
    assert gzip.decompress(layer.blob) == archive


@with_each_client
@pytest.mark.parametrize(
    ("selection", "expected"),
    [("0", [True, False, False]), ("-1", [False, False, True]), ("0,2", [True, False, True])],
)
def test_skopeo_encrypts_only_selected_layers(
    provider: Provider, image: Image, key: Key, selection: str, expected: list[bool]
) -> None:
    encrypted = provider.encrypt(image, key.parameters(), "--encrypt-layer", selection)
    assert [layer.encrypted for layer in encrypted.layers] == expected
    for plain, layer in zip(image.layers, encrypted.layers, strict=True):
        assert layer.encrypted or layer == plain
    assert provider.decrypt(encrypted, "offline_fs_kbc::null").layers == image.layers


@with_each_client
def test_skopeo_round_trip_through_registry_restores_eight_layers(
    skopeo: Skopeo, provider: Provider, registry_address: str, key: Key, tmp_path: Path
) -> None:
    """Eight layers, of which skopeo works on six at a time: calls come side by side."""
    archives = [tar({f"file{n}": bytes([n]) * 10_000}) for n in range(8)]
    image = write_image(tmp_path / "image", archives)
    pushed = f"docker://{registry_address}/team/app:1"
    encrypted = f"docker://{registry_address}/team/app:encrypted"
    skopeo.copy(image.reference, pushed)
    skopeo.encrypt(pushed, encrypted, key.parameters(), provider.config)

    pulled, decrypted = Image(tmp_path / "pulled"), Image(tmp_path / "decrypted")
    skopeo.copy(encrypted, pulled.reference)
    assert all(layer.encrypted for layer in pulled.layers)
    skopeo.decrypt(encrypted, decrypted.reference, "offline_fs_kbc::null", provider.config)
    assert decrypted.layers == image.layers
    assert decrypted.config == image.config
