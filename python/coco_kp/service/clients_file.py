"""The file of ``coco-kp serve --clients``: who may do what, by the names in certificates.

    [clients.team-a]
    dns = ["ci.team-a.example.org"]
    uri = ["spiffe://example.org/ns/team-a/sa/ci"]
    operations = ["wrap"]
    kids = ["kbs:///team-a/*/*"]
    kek-from = ["file:/keys/team-a/*", "vault:///kv/team-a/*"]

A name is meant as it is written: none is a pattern, neither here nor in a certificate.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

from coco_kp.errors import InputError
from coco_kp.keys.file_reference import FileReference
from coco_kp.keys.reference import (
    AwsKmsReference,
    names_code,
    parse_kek_reference,
    parse_wrapping_reference,
)
from coco_kp.model.clients import Clients, Grant
from coco_kp.model.pattern import Pattern, parse_pattern
from coco_kp.model.protocol import Operation
from coco_kp.model.resource_uri import parse_resource_uri
from coco_kp.redact import shown
from coco_kp.service.toml_file import read_tables

_FORM: Final = (
    'write [clients.NAME] and below it dns, uri or cn, operations = ["wrap", "unwrap"], '
    'kids = ["kbs:///REPOSITORY/TYPE/TAG"], and for keys that the client names kek-from = ["URI"]'
)
_MEMBERS: Final = ("dns", "uri", "cn", "operations", "kids", "kek-from")

_OPERATIONS: Final[dict[str, Operation]] = {"wrap": "keywrap", "unwrap": "keyunwrap"}

# Each as certificates have them. RFC 1123, 2.1, with the underscore that is found in practice; RFC
# 3986, with the length of SPIFFE-ID, 2.3; RFC 5280's ub-common-name.
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_FORMS: Final = {
    "dns": re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*"),
    "uri": re.compile(r"(?=.{1,2048}\Z)[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9._~:/?#@!$&'()+,;=%-]+"),
    "cn": re.compile(r"[^\x00-\x1f\x7f]{1,64}"),
}
_FORM_HINTS: Final = {
    "dns": "one name in lower case, in full: ci.example.org",
    "uri": "one URI in full: spiffe://example.org/ns/team-a/sa/ci",
    "cn": "one name of at most 64 characters; it counts in certificates without subjectAltName",
}

T = TypeVar("T")


def read_clients(path: Path) -> Clients:
    """Read who may do what. Raises ``InputError``."""
    what = f"the clients' file {shown(str(path))}"
    by_name: dict[str, Grant] = {}
    for _, where, entry in read_tables(path, what, "clients", _MEMBERS, _FORM):
        grant = _grant(entry, where)
        for name in _names(entry, where):
            if name in by_name:
                raise InputError(f"{where} has {shown(name)}, which stands in the file twice")
            by_name[name] = grant
    return Clients(by_name)


def _names(entry: Mapping[str, object], where: str) -> list[str]:
    names = []
    for kind, form in _FORMS.items():
        for text in _texts(entry, kind, where):
            if not form.fullmatch(text):
                raise InputError(f"{where}: {shown(text)} is not a valid {kind}", _FORM_HINTS[kind])
            names.append(f"{kind}:{text}")
    if not names:
        raise InputError(f"{where} has none of dns, uri and cn", _FORM)
    return names


def _grant(entry: Mapping[str, object], where: str) -> Grant:
    operations = _read(entry, "operations", where, _operation)
    kids = _read(entry, "kids", where, _kid_pattern)
    if not operations or not kids:
        missing = "kids" if operations else "operations"
        raise InputError(f"{where} may do nothing: {missing} is missing", _FORM)
    kek_from = _read(entry, "kek-from", where, _kek_pattern)
    return Grant(frozenset(operations), kids, kek_from)


def _read(
    entry: Mapping[str, object], member: str, where: str, parse: Callable[[str], T]
) -> tuple[T, ...]:
    try:
        return tuple(parse(text) for text in _texts(entry, member, where))
    except InputError as error:
        raise error.within(where) from None


def _texts(entry: Mapping[str, object], member: str, where: str) -> list[str]:
    texts = entry.get(member, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{member} of {where} is not a list of texts", _FORM)
    if not texts and member in entry:
        raise InputError(f"{member} of {where} is empty", _FORM)
    return texts


def _operation(text: str) -> Operation:
    if text not in _OPERATIONS:
        raise InputError(f"the operation {shown(text)} is unknown", "there are wrap and unwrap")
    return _OPERATIONS[text]


def _kid_pattern(text: str) -> Pattern:
    """Read a pattern that some canonical key ID matches, or some key whose packets have none."""
    pattern, example = _with_example(text)
    try:
        written = str(parse_resource_uri(example))
    except InputError:
        written = _kms_key(example)
        if not written:
            raise
    if written != example or "?" in text:
        raise InputError(f"no key ID matches {shown(text)}", "write kbs:///REPOSITORY/TYPE/TAG")
    return pattern


def _kms_key(text: str) -> str:
    try:
        reference = parse_wrapping_reference(text)
    except InputError:
        return ""
    return str(reference) if isinstance(reference, AwsKmsReference) else ""


def _kek_pattern(text: str) -> Pattern:
    """Read a pattern that some key reference matches which a caller may name."""
    pattern, example = _with_example(text)
    reference = parse_kek_reference(example)
    if names_code(reference):
        raise InputError(
            "no client may name a program, a library or a PIN's file",
            "write file:, vault:, aws-sm: or pkcs11:, the latter without a query",
        )
    if isinstance(reference, FileReference):
        path = reference.path
        if not path.startswith("/") or str(PurePosixPath(path)) != path:
            raise InputError(f"{shown(text)} is not an absolute path", "write file:/DIR/*")
    if str(reference) != example or not pattern.matches(example):
        raise InputError(
            f"no key reference matches {shown(text)}",
            f"one is written as in {shown(str(reference))}",
        )
    return pattern


def _with_example(text: str) -> tuple[Pattern, str]:
    return parse_pattern(text), text.replace("*", "x")
