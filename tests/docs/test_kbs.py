"""The commands of docs/kbs.md, run as they stand, with a real skopeo and with each KBS."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coco_kp.kbs.refusal import _HINTS
from coco_kp.model.kbc_spec import KBC_NAMES
from tests.docs.reader import ContainerReader
from tests.peers.folder import folder_peer
from tests.peers.kbs import kbs
from tests.sim.kbs import ADMIN_TOKEN, simulated_kbs
from tests.support.image import Image, tar, write_image
from tests.support.markdown import ROOT, blocks

DOCUMENT = "docs/kbs.md"


@pytest.mark.folder_peer
@pytest.mark.peer
def test_kbs_document_commands_run_as_written(tmp_path: Path) -> None:
    with kbs(tmp_path) as broker:
        runs_as_written(
            broker.url, broker.admin_token.read_text(), folder_peer("kbs-client"), tmp_path
        )


@pytest.mark.peer
def test_kbs_document_commands_run_as_written_with_simulated_kbs(tmp_path: Path) -> None:
    client = tmp_path / "bin/kbs-client"  # the simulated KBS lets everybody read as it is
    client.parent.mkdir()
    client.write_text("#!/bin/sh\n")
    client.chmod(0o755)
    with simulated_kbs() as broker:
        runs_as_written(broker.url, ADMIN_TOKEN, client, tmp_path)


def runs_as_written(url: str, token: str, kbs_client: Path, folder: Path) -> None:
    """Run all commands on one machine, and the first ones on another; then read what was first."""
    first, *others = (text.replace("http://127.0.0.1:8080", url) for text in blocks(DOCUMENT, "sh"))
    image = Machine(folder / "one", token, kbs_client)
    again = Machine(folder / "two", token, kbs_client)
    image.run("\n".join([first, *others]))
    again.run(first)
    for machine, name in ((image, "encrypted"), (image, "named"), (again, "encrypted")):
        machine.run(f"coco-kp decrypt oci:app-{name} oci:once-more-{name} --kbc cc::{url}")
        decrypted = Image(machine.folder / f"once-more-{name}").layers
        assert decrypted == machine.image.layers
    assert Image(image.folder / "app-decrypted").layers == image.image.layers
    service = Image(image.folder / "service-encrypted").layers
    assert {layer.packet["kid"] for layer in service} == {"kbs:///default/key/service"}
    assert (image.folder / "keks/default/key/service").stat().st_size == 32


class Machine:
    """A machine of a reader's: its own folder, image and record of what was registered."""

    def __init__(self, folder: Path, token: str, kbs_client: Path) -> None:
        self.folder = folder
        layers = [tar({"motd": b"hello"}), tar({"data": bytes(100_000)})]
        self.image = write_image(folder / "app", layers)
        # where Trustee's docker-compose would have it
        file = folder / "trustee/kbs/config/docker-compose/admin-token"
        file.parent.mkdir(parents=True)
        file.touch(0o600)
        file.write_text(token)
        self._reader = ContainerReader(folder, programs=[kbs_client.parent])

    def run(self, script: str) -> None:
        self._reader.run(script)


def test_kbs_document_explains_every_refusal_with_a_hint() -> None:
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    explained = set(re.findall(r"`([A-Z][A-Za-z]+)`", text))
    assert _HINTS.keys() - explained <= {"InvalidRequestPath"}


def test_kbs_document_has_row_for_every_kbc() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \|", (ROOT / DOCUMENT).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert set(KBC_NAMES) <= set(rows)
