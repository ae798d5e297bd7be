"""The commands as click has them, for what is made from them: man pages and docs/cli.md."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc

import click

from coco_kp.cli.commands import root

PROGRAM = "coco-kp"


def all_contexts() -> Iterator[click.Context]:
    """Yield the context of coco-kp, and of each command and group."""
    return contexts(click.Context(root, info_name=PROGRAM, **root.context_settings))


def contexts(context: click.Context) -> Iterator[click.Context]:
    """Yield the context of a command, and of each below it."""
    yield context
    for name, command in subcommands(context):
        yield from contexts(click.Context(command, info_name=name, parent=context))


def subcommands(context: click.Context) -> list[tuple[str, click.Command]]:
    """Return a group's commands in the order of its help; none for a command."""
    group = context.command
    if not isinstance(group, click.Group):
        return []
    found = ((name, group.get_command(context, name)) for name in group.list_commands(context))
    return [(name, command) for name, command in found if command and not command.hidden]


def usage(context: click.Context) -> str:
    """Return what follows a command's name, such as ``[OPTIONS] SRC DST``."""
    return " ".join(context.command.collect_usage_pieces(context))


def summary(command: click.Command) -> str:
    """Return one line about a command, whole, without the full stop."""
    first_paragraph = cleandoc(command.help or "").split("\n\n")[0]
    return (command.short_help or " ".join(first_paragraph.split())).rstrip(".")


def options(context: click.Context) -> Iterator[tuple[click.Option, tuple[str, str]]]:
    """Yield each option that the help shows, with its flags and value, and its help."""
    for parameter in context.command.get_params(context):
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context)):
            yield parameter, record
