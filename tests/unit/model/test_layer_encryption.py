"""The annotations of an encrypted layer, read and written."""

from __future__ import annotations

import pytest

from coco_kp.errors import InputError
from coco_kp.model.layer_encryption import (
    DEFAULT_SCHEME,
    MAX_PACKETS,
    LayerPacket,
    parse_layer_encryption,
    parse_packets,
    provider_scheme,
    with_encryption,
    with_packets,
    without_encryption,
)
from coco_kp.model.layer_options import PublicOptions

KEYS = "org.opencontainers.image.enc.keys."
PUBLIC = "org.opencontainers.image.enc.pubopts"
OPTIONS = PublicOptions(bytes(range(32)))
ONE = LayerPacket(DEFAULT_SCHEME, b"one")
TWO = LayerPacket(DEFAULT_SCHEME, b"two")
JWE = LayerPacket("jwe", b"three")


def test_what_is_written_is_read() -> None:
    annotations = with_encryption({"org.example": "kept"}, [ONE, JWE, TWO], OPTIONS)
    assert annotations["org.example"] == "kept"
    assert annotations[f"{KEYS}{DEFAULT_SCHEME}"] == "b25l,dHdv"
    read = parse_layer_encryption(annotations)
    assert read.packets == (ONE, TWO, JWE)
    assert read.public_options == OPTIONS


def test_old_annotations_of_encryption_do_not_stay() -> None:
    old = with_encryption({"org.example": "kept"}, [JWE], PublicOptions(bytes(32)))
    new = with_encryption(old, [ONE], OPTIONS)
    assert parse_layer_encryption(new).packets == (ONE,)
    assert without_encryption(new) == {"org.example": "kept"}
    assert without_encryption({"org.opencontainers.image.encoding": "x"})  # a neighbour


def test_packets_change_and_the_rest_stays_to_the_letter() -> None:
    old = with_encryption({}, [ONE, JWE], OPTIONS) | {"org.example": "kept"}
    new = with_packets(old, [TWO])
    assert {name: new[name] for name in (PUBLIC, "org.example")} == {
        name: old[name] for name in (PUBLIC, "org.example")
    }
    assert parse_packets(new) == (TWO,)


def test_an_empty_annotation_is_none() -> None:
    """As ocicrypt for Go takes it (docs/protocols.md 1.2)."""
    assert parse_packets({f"{KEYS}jwe": ""}) == ()


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({}, "nobody's key"),
        ({f"{KEYS}jwe": "eA=="}, "public options are missing"),
        ({f"{KEYS}jwe": "eA==", PUBLIC: ""}, "public options are missing"),
        ({f"{KEYS}jwe": "eA==,"}, "is empty"),
        ({f"{KEYS}jwe": "eA==,!"}, "not base64"),
        ({f"{KEYS}jwe": "eA==\n"}, "base64"),
        ({f"{KEYS}jwe": "eA==", PUBLIC: "e30"}, "base64"),
        ({f"{KEYS}jwe": ",".join(["eA=="] * (MAX_PACKETS + 1))}, "more than 64 packets"),
        ({f"{KEYS}jwe": "A" * 600_000}, "600000 characters"),
    ],
)
def test_what_cannot_be_read_is_refused(annotations: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_layer_encryption(annotations)


def test_a_provider_s_name_becomes_a_scheme() -> None:
    assert provider_scheme("attestation-agent") == DEFAULT_SCHEME
    for name in ("", "a b", "a,b", "a:b", "é", "x" * 65):
        with pytest.raises(InputError, match="cannot be used"):
            provider_scheme(name)
