"""The file of ``coco-kp kbs-plugin``: for which names it unwraps, each with which key.

    [names.prod]
    unwrap-with = "awskms:///alias/prod"

A name is the path behind the backend's name in ``kbs+external:///BACKEND/NAME``. The file holds no
secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from coco_kp.errors import InputError
from coco_kp.keys.reference import WrappingReference, parse_wrapping_reference
from coco_kp.model.resource_uri import parse_resource_uri
from coco_kp.redact import shown
from coco_kp.service.toml_file import read_tables

_FORM: Final = 'write [names.NAME] and below it unwrap-with = "URI"'


def read_plugin_config(path: Path) -> dict[str, WrappingReference]:
    """Return the key references by name. Raises ``InputError``."""
    what = f"the plugin's file {shown(str(path))}"
    tables = read_tables(path, what, "names", ("unwrap-with",), _FORM)
    return {_checked(name, what): _reference(entry, where) for name, where, entry in tables}


def _reference(entry: Mapping[str, object], where: str) -> WrappingReference:
    uri = entry.get("unwrap-with")
    if not isinstance(uri, str):
        raise InputError(f"{where} lacks a text unwrap-with", _FORM)
    try:
        return parse_wrapping_reference(uri)
    except InputError as error:
        raise error.within(where) from None


def _checked(name: str, what: str) -> str:
    hint = (
        "a name has letters, digits, '_', '-' and '.', in parts with '/' between them; one of "
        'several parts needs quotes: [names."team/prod"]'
    )
    try:
        readable = not parse_resource_uri(f"kbs+external:///coco-kp/{name}").query
    except InputError:
        readable = False
    if not readable:
        raise InputError(f"{shown(name)} in {what} can stand in no key ID", hint)
    return name
