"""``coco-kp``: finds the command, runs it, and turns its error into a message and an exit code."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NoReturn

from coco_kp.cli.errors import UsageError
from coco_kp.cli.hints import set_command_line
from coco_kp.cli.output import (
    made,
    report,
    report_bug,
    report_interrupt,
    reset,
    show_warnings,
    warn,
)
from coco_kp.cli.streams import escape_unprintable, flush, open_missing
from coco_kp.errors import CocoKpError, InputError
from coco_kp.files import reason
from coco_kp.redact import shown

if TYPE_CHECKING:
    import click

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
    set_command_line(_root, arguments)
    show_warnings()
    try:
        _refuse_empty(arguments)
        code = _run(arguments)
        sys.stdout.flush()
    except CocoKpError as error:
        return report(error)
    except KeyboardInterrupt:
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
    return code


def _run(arguments: Sequence[str]) -> int:
    if _is_one_call(arguments):
        from coco_kp.cli.one_call import answer_one
        from coco_kp.provider import Provider

        answer_one(Provider())
        return 0
    from coco_kp.cli.commands import run_command

    return run_command(arguments)


def _is_one_call(arguments: Sequence[str]) -> bool:
    """Return whether this is ``keyprovider`` without any option, as clients run it for each layer.

    Then there is nothing to read for click, and to load it takes a fifth of the client's wait.
    """
    return list(arguments) == ["keyprovider"] and not any(
        name.startswith("COCO_KP_KEYPROVIDER_") for name in os.environ
    )


def _root() -> click.Group:
    from coco_kp.cli.commands import root

    return root


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
