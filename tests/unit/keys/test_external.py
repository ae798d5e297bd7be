"""KEKs that stand wrapped in their own key ID."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from coco_kp.crypto import Kek
from coco_kp.errors import InputError, KekError
from coco_kp.keys.external import (
    MAX_CIPHERTEXT,
    ciphertext_of,
    parse_ciphertext,
    unwrap,
    wrap_new_kek,
    wrapped_kid,
)
from coco_kp.keys.stores.interface import CiphertextError
from coco_kp.model.resource_uri import (
    MAX_LENGTH,
    ResourceUri,
    parse_key_id,
    parse_resource_uri,
    without_ciphertext,
)
from tests.support.refusals import refusals
from tests.support.wrapping_key import LocalKey

PROD = parse_key_id("kbs+external:///coco-kp/prod")
MASTER = bytes(range(32))


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Recorder:
    """A wrapping key that does nothing and remembers what it was asked."""

    contexts: list[dict[str, str]] = field(default_factory=list)

    def encrypt(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        self.contexts.append(dict(context))
        return plaintext

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str]) -> bytes:
        self.contexts.append(dict(context))
        return ciphertext

    def check(self) -> str:
        return ""

    def close(self) -> None:
        """No-op: it has no connection."""


def test_external_kid_opens_to_the_kek_that_was_wrapped() -> None:
    kid, kek = wrap_new_kek(PROD, LocalKey(MASTER))
    assert str(kid).startswith("kbs+external:///coco-kp/prod?ct=")
    assert unwrap(parse_resource_uri(str(kid)), LocalKey(MASTER)).raw() == kek.raw()
    assert without_ciphertext(kid) == PROD
    assert str(kek.raw()) not in repr(kid)


def test_external_kid_has_fresh_kek_each_time() -> None:
    kids = {wrap_new_kek(PROD, LocalKey(MASTER)) for _ in range(5)}
    assert len({kid for kid, _ in kids}) == len({kek.raw() for _, kek in kids}) == 5


@pytest.mark.parametrize(
    ("kid", "name"),
    [
        ("kbs+external:///coco-kp/prod", "prod"),
        ("kbs+external://kbs.example:8080/coco-kp/team/prod", "team/prod"),
        ("kbs+external:///other-backend/prod", "prod"),
    ],
)
def test_external_context_is_path_behind_the_backend(kid: str, name: str) -> None:
    key = Recorder()
    wrapped, _ = wrap_new_kek(parse_key_id(kid), key)
    unwrap(wrapped, key)
    assert key.contexts == [{"coco-kp": name}] * 2


@pytest.mark.parametrize(
    ("path", "master"),
    [("test", MASTER), ("prod/x", MASTER), ("team/prod", MASTER), ("prod", bytes(32))],
)
def test_external_ciphertext_of_another_name_or_key_does_not_open(path: str, master: bytes) -> None:
    kid, _ = wrap_new_kek(PROD, LocalKey(MASTER))
    other = parse_resource_uri(f"kbs+external:///coco-kp/{path}?{kid.query}")
    with pytest.raises(CiphertextError):
        unwrap(other, LocalKey(master))


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_external_ciphertext_of_no_kek_is_refused(size: int) -> None:
    kid = wrapped_kid(PROD, LocalKey(MASTER).encrypt(bytes(size), {"coco-kp": "prod"}))
    with pytest.raises(KekError, match="expected a 32-byte key in what the key ID wraps"):
        unwrap(kid, LocalKey(MASTER))


@pytest.mark.parametrize("size", range(1, 8))
def test_external_ciphertext_has_no_padding_and_comes_back(size: int) -> None:
    ciphertext = bytes([0xFB, 0xEF, 0xBE, 0xFF, 0xFF, 0x00, 0x01][:size])
    kid = wrapped_kid(PROD, ciphertext)
    assert not set(kid.query.removeprefix("ct=")) & set("=+/%")
    assert ciphertext_of(parse_resource_uri(str(kid))) == ciphertext


def test_external_kid_has_room_for_its_longest_ciphertext() -> None:
    kid = ResourceUri("external", "", ("coco-kp", "n"))
    assert ciphertext_of(wrapped_kid(kid, bytes(MAX_CIPHERTEXT))) == bytes(MAX_CIPHERTEXT)


def test_external_ciphertext_too_long_for_a_key_id_is_refused_when_encrypting() -> None:
    room = MAX_LENGTH - len(str(PROD)) - len("?ct=")
    longest = room * 3 // 4
    assert len(str(wrapped_kid(PROD, bytes(longest)))) <= MAX_LENGTH
    with pytest.raises(InputError, match=f"a key ID has at most {MAX_LENGTH} characters") as error:
        wrapped_kid(PROD, bytes(longest + 1))
    assert error.value.hint


QUERIES = [
    ResourceUri("external", "", ("coco-kp", "prod"), query)
    for query in (
        *("", "ct=", "ct", "ct=A", "ct=AB", "ct=AAE=", "ct=AA%3D%3D", "ct=AAAAA", "ct=AA+A"),
        *("ct=AA/A", "ct=AAAA&x=1", "x=1&ct=AAAA", "ct=AAAA&ct=AAAA", "CT=AAAA", "ct=AAAA;", "c=A"),
        f"ct={base64url(bytes(MAX_CIPHERTEXT + 1))}",
    )
]

test_external_query_other_than_one_strict_ct_is_refused = refusals(ciphertext_of, {"": QUERIES})

test_external_query_other_than_one_strict_ct_is_not_unwrapped = refusals(
    lambda kid: unwrap(kid, Recorder()), {"": QUERIES}
)


# Two spellings of one ciphertext would be two key IDs for one key.
test_external_ct_of_another_spelling_is_refused = refusals(
    parse_ciphertext, {"": ["AA\n", " AAA", "ÅAAA", "A" * 5, "AAA\0", "AB", "AAB"]}
)


test_external_wrap_refuses_key_id_of_another_kind = refusals(
    lambda kid: wrap_new_kek(parse_key_id(kid), Recorder()),
    {
        "names no key of a KBS plugin": [
            "kbs:///default/key/1",
            "kbs+pkcs11:///resource/a/b/c",
            "kbs+external:///coco-kp",
        ],
        "has a query": ["kbs+external:///coco-kp/prod?ct=AAAA"],
    },
)


def test_external_errors_show_no_kek() -> None:
    kek = Kek(os.urandom(32))
    kid = wrapped_kid(PROD, kek.raw() + b"x")
    with pytest.raises(KekError) as error:
        unwrap(kid, Recorder())
    assert base64url(kek.raw())[:16] not in str(error.value)
