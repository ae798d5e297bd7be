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

from coco_kp.errors import InputError, shown
from coco_kp.keys.reference import WrappingReference, parse_wrapping_reference
from coco_kp.model.resource_uri import parse_resource_uri
from coco_kp.service.toml_file import check_members, read_toml

_FORM: Final = 'write [names.NAME] and below it unwrap-with = "URI"'


def read_plugin_config(path: Path) -> dict[str, WrappingReference]:
    """Return the key references by name. Raises ``InputError``."""
    what = f"the plugin's file {shown(str(path))}"
    return _references(read_toml(path, what), what)


def _references(document: Mapping[str, object], what: str) -> dict[str, WrappingReference]:
    check_members(document, {"names"}, what, _FORM)
    names = document.get("names")
    if not isinstance(names, dict) or not names:
        raise InputError(f"{what} names no key", _FORM)
    return {_checked(name, what): _reference(name, entry, what) for name, entry in names.items()}


def _reference(name: str, entry: object, what: str) -> WrappingReference:
    if not isinstance(entry, dict):
        raise InputError(f"{shown(name)} in {what} is not a table", _FORM)
    where = f"{shown(name)} in {what}"
    check_members(entry, {"unwrap-with"}, where, _FORM)
    uri = entry.get("unwrap-with")
    if not isinstance(uri, str):
        raise InputError(f"{where} lacks a text unwrap-with", _FORM)
    try:
        return parse_wrapping_reference(uri)
    except InputError as error:
        raise InputError(f"{where}: {error.message}", error.hint) from None


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
