from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import pytest

from coco_kp.errors import InputError
from coco_kp.model.layer_options import (
    MAX_DOCUMENT,
    PrivateOptions,
    PublicOptions,
    parse_private_options,
    parse_public_options,
)
from tests.support.documents import to_json, with_members
from tests.support.refusals import refusals
from tests.vectors import load_vectors

# docs/protocols.md 1.7, L1
LEK = bytes(range(32))
NONCE = bytes(range(0xA0, 0xB0))
DIGEST = "sha256:cc0fd170765c259de3a9a83940e4697ad71c1cf7c4fee51e97dfb93dfd659c71"
HMAC = b64decode("q0onHfB4bXZSENglbPP2DEwuZXX42ZH1YimanVPqBFw=")
PRIVATE = (
    b'{"symkey":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","digest":"'
    + DIGEST.encode()
    + b'","cipheroptions":{"nonce":"oKGio6SlpqeoqaqrrK2urw=="}}'
)
PUBLIC = (
    b'{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"q0onHfB4bXZSENglbPP2DEwuZXX42ZH1YimanVPqBFw=",'
    b'"cipheroptions":{}}'
)


def test_private_options_round_trip_known_document() -> None:
    options = PrivateOptions(LEK, NONCE, DIGEST)
    assert options.to_json() == PRIVATE
    assert len(PRIVATE) == 193
    assert parse_private_options(PRIVATE) == options


def test_public_options_round_trip_known_document() -> None:
    assert PublicOptions(HMAC).to_json() == PUBLIC
    assert parse_public_options(PUBLIC) == PublicOptions(HMAC)


@pytest.mark.parametrize(
    "vector", load_vectors("layer_cipher")["vectors"], ids=lambda vector: vector["name"]
)
def test_layer_options_read_documents_of_known_layers(vector: dict[str, Any]) -> None:
    public = {"cipher": "AES_256_CTR_HMAC_SHA256", "hmac": vector["hmac"], "cipheroptions": {}}
    assert parse_public_options(to_json(public)).hmac == b64decode(vector["hmac"])
    private = parse_private_options(
        to_json(
            {
                "cipheroptions": {"nonce": b64encode(bytes.fromhex(vector["nonce"])).decode()},
                "digest": "sha256:" + vector["plaintext_sha256"],
                "symkey": b64encode(bytes.fromhex(vector["key"])).decode(),
            }
        )
    )
    assert private.symkey.hex() == vector["key"]
    assert private.nonce.hex() == vector["nonce"]


def b64(size: int) -> str:
    return b64encode(bytes(size)).decode()


@pytest.mark.parametrize(
    "members",
    [
        {"digest": ""},  # what an encryptor writes that does not know it
        {"digest": "sha512:" + "0" * 128},
        {"later": [1]},
        {"cipheroptions": {"nonce": b64(16), "later": "AA=="}},
    ],
)
def test_parse_private_options_accepts_documents_that_guests_read(members: dict[str, Any]) -> None:
    parse_private_options(with_members(PRIVATE, **members))


test_parse_private_options_refuses_documents_that_some_guest_refuses = refusals(
    lambda members: parse_private_options(with_members(PRIVATE, **members)),
    {
        "has no 'symkey'": [{"symkey": ...}],
        "'symkey' of the layer's private options is not a string": [{"symkey": None}],
        "'symkey' of the layer's private options has 31 bytes, not 32": [{"symkey": b64(31)}],
        "has 33 bytes, not 32": [{"symkey": b64(33)}],
        "'symkey' of the layer's private options is not base64": [{"symkey": b64(32) + "\n"}],
        "has no 'digest'": [{"digest": ...}],
        "'digest' of the layer's private options is not a string": [{"digest": None}],
        "'digest' of the layer's private options is not <algorithm>:<hex>": [{"digest": "sha256"}],
        "is not <algorithm>:<hex>": [{"digest": DIGEST + "\n"}],
        "has no 'cipheroptions'": [{"cipheroptions": ...}],
        "is not an object": [{"cipheroptions": None}, {"cipheroptions": []}],
        "'cipheroptions' of the layer's private options has no 'nonce'": [{"cipheroptions": {}}],
        "has 12 bytes, not 16": [{"cipheroptions": {"nonce": b64(12)}}],
        "is not a string": [{"cipheroptions": {"nonce": [0] * 16}}],
    },
)


@pytest.mark.parametrize(
    "members", [{"cipheroptions": ...}, {"cipheroptions": None}, {"cipheroptions": {}, "later": 1}]
)
def test_parse_public_options_accepts_documents_that_go_reads(members: dict[str, Any]) -> None:
    assert parse_public_options(with_members(PUBLIC, **members)) == PublicOptions(HMAC)


# A nonce there would be preferred to the secret one, and decrypt to garbage unnoticed.
test_parse_public_options_refuses_cipher_options_in_clear = refusals(
    lambda options: parse_public_options(with_members(PUBLIC, cipheroptions=options)),
    {
        "hold cipher options in clear": [
            {"nonce": b64(16)},
            {"later": "AA=="},
            [],
            0,
            False,
            "",
            "x",
        ]
    },
)


test_parse_public_options_refuses_documents_that_some_reader_refuses = refusals(
    lambda members: parse_public_options(with_members(PUBLIC, **members)),
    {
        "has no 'cipher'": [{"cipher": ...}],
        "cipher '' is unknown": [{"cipher": ""}],
        "cipher 'AES_256_GCM' is unknown": [{"cipher": "AES_256_GCM"}],
        "has no 'hmac'": [{"hmac": ...}],
        "'hmac' of the layer's public options is not a string": [{"hmac": None}],
        "has 0 bytes, not 32": [{"hmac": ""}],
        "has 31 bytes, not 32": [{"hmac": b64(31)}],
    },
)


test_parse_layer_options_limits_document_size = refusals(
    lambda parse: parse(b" " * (MAX_DOCUMENT + 1)),
    {"more than the 65536 allowed": [parse_private_options, parse_public_options]},
)


def test_private_options_repr_shows_no_secret() -> None:
    options = parse_private_options(PRIVATE)
    assert repr(options) == f"PrivateOptions(digest='{DIGEST}')"


test_parse_private_options_does_not_quote_truncated_document = refusals(
    lambda cut: parse_private_options(PRIVATE[:cut]),
    {"the layer's private options is not valid JSON": range(1, len(PRIVATE), 7)},
    exact=True,
)


@pytest.mark.parametrize(
    "members", [{"x": 1}, {"cipheroptions": {"nonce": b64encode(NONCE).decode(), "x": ""}}]
)
def test_private_options_read_exactly_have_no_other_member(members: dict[str, Any]) -> None:
    data = with_members(PRIVATE, **members)
    assert parse_private_options(data) == parse_private_options(PRIVATE, exact=True)
    with pytest.raises(InputError, match="a member that nobody writes"):
        parse_private_options(data, exact=True)
