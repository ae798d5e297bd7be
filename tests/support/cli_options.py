"""The options that commands have."""

from __future__ import annotations

import click

from coco_kp.cli.commands import root

CONTEXT = click.Context(root)


def options(command: click.Command) -> set[str]:
    names = {name for option in command.params for name in option.opts}
    if isinstance(command, click.Group):
        for name in command.list_commands(CONTEXT):
            child = command.get_command(CONTEXT, name)
            assert child
            names |= options(child)
    return names
