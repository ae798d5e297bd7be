"""The peers among themselves: where this fails, no other interop test means anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.image import Image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.peers.skopeo import Skopeo
    from tests.support.key import Key
    from tests.support.provider import Provider

pytestmark = pytest.mark.peer


@pytest.mark.folder_peer
def test_agent_opens_image_encrypted_by_upstream(
    upstream: Provider, agent: Provider, image: Image, key: Key
) -> None:
    encrypted = upstream.encrypt(image, key.parameters())
    assert all(layer.encrypted for layer in encrypted.layers)
    assert agent.decrypt(encrypted, "offline_fs_kbc::null").layers == image.layers


def test_registry_returns_image_pushed_by_skopeo_unchanged(
    skopeo: Skopeo, registry_address: str, image: Image, tmp_path: Path
) -> None:
    pulled = Image(tmp_path / "pulled")
    skopeo.copy(image.reference, f"docker://{registry_address}/team/app:1")
    skopeo.copy(f"docker://{registry_address}/team/app:1", pulled.reference)
    assert pulled.manifest == image.manifest
    assert pulled.layers == image.layers
