"""The example of docs/plugins.md, installed and asked as it stands there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from coco_kp.kbc.kbcs import PLUGINS
from coco_kp.kbs import attester
from coco_kp.keys.stores import opening
from tests.docs.reader import Reader
from tests.support.image import Image, tar, write_image
from tests.support.markdown import ROOT, blocks
from tests.support.plugins import install_example

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT = "docs/plugins.md"


def test_example_of_a_kbc_opens_images_once_it_is_installed(tmp_path: Path) -> None:
    image = write_image(tmp_path / "app", [tar({"motd": b"hello"}), tar({"data": bytes(100_000)})])
    (tmp_path / "my-keys").mkdir()
    (tmp_path / "my-keys/app").write_bytes(os.urandom(32))
    site = install_example(DOCUMENT, tmp_path / "site", PLUGINS.name)
    reader = Reader(tmp_path, PYTHONPATH=str(site))
    (commands,) = blocks(DOCUMENT, "sh")
    reader.run(commands)
    assert all(layer.encrypted for layer in Image(tmp_path / "app-encrypted").layers)
    assert Image(tmp_path / "app-plain").layers == image.layers


def test_page_on_plugins_has_every_kind() -> None:
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    for group in (PLUGINS, attester.PLUGINS, opening.PLUGINS):
        (row,) = (line for line in text.splitlines() if line.startswith(f"| `{group.name}` |"))
        assert [method for method in group.methods if method not in row] == []
