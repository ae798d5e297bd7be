from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
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
    assert parse_public_options(encoded(public)).hmac == b64decode(vector["hmac"])
    private = parse_private_options(
        encoded(
            {
                "cipheroptions": {"nonce": b64encode(bytes.fromhex(vector["nonce"])).decode()},
                "digest": "sha256:" + vector["plaintext_sha256"],
                "symkey": b64encode(bytes.fromhex(vector["key"])).decode(),
            }
        )
    )
    assert private.symkey.hex() == vector["key"]
    assert private.nonce.hex() == vector["nonce"]


def encoded(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


def altered(document: bytes, **members: Any) -> bytes:
    """Replace members; ``...`` removes one."""
    merged = json.loads(document) | members
    return encoded({name: value for name, value in merged.items() if value is not ...})


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
    parse_private_options(altered(PRIVATE, **members))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"symkey": ...}, "has no 'symkey'"),
        ({"symkey": None}, "'symkey' of the layer's private options is not a string"),
        ({"symkey": b64(31)}, "'symkey' of the layer's private options has 31 bytes, not 32"),
        ({"symkey": b64(33)}, "has 33 bytes, not 32"),
        ({"symkey": b64(32) + "\n"}, "'symkey' of the layer's private options is not base64"),
        ({"digest": ...}, "has no 'digest'"),
        ({"digest": None}, "'digest' of the layer's private options is not a string"),
        ({"digest": "sha256"}, "'digest' of the layer's private options is not <algorithm>:<hex>"),
        ({"digest": DIGEST + "\n"}, "is not <algorithm>:<hex>"),
        ({"cipheroptions": ...}, "has no 'cipheroptions'"),
        ({"cipheroptions": None}, "is not an object"),
        ({"cipheroptions": []}, "is not an object"),
        ({"cipheroptions": {}}, "'cipheroptions' of the layer's private options has no 'nonce'"),
        ({"cipheroptions": {"nonce": b64(12)}}, "has 12 bytes, not 16"),
        ({"cipheroptions": {"nonce": [0] * 16}}, "is not a string"),
    ],
)
def test_parse_private_options_refuses_documents_that_some_guest_refuses(
    members: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as error:
        parse_private_options(altered(PRIVATE, **members))
    assert message in error.value.message


@pytest.mark.parametrize(
    "members", [{"cipheroptions": ...}, {"cipheroptions": None}, {"cipheroptions": {}, "later": 1}]
)
def test_parse_public_options_accepts_documents_that_go_reads(members: dict[str, Any]) -> None:
    assert parse_public_options(altered(PUBLIC, **members)) == PublicOptions(HMAC)


@pytest.mark.parametrize("options", [{"nonce": b64(16)}, {"later": "AA=="}, [], 0, False, "", "x"])
def test_parse_public_options_refuses_cipher_options_in_clear(options: object) -> None:
    """A nonce there would be preferred to the secret one, and decrypt to garbage unnoticed."""
    with pytest.raises(InputError, match="hold cipher options in clear"):
        parse_public_options(altered(PUBLIC, cipheroptions=options))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"cipher": ...}, "has no 'cipher'"),
        ({"cipher": ""}, "cipher '' is unknown"),
        ({"cipher": "AES_256_GCM"}, "cipher 'AES_256_GCM' is unknown"),
        ({"hmac": ...}, "has no 'hmac'"),
        ({"hmac": None}, "'hmac' of the layer's public options is not a string"),
        ({"hmac": ""}, "has 0 bytes, not 32"),
        ({"hmac": b64(31)}, "has 31 bytes, not 32"),
    ],
)
def test_parse_public_options_refuses_documents_that_some_reader_refuses(
    members: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as error:
        parse_public_options(altered(PUBLIC, **members))
    assert message in error.value.message


@pytest.mark.parametrize("parse", [parse_private_options, parse_public_options])
def test_parse_layer_options_limits_document_size(parse: Any) -> None:
    with pytest.raises(InputError, match="more than the 65536 allowed"):
        parse(b" " * (MAX_DOCUMENT + 1))


def test_private_options_repr_shows_no_secret() -> None:
    options = parse_private_options(PRIVATE)
    assert repr(options) == f"PrivateOptions(digest='{DIGEST}')"


@pytest.mark.parametrize("cut", range(1, len(PRIVATE), 7))
def test_parse_private_options_does_not_quote_truncated_document(cut: int) -> None:
    with pytest.raises(InputError) as error:
        parse_private_options(PRIVATE[:cut])
    assert str(error.value) == "the layer's private options is not valid JSON"


@pytest.mark.parametrize(
    "change",
    [lambda d: d.update(x=1), lambda d: d["cipheroptions"].update(x="")],
    ids=["beside the key", "beside the nonce"],
)
def test_private_options_read_exactly_have_no_other_member(
    change: Callable[[dict[str, Any]], None],
) -> None:
    document = json.loads(PRIVATE)
    change(document)
    data = json.dumps(document).encode()
    assert parse_private_options(data) == parse_private_options(PRIVATE, exact=True)
    with pytest.raises(InputError, match="a member that nobody writes"):
        parse_private_options(data, exact=True)
