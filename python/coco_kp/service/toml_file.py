"""Files of a service's owner, in TOML: bounded, and with no member that is not known."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from coco_kp.errors import InputError
from coco_kp.files import read_small
from coco_kp.redact import shown

MAX_FILE: Final = 256 * 1024
"""Bytes of a file at the most: a thousand entries and more."""


def read_tables(
    path: Path, what: str, title: str, members: Collection[str], form: str
) -> Iterator[tuple[str, str, Mapping[str, object]]]:
    """Read a file of tables ``[TITLE.NAME]``, one at least, which have no others than ``members``.

    Yields each table's name, how errors call it, and itself. ``what`` names the file in errors,
    ``form`` says in their hints how it is written. Raises ``InputError``.
    """
    document = _read(path, what)
    _check_members(document, (title,), what, form)
    tables = document.get(title)
    if not isinstance(tables, dict) or not tables:
        raise InputError(f"{what} has no [{title}.NAME]", form)
    for name, table in tables.items():
        where = f"{shown(name)} in {what}"
        if not isinstance(table, dict):
            raise InputError(f"{where} is not a table", form)
        _check_members(table, members, where, form)
        yield name, where, table


def _read(path: Path, what: str) -> dict[str, object]:
    try:
        return tomllib.loads(read_small(path, MAX_FILE).decode())
    except (UnicodeDecodeError, RecursionError):
        raise InputError(f"{what} is not TOML text") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{what} is not TOML: {error}") from None


def _check_members(
    table: Mapping[str, object], known: Collection[str], where: str, form: str
) -> None:
    for member in table:
        if member not in known:
            raise InputError(f"{where} has the unknown member {shown(member)}", form)
