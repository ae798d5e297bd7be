"""Digests: read strictly, computed rightly."""

from __future__ import annotations

import hashlib

import pytest

from coco_kp.model.digest import Digest, hasher_like, parse_digest
from tests.support.refusals import refusals

# FIPS 180-4 examples: SHA-256 and SHA-512 of "abc".
SHA256 = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
SHA512 = (
    "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
)


@pytest.mark.parametrize("text", [SHA256, SHA512])
def test_parse_digest_reads_sha256_and_sha512(text: str) -> None:
    digest = parse_digest(text)
    assert str(digest) == text
    assert digest.matches(b"abc")
    assert not digest.matches(b"abd")
    hasher = hasher_like(digest)
    hasher.update(b"ab")
    hasher.update(b"c")
    assert hasher.hexdigest() == digest.hex


def test_digest_of_data_is_sha256() -> None:
    assert str(Digest.of(b"abc")) == SHA256


test_parse_digest_refuses_malformed_text = refusals(
    parse_digest,
    {
        "is not a digest": [
            *("", ":", "sha256", " " + SHA256, SHA256.upper(), "sha384:" + "0" * 96),
            "md5:" + hashlib.md5(b"abc", usedforsecurity=False).hexdigest(),
        ],
        "a sha256 digest has 64 lower-case hex digits": [
            *("sha256:", SHA256[:-1], SHA256 + "0", SHA256 + "\n", SHA256.replace("b", "g", 1)),
            *("sha256:" + "../" * 21 + "a", "sha256:" + "٣" * 64),
        ],
        "a sha512 digest has 128 lower-case hex digits": ["sha512:" + "0" * 64],
    },
)
