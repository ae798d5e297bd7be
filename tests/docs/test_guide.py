"""The guide's commands, run as they stand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.docs.reader import ContainerReader
from tests.peers.debian import debian_bin
from tests.peers.registry import registry
from tests.support.image import Image, tar, write_image
from tests.support.markdown import blocks


@pytest.mark.peer
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_guide_commands_run_as_written(tmp_path: Path, layers: int) -> None:
    files = [{f"file{number}": os.urandom(1000 * number)} for number in range(layers)]
    image = write_image(tmp_path / "app", [tar(each) for each in files])
    storage = tmp_path / "registry"
    storage.mkdir()
    with registry(debian_bin() / "docker-registry", storage) as address:
        reader = ContainerReader(tmp_path, REGISTRY=address)
        reader.run("skopeo copy --dest-tls-verify=false oci:app docker://$REGISTRY/team/app:0")
        reader.store("app", "localhost/app")
        reader.run("\n".join(blocks("docs/guide.md", "sh")))
    for program in blocks("docs/guide.md", "python"):
        reader.run(program, "python")
    for name in ("decrypted", "as-a-guest", "from-registry"):
        assert Image(tmp_path / f"app-{name}").layers == image.layers
    for name in ("from-buildah", "from-podman"):  # which compress anew
        assert Image(tmp_path / f"app-{name}").config == image.config
    for name in ("encrypted", "shared", "stdin", "rebuilt", "provider", "from-python"):
        assert all(layer.encrypted for layer in Image(tmp_path / f"app-{name}").layers)
    encrypted = [layer.encrypted for layer in Image(tmp_path / "app-last").layers]
    assert encrypted == [False] * (layers - 1) + [True]
    allowed = " ".join(f"--allow-layer {number}" for number in range(layers - 1))
    reader.run(f"coco-kp verify oci:app-last --keypath app.key {allowed}")
    assert not (tmp_path / "never").exists()
    rebuilt, shared = Image(tmp_path / "app-rebuilt"), Image(tmp_path / "app-shared")
    assert [a.blob for a in rebuilt.layers] == [b.blob for b in shared.layers]
