"""Packets between us, the upstream provider and a guest's attestation agent."""

from __future__ import annotations

import re
from base64 import b64decode
from typing import TYPE_CHECKING

import pytest

from tests.support.image import PACKETS
from tests.support.provider import Provider, our_provider

if TYPE_CHECKING:
    from pathlib import Path

    from tests.peers.skopeo import Skopeo
    from tests.support.image import Image
    from tests.support.key import Key

pytestmark = [pytest.mark.peer, pytest.mark.folder_peer]


@pytest.mark.parametrize("algorithm", ["A256GCM", "A256CTR"])
def test_attestation_agent_opens_packet_written_by_coco_kp(
    provider: Provider, agent: Provider, image: Image, key: Key, algorithm: str
) -> None:
    encrypted = provider.encrypt(image, key.parameters(algorithm=algorithm))
    decrypted = agent.decrypt(encrypted, "offline_fs_kbc::null")
    assert decrypted.layers == image.layers
    assert decrypted.config == image.config


def test_attestation_agent_opens_sample_packet_written_by_coco_kp(
    provider: Provider, agent: Provider, image: Image
) -> None:
    encrypted = provider.encrypt(image, "sample=true")
    assert agent.decrypt(encrypted, "sample_kbc::null").layers == image.layers


def test_attestation_agent_opens_v2_packet_written_by_coco_kp(
    skopeo: Skopeo, agent: Provider, image: Image, key: Key, tmp_path: Path
) -> None:
    with our_provider(skopeo, tmp_path, "--packet", "v2") as provider:
        encrypted = provider.encrypt(image, key.parameters())
    assert [layer.packet["version"] for layer in encrypted.layers] == ["0.1.0"] * 3
    assert agent.decrypt(encrypted, "offline_fs_kbc::null").layers == image.layers


def test_coco_kp_opens_packet_written_by_upstream(
    upstream: Provider, any_door: Provider, image: Image, key: Key
) -> None:
    encrypted = upstream.encrypt(image, key.parameters())
    assert any_door.decrypt(encrypted, "offline_fs_kbc::null").layers == image.layers


def test_coco_kp_opens_sample_packet_written_by_upstream(
    upstream: Provider, any_door: Provider, image: Image
) -> None:
    encrypted = upstream.encrypt(image, "sample=true")
    assert any_door.decrypt(encrypted, "sample_kbc::null").layers == image.layers


@pytest.mark.parametrize("trial", [True, False])
def test_packet_of_coco_kp_has_same_members_as_that_of_upstream(
    upstream: Provider, any_door: Provider, image: Image, key: Key, trial: bool
) -> None:
    parameters = "sample=true" if trial else key.parameters()
    theirs, ours = upstream.encrypt(image, parameters), any_door.encrypt(image, parameters)
    for their_layer, our_layer in zip(theirs.layers, ours.layers, strict=True):
        assert our_layer.annotations.keys() == their_layer.annotations.keys()
        assert shape(our_layer.annotations[PACKETS]) == shape(their_layer.annotations[PACKETS])


def shape(packet: str) -> str:
    """Return a packet's JSON text with each value's length in its place: members, order, spaces."""
    return re.sub(r'":"([^"]*)"', lambda value: f'":{len(value[1])}', b64decode(packet).decode())
