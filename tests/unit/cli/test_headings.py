"""The help of commands with many options, by what they are about."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from coco_kp.cli.commands import root
from coco_kp.cli.headings import HeadedCommand
from tests.support.cli_options import CONTEXT

MOST_WITHOUT_HEADINGS = 20


def commands(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    """Return all commands of a group, and of the groups in it, by their names."""
    found: dict[str, click.Command] = {}
    for name in group.list_commands(CONTEXT):
        command = group.get_command(CONTEXT, name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix}{name} ")
        else:
            found[f"{prefix}{name}"] = command
    return found


COMMANDS = commands(root)
HEADED = {name: one for name, one in COMMANDS.items() if isinstance(one, HeadedCommand)}


def options(command: click.Command) -> list[click.Option]:
    context = click.Context(command, help_option_names=["-h", "--help"])
    every = [one for one in command.get_params(context) if isinstance(one, click.Option)]
    return [option for option in every if not option.hidden]


def test_command_with_many_options_has_headings() -> None:
    many = {name for name, one in COMMANDS.items() if len(options(one)) > MOST_WITHOUT_HEADINGS}
    assert many <= HEADED.keys()


@pytest.mark.parametrize("name", HEADED)
def test_each_option_stands_under_one_heading(name: str) -> None:
    command = HEADED[name]
    placed = [option for group in command.headings.values() for option in group]
    assert len(placed) == len(set(placed)) == len(options(command))
    for option in options(command):
        assert len(set(option.opts) & set(placed)) == 1, option.opts


@pytest.mark.parametrize("name", HEADED)
def test_help_shows_ten_common_options_at_the_most_first(name: str) -> None:
    text = CliRunner().invoke(root, [*name.split(), "--help"]).output
    headings = [f"{heading}:" for heading in HEADED[name].headings]
    assert headings[0] == "Most used:"
    assert sorted(headings, key=text.index) == headings
    first = text[text.index(headings[0]) : text.index(headings[1])]
    assert 5 < first.count("\n  -") <= 10
