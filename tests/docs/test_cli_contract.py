"""docs/cli.md against the commands that there are."""

from __future__ import annotations

import re

import pytest
from tools.cli_docs import MARKER, with_reference

from coco_kp.cli.commands import root
from coco_kp.cli.errors import UsageError
from coco_kp.cli.main import run
from coco_kp.errors import (
    CocoKpError,
    DeniedError,
    InputError,
    IntegrityError,
    KekError,
    RefusedError,
    RemoteError,
)
from tests.support.cli_options import CONTEXT, options
from tests.support.markdown import ROOT

TEXT = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
SECTIONS = {
    section.split("`")[1].split()[0]: section
    for section in re.split(r"^### ", TEXT.partition("\n## Images")[0], flags=re.MULTILINE)[1:]
}
"""What is written by hand about each command."""


def test_cli_contract_has_section_for_every_command() -> None:
    assert sorted(SECTIONS) == sorted(root.list_commands(CONTEXT))


@pytest.mark.parametrize("group", [(), ("keys",), ("fleet",)])
def test_list_of_commands_cuts_no_description_off(
    group: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """``keys`` said "Write the key KID of the keys FILE to OUT: 32 raw bytes,..."."""
    assert run([*group, "--help"]) == 0
    commands = capsys.readouterr().out.partition("Commands:")[2]
    assert len(commands.splitlines()) > 3
    assert "..." not in commands


@pytest.mark.parametrize("name", root.list_commands(CONTEXT))
def test_cli_contract_names_only_flags_of_the_command(name: str) -> None:
    command = root.get_command(CONTEXT, name)
    assert command
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", SECTIONS[name])) <= options(command)


def test_cli_contract_lists_every_option_as_the_commands_have_it() -> None:
    assert TEXT.count(MARKER) == 1
    assert with_reference(TEXT) == TEXT, "run `.venv/bin/python -m tools.cli_docs`"


def test_cli_contract_lists_every_exit_code() -> None:
    codes = {int(code) for code in re.findall(r"^- (\d+): ", TEXT, flags=re.MULTILINE)}
    errors = (
        CocoKpError,
        UsageError,
        InputError,
        KekError,
        IntegrityError,
        RemoteError,
        RefusedError,
        DeniedError,
    )
    assert codes == {0, 130, *(error.exit_code for error in errors)}
