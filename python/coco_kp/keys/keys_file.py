"""Keys files: the JSON object from path to base64 key that ``offline_fs`` guests read.

The format is that of ``aa-offline_fs_kbc-keys.json`` (docs/protocols.md 4):
``{"default/key/key_id1": "<base64 of 32 bytes>", …}``. A change keeps every other member as it was.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from pathlib import Path

from coco_kp.crypto import KEK_SIZE, Kek
from coco_kp.errors import CocoKpError, InputError, KekError, RefusedError
from coco_kp.exposure import exposure
from coco_kp.files import is_there, read_file, write_file
from coco_kp.keys.kek import kek_of_base64
from coco_kp.locks import locked
from coco_kp.model.encoding import encode_base64, parse_json_object
from coco_kp.model.resource_uri import ResourceUri, parse_key_id, parse_resource_path
from coco_kp.redact import shown

MAX_KEYS_FILE = 4 * 1024 * 1024
"""Bytes of a keys file at the most: some 50,000 keys."""

_FORM = "a keys file is JSON, a key in base64 under each name; a file of one key is none"

_log = logging.getLogger(__name__)


def generate_keys(repository: str, count: int) -> dict[str, str]:
    """Draw ``count`` KEKs named ``<repository>/key/key_id1`` and on, as members of a keys file."""
    paths = [f"{repository}/key/key_id{number}" for number in range(1, count + 1)]
    return {parse_keys_file_name(path).path: encode_base64(Kek.generate().raw()) for path in paths}


def format_keys(keys: dict[str, str]) -> bytes:
    """Write a keys file as upstream's tool does: indented by two, one key a line."""
    return (json.dumps(keys, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def read_keys(path: Path) -> dict[str, str]:
    """Read all members, values still base64; log what others may do with the file.

    Raises ``KekError`` or ``InputError``.
    """
    data, status = read_file(path, MAX_KEYS_FILE, KekError)
    for warning in exposure("keys file", path, status):
        _warn_once(warning)
    return parse_keys(data, f"the keys file {shown(str(path))}")


@functools.cache
def _warn_once(text: str) -> None:
    """Log a warning at its first call: a guest's keys file is read for each layer."""
    _log.warning("%s", text)


def parse_keys(data: bytes, what: str) -> dict[str, str]:
    """Read the members of a keys file's content; ``what`` names it. Raises ``InputError``."""
    try:
        document = parse_json_object(data, what, MAX_KEYS_FILE)
    except InputError as error:
        raise InputError(error.message, error.hint or _FORM) from None
    keys = {name: value for name, value in document.items() if isinstance(value, str)}
    for name in document.keys() - keys.keys():
        raise InputError(
            f"the member {shown(name)} of {what} is not a string",
            'write {"<repository>/<type>/<tag>": "<base64 of the key>"}',
        )
    return keys


def list_keys(keys: dict[str, str]) -> list[tuple[str, str]]:
    """Return each key's kid and fingerprint, or what is wrong with it. Never raises."""
    rows = []
    for name, value in keys.items():
        try:
            kid = str(parse_keys_file_name(name))
        except InputError:
            # An offline_sev guest may use bare names; in a wrong file a key may stand here.
            kid = name if shown(name) == f"'{name}'" else shown(name)
        try:
            fingerprint = kek_of_base64(value, "the key").fingerprint
        except CocoKpError:
            fingerprint = f"not a {KEK_SIZE}-byte key in base64"
        rows.append((kid, fingerprint))
    return rows


def find_kek(keys: dict[str, str], uri: ResourceUri, source: str) -> Kek:
    """Return the KEK that ``uri`` names; ``source`` says in errors where ``keys`` come from.

    Host, plugin and query of ``uri`` do not count (docs/protocols.md 3.3). Raises ``KekError``.
    """
    if uri.path not in keys:
        raise KekError(
            f"there is no key {shown(uri.path)} in {source}",
            code="key-not-in-file",
        )
    return kek_of_base64(keys[uri.path], f"{shown(uri.path)} of {source}")


def add_kek(path: Path, uri: ResourceUri, kek: Kek, *, replace: bool) -> None:
    """Put a KEK into a keys file, which is made if there is none.

    Raises ``RefusedError`` if the name is taken and ``replace`` is False, ``InputError`` if there
    is no room; the file is then as it was, as after any other error.
    """
    path = Path(os.path.realpath(path))  # a symbolic link stays one
    with locked(path.parent):
        keys = read_keys(path) if is_there(path) else {}
        if uri.path in keys and not replace:
            raise RefusedError(
                f"the keys file {shown(str(path))} has a key {shown(uri.path)}",
                "a replaced key is lost, and so is every image that it opens; choose another name",
                code="keys-file-has-key",
            )
        keys[uri.path] = encode_base64(kek.raw())
        content = format_keys(keys)
        if len(content) > MAX_KEYS_FILE:  # of which no key could be read any more
            raise InputError(
                f"the keys file {shown(str(path))} has no room for another key: it may have "
                f"{MAX_KEYS_FILE} bytes",
                "begin another one",
            )
        write_file(path, content, replace=True)


def parse_keys_file_name(text: str) -> ResourceUri:
    """Read a key's name as keys files (``default/key/1``) or key IDs write it."""
    if "://" in text or text.startswith("/"):
        return parse_key_id(text)
    return parse_resource_path(text)
