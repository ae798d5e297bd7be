"""What holds of every page: its tables can be read, and its options are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from coco_kp.cli.commands import root
from tests.support.cli_options import CONTEXT, options
from tests.support.markdown import ROOT

PAGES: Final = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "contrib/**/*.md", "tests/*/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
)
LONGEST_CELL: Final = 200

COMMANDS: Final = {
    name: command
    for name in root.list_commands(CONTEXT)
    if (command := root.get_command(CONTEXT, name))
}
OPTION: Final = re.compile(r"(?<![\w-])--[a-z-]*[a-z](?![\w-])")
CODE: Final = re.compile(rf"`((?:(?:coco-kp )?({'|'.join(COMMANDS)}) |-)[^`]*)`")
"""A span of code that begins with an option or a command of ours."""

OTHERS: Final = {
    "--allow-all": "kbs-client",
    "--compile-bytecode": "uv",
    "--decryption-key": "skopeo",
    "--encryption-key": "skopeo",
    "--largest": "benches.growth",
    "--user": "docker",
    "--userns": "podman",
}
"""Options that pages name by themselves and that are not ours, with a program that has them."""


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_pages_are_found() -> None:
    assert {"README.md", "docs/cli.md", "docs/adr/README.md"} <= set(map(name, PAGES))


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_page_has_no_table_cell_of_more_than_200_characters(path: Path) -> None:
    """What is longer is a list or a section of its own."""
    rows = (line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|"))
    cells = (cell.strip() for row in rows for cell in re.split(r"(?<!\\)\|", row))
    assert [cell for cell in cells if len(cell) > LONGEST_CELL] == []


@pytest.mark.parametrize("path", [path for path in PAGES if path.name != "protocols.md"], ids=name)
def test_page_names_no_option_that_no_command_has(path: Path) -> None:
    """Of protocols.md this cannot be said: it is about other programs."""
    text = re.sub(
        r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    wrong = [
        f"{option} in `{span}`"
        for span, command in CODE.findall(text)
        for option in OPTION.findall(span)
        if option not in OTHERS and option not in options(COMMANDS.get(command, root)) | {"--help"}
    ]
    assert wrong == []
