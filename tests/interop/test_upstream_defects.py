"""Defects of the upstream provider that show in images that skopeo makes with it.

Each test is named for its number in docs/protocols.md 6.3: the defect is shown on the upstream
provider itself, and then that we do not have it. A guest's attestation agent opens the images.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.peers.skopeo import PROVIDER, SkopeoError
from tests.peers.upstream import upstream_provider
from tests.support import ocicrypt
from tests.support.provider import LOG, Provider, grpc_config, our_provider, served_address, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.peers.skopeo import Skopeo
    from tests.support.image import Image, Layer
    from tests.support.key import Key

pytestmark = pytest.mark.peer

OFFLINE_FS = "offline_fs_kbc::null"


@pytest.mark.folder_peer
def test_defect_1_upstream_ignores_algorithm_and_coco_kp_does_not(
    upstream: Provider, provider: Provider, image: Image, key: Key
) -> None:
    parameters = key.parameters(algorithm="A256CTR")
    assert packets(upstream.encrypt(image, parameters), "wrap_type") == ["A256GCM"] * 3
    assert packets(provider.encrypt(image, parameters), "wrap_type") == ["A256CTR"] * 3


@pytest.mark.folder_peer
def test_defect_4_upstream_loses_random_key_and_coco_kp_refuses(
    upstream: Provider, provider: Provider, agent: Provider, image: Image
) -> None:
    parameters = "keyid=kbs:///default/key/key_id1"
    lost = upstream.encrypt(image, parameters)
    with pytest.raises(SkopeoError):
        agent.decrypt(lost, OFFLINE_FS)
    with pytest.raises(SkopeoError, match="keypath"):
        provider.encrypt(image, parameters)


KEY_IDS_WITHOUT_SCHEME = [
    "/default/key/key_id1",
    "kbs.example/default/key/key_id1",
    "localhost:8080/default/key/key_id1",
]


@pytest.mark.folder_peer
@pytest.mark.parametrize("key_id", KEY_IDS_WITHOUT_SCHEME)
def test_defect_6_upstream_writes_kid_that_no_guest_reads(
    upstream: Provider, agent: Provider, image: Image, key: Key, key_id: str
) -> None:
    encrypted = upstream.encrypt(image, key.parameters(keyid=key_id))
    assert packets(encrypted, "kid") == [key_id] * 3
    with pytest.raises(SkopeoError):
        agent.decrypt(encrypted, OFFLINE_FS)


@pytest.mark.folder_peer
@pytest.mark.parametrize("key_id", KEY_IDS_WITHOUT_SCHEME)
def test_defect_6_coco_kp_writes_kid_that_guest_reads(
    provider: Provider, agent: Provider, image: Image, key: Key, key_id: str
) -> None:
    encrypted = provider.encrypt(image, key.parameters(keyid=key_id))
    assert agent.decrypt(encrypted, OFFLINE_FS).layers == image.layers


@pytest.mark.folder_peer
def test_defect_7_upstream_does_not_explain_base64_key_file_and_coco_kp_does(
    upstream: Provider, provider: Provider, image: Image, key: Key
) -> None:
    key.path.write_bytes(b64encode(key.raw))
    with pytest.raises(SkopeoError, match="Failed to convert array to key"):
        upstream.encrypt(image, key.parameters())
    with pytest.raises(SkopeoError, match=r"base64 -d"):
        provider.encrypt(image, key.parameters())


@pytest.mark.folder_peer
def test_defect_8_upstream_never_unwraps_and_coco_kp_does(
    upstream: Provider, provider: Provider, image: Image, key: Key
) -> None:
    encrypted = upstream.encrypt(image, key.parameters())
    with pytest.raises(SkopeoError, match="Unimplemented"):
        upstream.decrypt(encrypted, OFFLINE_FS)
    assert provider.decrypt(encrypted, OFFLINE_FS).layers == image.layers


@pytest.mark.folder_peer
def test_defect_9_upstream_debug_log_shows_layer_keys(
    skopeo: Skopeo, image: Image, key: Key, tmp_path: Path
) -> None:
    with upstream_provider(tmp_path, log_level="debug") as running:
        config = grpc_config(tmp_path / "upstream.json", running.address())
        encrypted = Provider(skopeo, config, tmp_path).encrypt(image, key.parameters())
        secrets = [private_options(layer, key) for layer in encrypted.layers]
        assert all(b64encode(secret).decode() in running.output() for secret in secrets)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_defect_9_coco_kp_debug_log_shows_no_key(
    skopeo: Skopeo, image: Image, key: Key, tmp_path: Path, log_format: str
) -> None:
    flags = ("-vv", "--log-format", log_format, "--keys", str(key.keys_file))
    with our_provider(skopeo, tmp_path, *flags) as provider:
        encrypted = provider.encrypt(image, key.parameters())
        provider.decrypt(encrypted, OFFLINE_FS)
    log = (tmp_path / LOG).read_bytes()
    secrets = [private_options(layer, key) for layer in encrypted.layers]
    layer_keys = [b64decode(json.loads(secret)["symkey"]) for secret in secrets]
    for secret in [*secrets, *layer_keys, key.raw]:
        assert secret not in log
        assert secret.hex().encode() not in log.lower()
        assert b64encode(secret) not in log
    assert log.count(b"kbs:///default/key/key_id1") >= 3  # the calls were logged at all


@pytest.mark.folder_peer
def test_defect_10_upstream_reuses_iv_and_coco_kp_does_not(
    upstream: Provider, provider: Provider, image: Image
) -> None:
    assert packets(upstream.encrypt(image, "sample=true"), "iv") == ["AAAAAAAAAAAAAAAA"] * 3
    assert len(set(packets(provider.encrypt(image, "sample=true"), "iv"))) == 3


@pytest.mark.folder_peer
def test_defect_12_upstream_drops_second_recipient_and_coco_kp_refuses(
    upstream: Provider, provider: Provider, image: Image, key: Key
) -> None:
    second = ("--encryption-key", f"{PROVIDER}:{key.parameters(keyid='kbs:///default/key/2')}")
    encrypted = upstream.encrypt(image, key.parameters(), *second)
    assert packets(encrypted, "kid") == ["kbs:///default/key/key_id1"] * 3
    with pytest.raises(SkopeoError, match="2"):
        provider.encrypt(image, key.parameters(), *second)


@pytest.mark.folder_peer
@pytest.mark.parametrize("elements", [["!!!"], ["/w=="], []], ids=["no base64", "no text", "none"])
def test_defect_13_upstream_panics_on_undecodable_parameters_and_coco_kp_refuses(
    tmp_path: Path, elements: list[str]
) -> None:
    request = json.loads(ocicrypt.wrap_request("sample=true", ocicrypt.new_private_options()))
    request["keywrapparams"]["ec"]["Parameters"]["attestation-agent"] = elements
    with upstream_provider(tmp_path) as theirs:
        assert status(theirs.address(), request) is grpc.StatusCode.CANCELLED
        assert "panicked" in theirs.output()
    with serving(tmp_path) as ours:
        refusals = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}
        assert status(served_address(ours), request) in refusals


@pytest.mark.folder_peer
@pytest.mark.parametrize(
    "parameters", ["sample=True", "keypth=/etc/kek::keyid=kbs:///default/key/1"]
)
def test_defect_14_upstream_loses_key_on_misspelt_parameter_and_coco_kp_refuses(
    upstream: Provider, provider: Provider, agent: Provider, image: Image, parameters: str
) -> None:
    lost = upstream.encrypt(image, parameters)
    for kbc in (OFFLINE_FS, "sample_kbc::null"):
        with pytest.raises(SkopeoError):
            agent.decrypt(lost, kbc)
    with pytest.raises(SkopeoError, match=r"sample|keypth"):
        provider.encrypt(image, parameters)


@pytest.mark.folder_peer
@pytest.mark.parametrize("absent", [True, False], ids=["absent", "null"])
def test_defect_18_upstream_refuses_missing_decrypt_config_and_coco_kp_accepts(
    tmp_path: Path, absent: bool
) -> None:
    """What Go sends for a program that asks for encryption without skopeo's helpers."""
    request = json.loads(ocicrypt.wrap_request("sample=true", ocicrypt.new_private_options()))
    encrypt = request["keywrapparams"]["ec"]
    encrypt["DecryptConfig"] = None
    if absent:
        del encrypt["DecryptConfig"]
    with upstream_provider(tmp_path) as theirs:
        assert status(theirs.address(), request) is grpc.StatusCode.INVALID_ARGUMENT
    with serving(tmp_path) as ours:
        assert status(served_address(ours), request) is grpc.StatusCode.OK


def status(address: str, request: dict[str, Any]) -> grpc.StatusCode:
    """Send a request to wrap and return how the call ended."""
    with ocicrypt.connection(address) as channel:
        try:
            ocicrypt.send(channel, ocicrypt.WRAP_KEY, json.dumps(request).encode())
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def private_options(layer: Layer, key: Key) -> bytes:
    """Unwrap a layer's packet, made with A256GCM, without any of our own code."""
    iv, wrapped = (b64decode(layer.packet[member]) for member in ("iv", "wrapped_data"))
    return AESGCM(key.raw).decrypt(iv, wrapped, None)


def packets(image: Image, member: str) -> list[str]:
    """Return one member of each layer's packet."""
    return [layer.packet[member] for layer in image.layers]
