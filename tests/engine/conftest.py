"""What the engine's tests share: an image, and keys."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import KID, Command
from tests.support.image import Image, tar, write_image


@pytest.fixture
def make_key(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a KEK file of this name."""

    def make(name: str) -> Path:
        path = tmp_path / name
        path.touch(0o600)
        path.write_bytes(os.urandom(32))
        return path

    return make


@pytest.fixture
def key(make_key: Callable[[str], Path]) -> Path:
    return make_key("key")


@pytest.fixture
def plain(tmp_path: Path) -> Image:
    """An image with a layer twice, a layer without files, and a layer of some size."""
    motd = tar({"etc/motd": b"hello"})
    return write_image(
        tmp_path / "plain", [motd, tar({}), tar({"data": os.urandom(600_000)}), motd]
    )


@pytest.fixture
def encrypted(plain: Image, key: Path, tmp_path: Path, command: Command) -> Image:
    """The image, encrypted with the key."""
    image = Image(tmp_path / "encrypted")
    command("encrypt", plain.reference, image.reference, "--keyid", KID, "--keypath", key)
    return image
