"""What the interop tests share: an image, a key, and our provider behind each of its doors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.peers.upstream import attestation_agent, upstream_provider
from tests.support.image import Image, tar, write_image
from tests.support.key import Key, make_key
from tests.support.provider import Provider, grpc_config, our_config, our_provider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.peers.skopeo import Skopeo


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return make_key(tmp_path / "key")


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """Three layers: a small one, one without files, and one of many of the cipher's blocks."""
    archives = [tar({"etc/motd": b"hello"}), tar({}), tar({"data": os.urandom(200_000)})]
    return write_image(tmp_path / "image", archives)


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
    with our_provider(skopeo, tmp_path, *keys, socket=socket) as provider:
        yield provider


@pytest.fixture
def provider(skopeo: Skopeo, tmp_path: Path, key: Key) -> Iterator[Provider]:
    """Our provider with the key at hand, over TCP: for what the way of calling cannot change."""
    with our_provider(skopeo, tmp_path, "--keys", str(key.keys_file)) as provider:
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
