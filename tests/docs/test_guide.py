"""The guide's commands, run as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers.debian import debian_bin
from tests.peers.registry import registry
from tests.support.image import Image, tar, write_image
from tests.support.markdown import blocks


@pytest.mark.peer
def test_the_blocks_of_the_guide_run_as_they_stand(tmp_path: Path) -> None:
    image = write_image(tmp_path / "app", [tar({"motd": b"hello"}), tar({"data": bytes(100_000)})])
    script = "\n".join(blocks("docs/guide.md", "sh"))
    storage = tmp_path / "registry"
    storage.mkdir()
    with registry(debian_bin() / "docker-registry", storage) as address:
        run(["bash", "-eux", "-o", "pipefail", "-c", script], tmp_path, REGISTRY=address)
    for program in blocks("docs/guide.md", "python"):
        run([sys.executable, "-c", program], tmp_path)
    for name in ("app-decrypted", "app-as-a-guest"):
        assert Image(tmp_path / name).layers == image.layers
    for name in ("encrypted", "shared", "stdin", "rebuilt", "provider", "from-python"):
        assert all(layer.encrypted for layer in Image(tmp_path / f"app-{name}").layers)
    assert not (tmp_path / "never").exists()
    rebuilt, shared = Image(tmp_path / "app-rebuilt"), Image(tmp_path / "app-shared")
    assert [a.blob for a in rebuilt.layers] == [b.blob for b in shared.layers]


def run(command: list[str], folder: Path, **env: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={"HOME": str(folder), "PATH": path, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
