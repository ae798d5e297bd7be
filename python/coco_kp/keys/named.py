"""``keyid=URI,keypath=FILE``: a key and its key ID in one text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from coco_kp.errors import InputError, shown
from coco_kp.keys.file_reference import FileReference
from coco_kp.keys.reference import parse_kek_reference, parse_wrapping_reference
from coco_kp.keys.resolve import FetchedKek, StayingKey
from coco_kp.model.resource_uri import ResourceUri, parse_key_id

_HINT: Final = (
    "write keyid=kbs:///<repository>/<type>/<tag>,keypath=<file>, or kek-from=<uri> or "
    "wrap-with=<uri> in place of keypath"
)


@dataclass(frozen=True, slots=True)
class NamedKey:
    """Where a key is, and by which key ID guests find it; None where the text had none."""

    kid: ResourceUri | None
    source: FetchedKek | StayingKey


def parse_named_key(text: str, *, kid_needed: bool = True) -> NamedKey:
    """Read it; a key that stays in its KMS needs no key ID, and with ``kid_needed=False`` none.

    Raises ``InputError``.
    """
    fields: dict[str, str] = {}
    for field in text.split(","):
        name, equals, value = field.partition("=")
        known = name in {"keyid", "keypath", "kek-from", "wrap-with"}
        if not equals or not known or name in fields:
            raise InputError(f"the recipient {shown(text)} cannot be read", _HINT)
        fields[name] = value
    kid = fields.pop("keyid", None)
    if len(fields) != 1 or (kid is None and kid_needed and "wrap-with" not in fields):
        raise InputError(f"the recipient {shown(text)} lacks its key or key id", _HINT)
    ((name, value),) = fields.items()
    return NamedKey(None if kid is None else parse_key_id(kid), _source(name, value))


def _source(name: str, value: str) -> FetchedKek | StayingKey:
    match name:
        case "keypath":
            return FetchedKek(FileReference(value))
        case "kek-from":
            return FetchedKek(parse_kek_reference(value))
    return StayingKey(parse_wrapping_reference(value))
