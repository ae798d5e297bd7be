"""Base64 and JSON, read strictly: what two readers could understand differently is refused.

Guests parse with Rust's ``base64`` and ``serde_json``, clients with Go's packages. Text that only
some of them accept (white space in base64, bits behind the padding, a member given twice, half a
surrogate pair) is an error here, so that what coco-kp accepts means the same everywhere.
"""

from __future__ import annotations

import binascii
import json
import math
from collections.abc import Collection, Mapping
from typing import Final, TypeVar

from coco_kp.errors import InputError
from coco_kp.redact import shown

MAX_MESSAGE: Final = 4 * 1024 * 1024
"""Bytes of one document at the most; gRPC's own default limit for a message."""

MAX_DEPTH: Final = 64
"""Levels of nesting that a document may have; real ones have six."""

MAX_CONTAINERS: Final = 100_000
"""Objects and arrays that a document may have. Each takes Python up to 200 bytes, and two to write,
so that without this bound one message could take a hundred times the memory of its limit."""

T = TypeVar("T")


def folded(name: str) -> str:
    """Return the name under which readers that ignore case find a member.

    Go's ``encoding/json`` takes ``Layers`` for ``layers``, and U+017F for s and U+212A for k too;
    of several it takes the last.
    """
    return name.casefold()


def check_one_reading(document: Mapping[str, object], known: Collection[str], what: str) -> None:
    """Refuse an object in which readers that ignore case would find other members.

    ``known`` are the members that any reader knows. An object in which names are free, such as
    annotations, is not for this function. Raises ``InputError`` for two members that differ in
    case only, and for one that differs in case only from a known one.
    """
    if all(name in known for name in document):
        return  # as nearly always: the known ones differ in more than case
    spelled = {folded(name): name for name in known}
    seen: dict[str, str] = {}
    for name in document:
        other = seen.setdefault(folded(name), name)
        if other != name:
            names = f"{shown(other)} and {shown(name)}"
            raise InputError(f"{what} has members that differ in case only: {names}")
        if (right := spelled.get(folded(name), name)) != name:
            raise InputError(
                f"{what} has the member {shown(name)}, which some readers take for '{right}'"
            )


def encode_base64(data: bytes) -> str:
    """Return the standard alphabet with padding, on one line (docs/protocols.md 1.2)."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def decode_base64(text: str, what: str) -> bytes:
    """Read padded standard base64, canonical to the last bit.

    ``what`` names the value in the error. Raises ``InputError``.
    """
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise InputError(
            f"{what} is not base64",
            "the standard alphabet (+ and /), with padding, on one line",
        ) from error
    # a2b_base64 lets stray bits behind the last byte pass; Rust readers do not.
    if encode_base64(data) != text:
        raise InputError(f"{what} is not canonical base64", "encode it again")
    return data


class Members(dict[str, object]):
    """An object as `parse_lenient_object` reads it; ``names`` has those that stand twice, twice."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.names = [name for name, _ in pairs]


def parse_lenient_object(data: bytes, what: str, limit: int) -> Members:
    """Read a JSON object that is never written again, as tolerantly as other programs do.

    Bytes that are not UTF-8, halves of surrogate pairs and members that stand twice are taken, as
    Go's reader takes them: what is to have one reading must pass `check_known_once`. Raises
    ``InputError``; bounds are those of `parse_json_object`.
    """
    _check_size(data, what, limit)
    if data.startswith(b"\xef\xbb\xbf"):
        raise InputError(f"{what} begins with a byte order mark, which most readers refuse")
    value = _decoded(_LENIENT_DECODER, data.decode("utf-8", errors="replace"), what)
    if not isinstance(value, Members):
        raise InputError(f"{what} is not a JSON object")
    return value


def check_known_once(document: Members, known: Collection[str], what: str) -> None:
    """Refuse an object that has one of the ``known`` members twice or in another case.

    All others are free. Raises ``InputError``.
    """
    spelled = {folded(name): name for name in known}
    found = [name for name in document.names if folded(name) in spelled]
    for name in found:
        right = spelled[folded(name)]
        if name != right:
            raise InputError(
                f"{what} has the member {shown(name)}, which some readers take for '{right}'"
            )
        if found.count(name) > 1:
            raise InputError(f"{what} has the member '{name}' twice")


def parse_json_object(data: bytes | str, what: str, limit: int = MAX_MESSAGE) -> dict[str, object]:
    """Read one JSON object: UTF-8, at most ``limit`` bytes and 64 levels, no member twice.

    ``what`` names the document in the error. Raises ``InputError``; its text holds nothing of the
    document, which may be secret.
    """
    _check_size(data, what, limit)
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        text.encode("utf-8")
        value = _decoded(_DECODER, text, what)
        if "\\u" in text:
            # Escapes can spell half a surrogate pair, which no UTF-8 text can hold.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except _MemberTwiceError as error:
        raise InputError(f"{what} has the member {shown(str(error))} twice") from None
    except UnicodeError:
        raise InputError(f"{what} is not valid JSON") from None
    if not isinstance(value, dict):
        raise InputError(f"{what} is not a JSON object")
    return value


def _check_size(data: bytes | str, what: str, limit: int) -> None:
    if len(data) > limit:
        raise InputError(f"{what} has {len(data)} bytes, more than the {limit} allowed")


def _decoded(decoder: json.JSONDecoder, text: str, what: str) -> object:
    containers = text.count("{") + text.count("[")  # those within strings count too
    if containers > MAX_CONTAINERS:
        raise InputError(f"{what} has more than {MAX_CONTAINERS} objects and arrays")
    try:
        value: object = decoder.decode(text)
        if containers > MAX_DEPTH:  # fewer cannot be deeper
            _check_depth(value)
    except (ValueError, RecursionError):
        # The decoder's own text would quote the document.
        raise InputError(f"{what} is not valid JSON") from None
    return value


def write_json(document: object) -> bytes:
    """Write compact UTF-8 JSON in the given order; slashes unescaped, as v1 readers need (3.1)."""
    return _ENCODER.encode(document).encode("utf-8")


def member(document: dict[str, object], name: str, kind: type[T], what: str) -> T:
    """Return the required member ``name`` of type ``kind``. Raises ``InputError``."""
    if name not in document:
        raise InputError(f"{what} has no '{name}'")
    value = document[name]
    # bool is an int to Python, not to JSON.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"'{name}' of {what} is not {_JSON_NAMES[kind]}")
    return value


_JSON_NAMES: Final[dict[type, str]] = {
    str: "a string",
    dict: "an object",
    list: "an array",
    int: "an integer",
    bool: "true or false",
}


class _MemberTwiceError(Exception):
    """A JSON object names a member twice: readers differ on which one counts."""


def _members_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members: dict[str, object] = {}
    for name, value in pairs:
        if name in members:
            raise _MemberTwiceError(name)
        members[name] = value
    return members


def _refuse_constant(constant: str) -> object:
    raise ValueError(constant)  # NaN and Infinity are not JSON


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(number)  # other readers refuse it, or make something else of it
    return value


# Made once: a call of the key provider takes a tenth of a millisecond, and each costs microseconds.
_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_members_once, parse_constant=_refuse_constant, parse_float=_finite
)
_LENIENT_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=Members, parse_constant=_refuse_constant
)
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def _check_depth(value: object) -> None:
    """Walk level by level, without recursion."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise ValueError("nested too deeply")
