"""docs/clients.md: its commands, and the clients' file that it shows."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from coco_kp.cli.config import command as config
from coco_kp.cli.serve import command as serve
from coco_kp.keys.resolve import NEW_KIDS
from coco_kp.keys.wrapper import SAMPLE_KID
from coco_kp.service.clients_file import read_clients
from tests.support.markdown import ROOT, blocks

DOCUMENT = "docs/clients.md"


def test_clients_file_of_the_document_is_read(tmp_path: Path) -> None:
    (block,) = blocks(DOCUMENT, "toml")
    file = tmp_path / "clients.toml"
    file.write_text(block)
    assert set(read_clients(file).by_name) == {
        "dns:ci.team-a.example.org",
        "uri:spiffe://example.org/ns/team-a/sa/ci",
        "cn:auditor",
    }


@pytest.mark.parametrize(
    "line", [line for block in blocks(DOCUMENT, "sh") for line in block.splitlines()]
)
def test_commands_of_the_document_have_options_that_there_are(line: str) -> None:
    """The server's are run by tests/interop/test_clients.py, on ports of its own."""
    program, name, *arguments = shlex.split(line)
    assert program == "coco-kp"
    command = {"serve": serve, "config": config}[name]
    command.make_context(name, arguments)


def test_document_names_key_ids_of_calls_that_name_none() -> None:
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    assert f"`{SAMPLE_KID}`" in text
    assert f"`{NEW_KIDS}`" in text
