"""Files of a service's owner, in TOML: bounded, and with no member that is not known."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from coco_kp.errors import InputError, shown
from coco_kp.files import read_file

MAX_FILE: Final = 256 * 1024
"""Bytes of a file at the most: a thousand entries and more."""


def read_toml(path: Path, what: str) -> dict[str, object]:
    """Read a file; ``what`` names it in errors. Raises ``InputError``."""
    data = read_file(path, MAX_FILE).data
    if len(data) > MAX_FILE:
        raise InputError(f"{what} has more than {MAX_FILE} bytes")
    try:
        return tomllib.loads(data.decode())
    except (UnicodeDecodeError, RecursionError):
        raise InputError(f"{what} is not TOML text") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{what} is not TOML: {error}") from None


def check_members(
    table: Mapping[str, object], known: Collection[str], where: str, hint: str
) -> None:
    """Raise ``InputError`` for a member of a table that is not known."""
    for member in table:
        if member not in known:
            raise InputError(f"{where} has the unknown member {shown(member)}", hint)
