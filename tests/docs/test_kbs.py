"""The commands of docs/kbs.md, run as they stand, with a real KBS and a real skopeo."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from coco_kp.kbs.refusal import _HINTS
from coco_kp.model.kbc_spec import KBC_NAMES
from tests.peers.folder import folder_peer
from tests.peers.kbs import kbs
from tests.support.image import Image, tar, write_image
from tests.support.markdown import ROOT, blocks

DOCUMENT = "docs/kbs.md"


@pytest.mark.folder_peer
@pytest.mark.peer
def test_kbs_document_commands_run_as_written(tmp_path: Path, skopeo_program: Path) -> None:
    image = write_image(tmp_path / "app", [tar({"motd": b"hello"}), tar({"data": bytes(100_000)})])
    paths = [Path(sys.executable).parent, skopeo_program.parent, folder_peer("kbs-client").parent]
    with kbs(tmp_path) as broker:
        # where Trustee's docker-compose would have them
        token = tmp_path / "trustee/kbs/config/docker-compose/admin-token"
        token.parent.mkdir(parents=True)
        token.write_bytes(broker.admin_token.read_bytes())
        script = "\n".join(blocks(DOCUMENT, "sh")).replace("http://127.0.0.1:8080", broker.url)
        done = subprocess.run(
            ["bash", "-eux", "-c", script],
            cwd=tmp_path,
            env={
                "HOME": os.environ["HOME"],
                "XDG_STATE_HOME": str(tmp_path / "state"),
                "PATH": ":".join([*map(str, paths), os.environ["PATH"]]),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert Image(tmp_path / "app-decrypted").layers == image.layers
    service = Image(tmp_path / "service-encrypted").layers
    assert {layer.packet["kid"] for layer in service} == {"kbs:///default/key/service"}
    assert (tmp_path / "keks/default/key/service").stat().st_size == 32


def test_kbs_document_explains_every_refusal_with_a_hint() -> None:
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    explained = set(re.findall(r"`([A-Z][A-Za-z]+)`", text))
    assert _HINTS.keys() - explained <= {"InvalidRequestPath"}


def test_kbs_document_has_row_for_every_kbc() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \|", (ROOT / DOCUMENT).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert set(KBC_NAMES) <= set(rows)
