"""``coco-kp``: finds the command, runs it, and turns its error into a message and an exit code."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from importlib import import_module
from itertools import pairwise
from typing import Final, NoReturn

import click

from coco_kp.cli.errors import UsageError
from coco_kp.cli.hints import set_command_line
from coco_kp.cli.mistaken import usage_error
from coco_kp.cli.output import (
    made,
    report,
    report_bug,
    report_interrupt,
    reset,
    show_warnings,
    verbosity,
    warn,
)
from coco_kp.cli.streams import escape_unprintable, flush, open_missing
from coco_kp.errors import CocoKpError, InputError
from coco_kp.files import reason
from coco_kp.redact import shown

_COMMANDS: Final = {
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

_MAKING_IMAGES: Final = {"encrypt", "decrypt", "rewrap"}


def main() -> NoReturn:
    """Run the command that the process was started with, and exit."""
    open_missing()
    escape_unprintable()
    code = run(sys.argv[1:])
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing left to be undone
    flush()  # run() has told of what it could not print
    os._exit(code)  # all is done, and to take the interpreter apart takes 15 ms


def run(arguments: list[str]) -> int:
    """Run a command; return its exit code (docs/cli.md). Never raises."""
    reset(arguments)
    set_command_line(_cli, arguments)
    show_warnings()
    try:
        _refuse_empty(arguments)
        code = _cli.main(arguments, prog_name="coco-kp", standalone_mode=False)
        sys.stdout.flush()
    except CocoKpError as error:
        return report(error)
    except click.exceptions.NoArgsIsHelpError as error:
        with contextlib.suppress(OSError):
            error.show()
        return UsageError.exit_code
    except click.ClickException as error:
        return report(usage_error(error))
    except (KeyboardInterrupt, click.Abort):
        return report_interrupt(image=not _MAKING_IMAGES.isdisjoint(arguments))
    except (BrokenPipeError, SystemExit):  # by which click answers a broken pipe
        # Nobody reads us any more, as in `coco-kp keys list FILE | head -1`: no words, no success,
        # unless the work was done already.
        return 0 if made() else CocoKpError.exit_code
    except OSError as error:  # most likely of stdout: the disk is full
        if place := made():
            warn(f"{place} is in place, but this could not be printed: {reason(error)}")
            return 0
        if isinstance(error.filename, str | os.PathLike):
            path = shown(os.fspath(error.filename))
            return report(InputError(f"cannot use {path}: {reason(error)}"))
        return report(CocoKpError(f"the system refused: {reason(error)}"))
    except Exception as error:  # noqa: BLE001 (the last line of defence)
        return report_bug(error)
    return code if isinstance(code, int) else 0


_OPTION: Final = re.compile(r"-[a-z]|--[a-z][a-z-]{1,30}")  # and no key, as a value may be


def _refuse_empty(arguments: list[str]) -> None:
    """Refuse an empty value, which is what an unset shell variable gives.

    A command would do without it what its user did not write: check an image without a key.
    """
    for before, word in pairwise(["", *arguments]):
        name, equals, value = word.partition("=")
        if word and not (_OPTION.fullmatch(name) and equals and not value):
            continue
        option = name or before
        where = f"of '{option}' " if _OPTION.fullmatch(option) else ""
        raise UsageError(f"the value {where}is empty", "is a variable unset?")


class _Commands(click.Group):
    """Imports a command's module when it is asked for, so that start-up stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command = import_module(f"coco_kp.cli.{_COMMANDS[cmd_name]}").command
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
def _cli() -> None:
    """Make container images that only an attested Confidential Containers guest can open."""
