"""The annotations of an encrypted layer, read and written."""

from __future__ import annotations

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
from tests.support.refusals import refusals

KEYS = "org.opencontainers.image.enc.keys."
PUBLIC = "org.opencontainers.image.enc.pubopts"
OPTIONS = PublicOptions(bytes(range(32)))
ONE = LayerPacket(DEFAULT_SCHEME, b"one")
TWO = LayerPacket(DEFAULT_SCHEME, b"two")
JWE = LayerPacket("jwe", b"three")


def test_layer_encryption_round_trips_through_annotations() -> None:
    annotations = with_encryption({"org.example": "kept"}, [ONE, JWE, TWO], OPTIONS)
    assert annotations["org.example"] == "kept"
    assert annotations[f"{KEYS}{DEFAULT_SCHEME}"] == "b25l,dHdv"
    read = parse_layer_encryption(annotations)
    assert read.packets == (ONE, TWO, JWE)
    assert read.public_options == OPTIONS


def test_with_encryption_replaces_old_encryption_annotations() -> None:
    old = with_encryption({"org.example": "kept"}, [JWE], PublicOptions(bytes(32)))
    new = with_encryption(old, [ONE], OPTIONS)
    assert parse_layer_encryption(new).packets == (ONE,)
    assert without_encryption(new) == {"org.example": "kept"}
    assert without_encryption({"org.opencontainers.image.encoding": "x"})  # a neighbour


def test_with_packets_changes_packets_and_no_other_annotation() -> None:
    old = with_encryption({}, [ONE, JWE], OPTIONS) | {"org.example": "kept"}
    new = with_packets(old, [TWO])
    assert {name: new[name] for name in (PUBLIC, "org.example")} == {
        name: old[name] for name in (PUBLIC, "org.example")
    }
    assert parse_packets(new) == (TWO,)


def test_parse_packets_ignores_empty_annotation() -> None:
    """As ocicrypt for Go takes it (docs/protocols.md 1.2)."""
    assert parse_packets({f"{KEYS}jwe": ""}) == ()


test_parse_layer_encryption_refuses_malformed_annotations = refusals(
    parse_layer_encryption,
    {
        "nobody's key": [{}],
        "public options are missing": [{f"{KEYS}jwe": "eA=="}, {f"{KEYS}jwe": "eA==", PUBLIC: ""}],
        "is empty": [{f"{KEYS}jwe": "eA==,"}],
        "not base64": [{f"{KEYS}jwe": "eA==,!"}],
        "base64": [{f"{KEYS}jwe": "eA==\n"}, {f"{KEYS}jwe": "eA==", PUBLIC: "e30"}],
        "more than 64 packets": [{f"{KEYS}jwe": ",".join(["eA=="] * (MAX_PACKETS + 1))}],
        "600000 characters": [{f"{KEYS}jwe": "A" * 600_000}],
    },
)


test_provider_scheme_refuses_name_that_no_annotation_can_have = refusals(
    provider_scheme, {"cannot be used": ["", "a b", "a,b", "a:b", "é", "x" * 65]}
)


def test_provider_scheme_reads_the_usual_name() -> None:
    assert provider_scheme("attestation-agent") == DEFAULT_SCHEME
