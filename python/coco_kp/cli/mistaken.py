"""What click finds wrong with a command line, in our words and with the way out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import click

from coco_kp.cli.errors import UsageError
from coco_kp.redact import masked

_LIKENESS: Final = 0.75  # of difflib; below, --force would be taken for --format

_OTHERS_WORDS: Final = {
    "--decryption-key": "--keypath",
    "--encryption-key": "--keypath",
    "--key-file": "--keypath",
    "--keyfile": "--keypath",
    "--digest-file": "--digestfile",
    "--insecure": "--tls-verify=false",
    "--json": "--format json",
    "--keyid": "--expect-keyid",
    "--listen": "--socket",
    "--password": "--creds",
    "--port": "--socket",
    "--socket": "--listen",
    "--username": "--creds",
}
"""Words of other tools and of other commands, and ours for them."""

_ALIASES: Final = {"convert": "encrypt", "copy": "encrypt", "check": "verify", "rekey": "rewrap"}


def usage_error(error: click.ClickException) -> UsageError:
    """Return the error for what click found wrong."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "coco-kp"
    way_out = f"{path} --help shows the usage"
    match error:
        case click.exceptions.NoSuchCommand():
            group = context.command if context else None
            known = list[str]()
            if context and isinstance(group, click.Group):
                known = group.list_commands(context)
            meant = _ALIASES.get(error.command_name) or _like(error.command_name, known)
            message, hint = error.message, f"did you mean '{path} {meant}'?" if meant else way_out
        case click.NoSuchOption():
            message, hint = error.message, _option_hint(error.option_name, context) or way_out
        case _:
            message, hint = error.format_message(), way_out
    # click quotes what stands on the command line: a key may have come into the wrong place.
    message = masked(" ".join(message.split()).rstrip("."))
    return UsageError(message[:1].lower() + message[1:], hint)


def _option_hint(name: str, context: click.Context | None) -> str:
    command = context.command if context else None
    if command is None:
        return ""
    known = [option for parameter in command.params for option in parameter.opts]
    meant = _OTHERS_WORDS.get(name, name)
    sides = [meant] if meant[:2] != "--" else [meant, f"--dest-{meant[2:]}", f"--src-{meant[2:]}"]
    there = [word for word in sides if word and word.partition("=")[0].split()[0] in known]
    if meant := " or ".join(there) or _like(name, known):
        return f"did you mean {meant}?"
    if name == "--force" and "--keep-replaced" in known:
        return "it takes none: an image of the destination's name is replaced"
    return ""


def _like(word: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, known, 1, _LIKENESS)), "")
