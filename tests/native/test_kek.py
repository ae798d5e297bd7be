"""The border of key wrapping."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from coco_kp._native import Kek
from coco_kp.errors import CocoKpError, InputError, KekError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "packets.json").read_text())
RAW = bytes(range(0x20, 0x40))
IV_LENGTHS = {"A256GCM": 12, "A256CTR": 16}


@pytest.mark.parametrize("vector", VECTORS["good"], ids=lambda vector: vector["name"])
def test_kek_unwraps_known_packet(vector: dict[str, Any]) -> None:
    kek, packet = Kek(bytes.fromhex(vector["kek"])), json.loads(vector["packet"])
    iv, wrapped = (base64.b64decode(packet[member]) for member in ("iv", "wrapped_data"))
    secret = vector["optsdata"].encode()
    assert kek.unwrap(packet["wrap_type"], iv, wrapped) == secret


@pytest.mark.parametrize(
    "vector",
    [
        vector
        for vector in VECTORS["bad"]
        if vector["name"].startswith(
            ("tag_", "ciphertext_", "shorter_", "iv_", "ctr_", "wrap_type_", "wrong_")
        )
    ],
    ids=lambda vector: vector["name"],
)
def test_kek_refuses_known_bad_packet(vector: dict[str, Any]) -> None:
    kek, packet = Kek(bytes.fromhex(vector["kek"])), json.loads(vector["packet"])
    iv, wrapped = (base64.b64decode(packet[member]) for member in ("iv", "wrapped_data"))
    with pytest.raises(CocoKpError) as caught:
        kek.unwrap(packet["wrap_type"], iv, wrapped)
    assert caught.value.exit_code == vector["exit_code"]


@pytest.mark.parametrize("algorithm", IV_LENGTHS)
def test_kek_wrap_draws_new_iv(algorithm: str) -> None:
    kek = Kek(RAW)
    (first, one), (second, other) = kek.wrap(algorithm, b"secret"), kek.wrap(algorithm, b"secret")
    assert len(first) == IV_LENGTHS[algorithm]
    assert first != second
    assert one != other
    assert kek.unwrap(algorithm, first, one) == kek.unwrap(algorithm, second, other) == b"secret"


def test_kek_wrap_appends_tag_with_gcm_and_none_with_ctr() -> None:
    assert len(Kek(RAW).wrap("A256GCM", b"secret")[1]) == 6 + 16
    assert len(Kek(RAW).wrap("A256CTR", b"secret")[1]) == 6


def test_kek_unwrap_detects_every_flipped_bit_with_gcm() -> None:
    kek = Kek(RAW)
    iv, wrapped = kek.wrap("A256GCM", b"secret")
    for bit in range(len(wrapped) * 8):
        flipped = bytearray(wrapped)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(KekError):
            kek.unwrap("A256GCM", iv, flipped)
    for bit in range(len(iv) * 8):
        flipped = bytearray(iv)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(KekError):
            kek.unwrap("A256GCM", flipped, wrapped)


def test_kek_unwrap_with_wrong_key_fails_with_gcm_and_yields_garbage_with_ctr() -> None:
    kek, other = Kek(RAW), Kek.generate()
    iv, wrapped = kek.wrap("A256GCM", b"secret")
    with pytest.raises(KekError):
        other.unwrap("A256GCM", iv, wrapped)
    iv, wrapped = kek.wrap("A256CTR", b"secret")
    assert other.unwrap("A256CTR", iv, wrapped) != b"secret"


@pytest.mark.parametrize("raw", [b"", RAW[:31], RAW + b"\n", base64.b64encode(RAW)])
def test_kek_refuses_key_of_wrong_length(raw: bytes) -> None:
    with pytest.raises(KekError) as caught:
        Kek(raw)
    assert caught.value.message == f"expected a 32-byte key, found {len(raw)} bytes"


@pytest.mark.parametrize("algorithm", ["a256gcm", "A128GCM", "", "A256GCM\n"])
def test_kek_refuses_unknown_algorithm_and_lists_known_ones(algorithm: str) -> None:
    for call in (
        lambda: Kek(RAW).wrap(algorithm, b"secret"),
        lambda: Kek(RAW).unwrap(algorithm, bytes(12), bytes(32)),
    ):
        with pytest.raises(InputError) as caught:
            call()
        shown = algorithm.replace("\n", r"\n")
        assert caught.value.message == f"unknown wrap algorithm '{shown}'"
        assert caught.value.hint == "use A256GCM or A256CTR"


@pytest.mark.parametrize(("algorithm", "wrong"), [("A256GCM", 16), ("A256CTR", 12), ("A256GCM", 0)])
def test_kek_refuses_iv_of_wrong_length(algorithm: str, wrong: int) -> None:
    message = f"expected a {IV_LENGTHS[algorithm]}-byte IV for {algorithm}, found {wrong} bytes"
    with pytest.raises(InputError) as caught:
        Kek(RAW).unwrap(algorithm, bytes(wrong), bytes(32))
    assert caught.value.message == message


def test_kek_limits_size_of_wrapped_data() -> None:
    kek = Kek(RAW)
    iv, wrapped = kek.wrap("A256GCM", bytes(65_536))
    assert kek.unwrap("A256GCM", iv, wrapped) == bytes(65_536)
    with pytest.raises(InputError, match="65537 bytes is too long to wrap"):
        kek.wrap("A256GCM", bytes(65_537))
    with pytest.raises(InputError, match="too long"):
        kek.unwrap("A256CTR", bytes(16), bytes(65_537))


@pytest.mark.parametrize("wrong", [None, "text", 3])
def test_kek_raises_type_error_for_wrong_types(wrong: Any) -> None:
    with pytest.raises(TypeError):
        Kek(wrong)
    with pytest.raises(TypeError):
        Kek(RAW).wrap("A256GCM", wrong)
    with pytest.raises(TypeError):
        Kek(RAW).unwrap("A256GCM", wrong, bytes(32))


def test_kek_generate_draws_new_key_that_raw_returns() -> None:
    first, second = Kek.generate(), Kek.generate()
    assert first.raw() != second.raw()
    assert Kek(first.raw()).fingerprint == first.fingerprint


def test_kek_fingerprint_is_truncated_sha256_and_all_that_repr_shows() -> None:
    kek = Kek(RAW)
    assert kek.fingerprint == "sha256:" + hashlib.sha256(RAW).hexdigest()[:16]
    assert repr(kek) == f"<Kek {kek.fingerprint}>"


def test_kek_cannot_be_compared_copied_pickled_or_changed() -> None:
    kek, same = Kek(RAW), Kek(RAW)
    assert kek != same  # identity: a comparison by value would leak the key through its timing
    with pytest.raises(TypeError):
        pickle.dumps(kek)
    with pytest.raises(TypeError):
        copy.deepcopy(kek)
    with pytest.raises(AttributeError):
        kek.fingerprint = "sha256:0"  # type: ignore[misc]
