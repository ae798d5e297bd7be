"""The rules of output: results on stdout, all else on stderr, errors in one form."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, TextIO

from coco_kp.cli.hints import advice
from coco_kp.errors import CancelledError, CocoKpError
from coco_kp.redact import masked, printable, printable_json, printable_lines, redacted

BUG: Final = 1
INTERRUPTED: Final = 130
_BUG_HINT: Final = "this is a bug; please report it with what -vv prints"
_TRACEBACK: Final = 2  # -vv


class _Verbosity:
    """How much the user wants to read; set by the options of the command line."""

    level = 0


class _Made:
    """The image that the command has made, whatever fails from now on."""

    place = ""
    naming = False


class _Json:
    """Whether the user wants JSON on stdout, and has got the one document."""

    wanted = False
    printed = False


def want_json(*, wanted: bool) -> None:
    """Learn whether the result, and an error too, is to be one JSON document on stdout."""
    _Json.wanted = wanted


def tell_made(place: str) -> None:
    """Learn that an image is in place: the exit code is about that, not about printing it."""
    _Made.place = place


def tell_naming() -> None:
    """Learn that the image gets its name: until that is done, nobody knows which it has."""
    _Made.naming = True


def made() -> str:
    """Return the image that the command has made, empty before that."""
    return _Made.place


def want_less() -> None:
    """Learn that the user wants to read nothing but errors."""
    _Verbosity.level = -1


def want_more(times: int) -> None:
    """Learn how often the user asked for more."""
    _Verbosity.level = max(_Verbosity.level, times)


def reset(arguments: Sequence[str] = ()) -> None:
    """Forget what an earlier command of this process was told, and did.

    Of the arguments only ``--format json`` is looked at: click may not come so far.
    """
    _Verbosity.level = 0
    _Made.place = ""
    _Made.naming = False
    _Json.wanted = "--format=json" in arguments or ("--format", "json") in pairwise(arguments)
    _Json.printed = False


def log_level(default: int) -> int:
    """Return the level of ``logging`` that the user asked for, ``default`` if for none."""
    if _Verbosity.level < 0:
        return logging.ERROR
    return logging.DEBUG if _Verbosity.level else default


def quiet() -> bool:
    """Return whether the user wants to read nothing but errors."""
    return _Verbosity.level < 0


def say(line: str, *, err: bool = False) -> None:
    """Print a line, on stderr with ``err``; words of others in it draw nothing on a terminal.

    What cannot be printed on stderr is dropped: the work goes on.
    """
    with contextlib.suppress(OSError) if err else contextlib.nullcontext():
        _write(f"{printable(line)}\n", sys.stderr if err else sys.stdout)


def say_made(line: str) -> None:
    """Print what was made, unless the user wants quiet."""
    if not quiet():
        say(line)


def notice(text: str) -> None:
    """Print a notice, which is no result, unless the user wants quiet."""
    if _Verbosity.level >= 0:
        say(f"coco-kp: {redacted(text)}", err=True)


def announce(log_format: str, name: str, address: str, text: str) -> None:
    """Say that something answers at an address: an event where lines are JSON, else ``text``."""
    if log_format == "json":
        from coco_kp.observe import event

        event(logging.INFO, name, address=address)
    else:
        notice(text)


def warn(text: str) -> None:
    """Warn the user, unless he wants quiet."""
    notice(f"warning: {text}")


class _Warnings(logging.Handler):
    """Shows what the code below logs, such as a request that is tried again."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())


def show_warnings() -> None:
    """Format logged warnings like all other lines; a server sets its own format."""
    logger = logging.getLogger("coco_kp")
    logger.handlers[:] = [_Warnings(logging.WARNING)]


def print_json(document: object) -> None:
    """Print a command's result as one JSON document."""
    _Json.printed = True  # or as much of it as stdout takes
    sys.stdout.flush()
    # As bytes: JSON is UTF-8 (RFC 8259), whatever the terminal's encoding.
    sys.stdout.buffer.write(f"{printable_json(document, indent=2)}\n".encode())
    sys.stdout.buffer.flush()


def report(error: CocoKpError) -> int:
    """Print an error in the form of docs/cli.md; return its exit code."""
    if _Verbosity.level >= _TRACEBACK:
        _print_traceback()
    say(f"coco-kp: {error.message}", err=True)
    if hint := advice(error):
        say(f"hint: {hint}", err=True)
    _print_error(error_document(error))
    return error.exit_code


def error_document(error: CocoKpError) -> dict[str, object]:
    """Return an error as JSON has it."""
    return {"exit_code": error.exit_code, **error.to_json(advice)}


def _print_error(document: dict[str, object]) -> None:
    """Print an error as the JSON document, where one is wanted and was not printed."""
    if _Json.wanted and not _Json.printed:
        with contextlib.suppress(OSError):
            print_json({"error": document})


def report_bug(error: Exception) -> int:
    """Print what is known of an error that nobody foresaw; return the exit code of a bug.

    The error's own text is kept back without ``-vv``: it could quote a secret.
    """
    if _Verbosity.level >= _TRACEBACK:
        _print_traceback()
    bug = CocoKpError(f"unexpected error: {type(error).__name__}", _BUG_HINT, code="bug")
    say(f"coco-kp: {bug.message}", err=True)
    say(f"hint: {bug.hint}", err=True)
    _print_error(error_document(bug))
    return BUG


def report_interrupt(*, image: bool) -> int:
    """Say that the user ended the command, and in what state the ``image`` is that it makes."""
    message = "interrupted"
    if _Made.place:
        message += f"; {_Made.place} is in place"
    elif _Made.naming:
        message += " while the image got its name; coco-kp inspect shows which it is"
    elif image:
        message += "; destination unchanged"
    say(f"coco-kp: {message}", err=True)
    _print_error(error_document(CancelledError(message, code="interrupted")))
    return INTERRUPTED


def _print_traceback() -> None:
    # The error may be click's own, or quote the command line, where a key may stand.
    lines = printable_lines(traceback.format_exc()).split("\n")
    places = re.compile(r' +File "')  # long paths look like what could hold a key
    text = "\n".join(redacted(line) if places.match(line) else masked(line) for line in lines)
    with contextlib.suppress(OSError):
        _write(text, sys.stderr)


def _write(text: str, stream: TextIO) -> None:
    """Write at once, so that a reader who has left, or a full disk, is known here."""
    stream.write(text)
    stream.flush()
