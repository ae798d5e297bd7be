"""The documents of the handshake, against the known answers of docs/protocols.md 5.3."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from coco_kp.errors import RemoteError
from coco_kp.model.rcar import (
    Challenge,
    Evidence,
    attestation,
    device_report_data,
    parse_token,
    report_data,
    request,
)
from tests.support.refusals import refusals

GENERATOR_OF_P256 = {
    "alg": "ECDH-ES+A256KW",
    "crv": "P-256",
    "kty": "EC",
    "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
    "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU",
}
ZERO_NONCE = b64encode(bytes(32)).decode()


def test_report_data_matches_known_answer() -> None:
    challenge = Challenge(ZERO_NONCE, "sha384")
    digest = b64encode(report_data(challenge, GENERATOR_OF_P256, "")).decode()
    assert digest == "vBhzV0ZHJxPJfSuIHgoXjhsJu2Uv0qPV55RedWx/FEltfMGim/dKazv+JIaR5fO0"


def test_report_data_does_not_depend_on_order_of_key_members() -> None:
    challenge = Challenge(ZERO_NONCE, "sha384")
    turned = dict(reversed(GENERATOR_OF_P256.items()))
    assert report_data(challenge, turned, "") == report_data(challenge, GENERATOR_OF_P256, "")


def test_report_data_covers_device_evidence_but_device_report_data_does_not() -> None:
    challenge = Challenge(ZERO_NONCE, "sha384")
    alone = report_data(challenge, GENERATOR_OF_P256, "")
    assert report_data(challenge, GENERATOR_OF_P256, '{"nvidia":{}}') != alone
    assert device_report_data(challenge, GENERATOR_OF_P256) != alone


@pytest.mark.parametrize(("name", "size"), [("sha256", 32), ("SHA512", 64), (None, 48)])
def test_report_data_uses_hash_selected_by_kbs(name: str | None, size: int) -> None:
    extra = {"selected-hash-algorithm": name} if name else ""
    challenge = Challenge.parse({"nonce": ZERO_NONCE, "extra-params": extra})
    assert len(report_data(challenge, GENERATOR_OF_P256, "")) == size


test_challenge_parse_refuses_malformed_document = refusals(
    Challenge.parse,
    {
        "the challenge of the KBS has no nonce": [{}, {"nonce": ""}, {"nonce": 7}, {"nonce": "é"}],
        "which was not offered": [
            {"nonce": "AA==", "extra-params": {"selected-hash-algorithm": chosen}}
            for chosen in ("md5", ["sha384"])
        ],
    },
    raises=RemoteError,
)


def test_request_and_attestation_have_the_members_that_parsers_require() -> None:
    assert json.loads(request("tdx")) == {
        "version": "0.4.0",
        "tee": "tdx",
        "extra-params": {"supported-hash-algorithms": ["sha256", "sha384", "sha512"]},
    }
    devices = '{"nvidia":{}}'
    evidence = Evidence({"quote": "é"}, devices)
    message: dict[str, Any] = json.loads(
        attestation(Challenge(ZERO_NONCE, "sha384"), GENERATOR_OF_P256, evidence)
    )
    assert message == {
        "init-data": None,
        "runtime-data": {"nonce": ZERO_NONCE, "tee-pubkey": GENERATOR_OF_P256},
        "tee-evidence": {"primary_evidence": {"quote": "é"}, "additional_evidence": devices},
    }


def test_parse_token_accepts_jwt() -> None:
    assert parse_token({"token": "a.b-_.c"}, "it") == "a.b-_.c"


test_parse_token_refuses_what_could_break_out_of_a_header = refusals(
    lambda token: parse_token({"token": token}, "it"),
    {
        "it answered without an attestation token": [
            "",
            "a.b",
            "a.b.c\r\nX: y",
            "a.b.c d",
            None,
            7,
            ["a.b.c"],
        ]
    },
    raises=RemoteError,
    exact=True,
)
