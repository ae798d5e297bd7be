"""``keyid=URI,keypath=FILE``: a key and its key ID in one text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from coco_kp.errors import InputError
from coco_kp.keys.file_reference import FileReference
from coco_kp.keys.reference import parse_kek_reference, parse_wrapping_reference
from coco_kp.keys.resolve import FetchedKek, StayingKey
from coco_kp.model.resource_uri import ResourceUri, parse_key_id
from coco_kp.redact import shown
from coco_kp.values import dataclass

_HINT: Final = (
    "write keyid=kbs:///<repository>/<type>/<tag>,keypath=<file>, or kek-from=<uri> or "
    "wrap-with=<uri> in place of keypath"
)


@dataclass(frozen=True, slots=True)
class NamedKey:
    """Where a key is, and by which key ID guests find it; None where the text had none."""

    kid: ResourceUri | None
    source: FetchedKek | StayingKey


def key_fields(text: str, *, kid_needed: bool = True) -> dict[str, str]:
    """Split it; a key that stays in its KMS needs no key ID, and with ``kid_needed=False`` none.

    Raises ``InputError`` where it is not of that form.
    """
    fields: dict[str, str] = {}
    for field in text.split(","):
        name, equals, value = field.partition("=")
        known = name in {"keyid", "keypath", "kek-from", "wrap-with"}
        if not equals or not known or name in fields:
            raise InputError(f"the recipient {shown(text)} cannot be read", _HINT)
        fields[name] = value
    sources = fields.keys() - {"keyid"}
    if len(sources) != 1 or (kid_needed and not fields.keys() & {"keyid", "wrap-with"}):
        raise InputError(f"the recipient {shown(text)} lacks its key or key ID", _HINT)
    return fields


def named_key(fields: Mapping[str, str]) -> NamedKey:
    """Read what such fields name. Raises ``InputError``."""
    ((name, value),) = ((name, value) for name, value in fields.items() if name != "keyid")
    kid = fields.get("keyid")
    return NamedKey(None if kid is None else parse_key_id(kid), _source(name, value))


def _source(name: str, value: str) -> FetchedKek | StayingKey:
    match name:
        case "keypath":
            return FetchedKek(FileReference(value))
        case "kek-from":
            return FetchedKek(parse_kek_reference(value))
    return StayingKey(parse_wrapping_reference(value))
