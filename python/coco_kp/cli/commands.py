"""The commands, as click has them: which there are, and how one is run."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import click

from coco_kp.cli.errors import UsageError
from coco_kp.cli.mistaken import usage_error
from coco_kp.cli.output_options import verbosity

COMMANDS: Final = {
    "serve": "serve",
    "keyprovider": "keyprovider",
    "kbs-plugin": "kbs_plugin",
    "config": "config",
    "keys": "keys",
    "encrypt": "encrypt",
    "decrypt": "decrypt",
    "inspect": "inspect",
    "verify": "verify",
    "rewrap": "rewrap",
    "prune": "prune",
    "fleet": "fleet",
    "schema": "schema",
    "completion": "completion",
    "doctor": "doctor",
    "bench": "bench",
    "demo": "demo",
}
"""Each with the module that it is in."""


def run_command(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name; return its exit code.

    Raises ``UsageError`` for what click finds wrong, ``KeyboardInterrupt``, and what the command
    raises.
    """
    try:
        code = root.main(arguments, prog_name="coco-kp", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        with contextlib.suppress(OSError):
            error.show()
        return UsageError.exit_code
    except click.ClickException as error:
        raise usage_error(error) from error
    except click.Abort:
        raise KeyboardInterrupt from None
    return code if isinstance(code, int) else 0


class _Commands(click.Group):
    """Imports a command's module when it is asked for, so that start-up stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"coco_kp.cli.{COMMANDS[cmd_name]}").command
        assert isinstance(command, click.Command)  # noqa: S101 (each file's one export)
        _name_variables(command, f"{_VARIABLES}_{cmd_name}")
        return command


def _name_variables(command: click.Command, name: str) -> None:
    """Have each option read the variable of its own name; click takes that of its parameter."""
    for option in command.params:
        if isinstance(option, click.Option):
            word = max(option.opts, key=len).lstrip("-")
            option.envvar = f"{name}_{word}".upper().replace("-", "_")
    if isinstance(command, click.Group):
        for child, sub in command.commands.items():
            _name_variables(sub, f"{name}_{child}")


def _show_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"coco-kp {version('coco-kp')}")
        ctx.exit()


_VARIABLES: Final = "COCO_KP"
_SETTINGS: Final = {"help_option_names": ["-h", "--help"]}


@click.group(cls=_Commands, context_settings=_SETTINGS)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
@verbosity
def root() -> None:
    """Make container images that only an attested Confidential Containers guest can open."""
