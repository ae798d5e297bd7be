"""docs/runtimes.md: its commands; tests/interop/test_containerd.py runs its configuration."""

from __future__ import annotations

import json
import shlex
from base64 import b64encode
from pathlib import Path

import pytest

from coco_kp.cli.config import command as config
from tests.docs.reader import ContainerReader
from tests.support.image import Image, tar, write_image
from tests.support.markdown import ROOT, blocks

DOCUMENT = "docs/runtimes.md"


@pytest.mark.peer
def test_images_are_opened_without_parameters_as_written(tmp_path: Path) -> None:
    image = write_image(tmp_path / "plain", [tar({"motd": b"hello"})])
    (tmp_path / "kek").write_bytes(bytes(range(32)))
    keys = {"default/key/app": b64encode(bytes(range(32))).decode()}
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    for name in ("kek", "keys.json"):
        (tmp_path / name).chmod(0o600)
    reader = ContainerReader(tmp_path)
    key = "--keypath kek --keyid kbs:///default/key/app"
    reader.run(f"coco-kp encrypt oci:plain oci:app-encrypted {key}")
    commands, _ = blocks(DOCUMENT, "sh")
    printed = reader.run(f"{commands}\nbuildah images --quiet --no-trunc")
    assert Image(tmp_path / "app").layers == image.layers
    config_digest = Image(tmp_path / "app").manifest["config"]["digest"]
    assert config_digest in printed


def test_command_for_containerd_has_options_that_there_are() -> None:
    """It writes into /etc."""
    _, line = blocks(DOCUMENT, "sh")
    program, name, *arguments = shlex.split(line)
    assert (program, name) == ("coco-kp", "config")
    config.make_context(name, arguments)


def test_document_says_what_was_tried_and_what_was_not() -> None:
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    assert text.count("not tried: no package registry has it") == 2
