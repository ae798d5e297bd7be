from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

import pytest

from coco_kp.errors import CocoKpError, InputError, KekError
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.packet import (
    MAX_PACKET,
    AnnotationPacket,
    PacketVersion,
    parse_packet,
    read_packet,
    wrap_type_of,
)
from coco_kp.model.resource_uri import ResourceUri
from tests.support.documents import with_members
from tests.support.refusals import refusals
from tests.vectors import load_vectors

VECTORS = load_vectors("packets")
V1 = {vector["name"]: vector["packet"].encode() for vector in VECTORS["good"]}["gcm"]
V2 = {vector["name"]: vector["packet"].encode() for vector in VECTORS["good"]}["v2_kbs"]

# These are for the key to find out: a packet by itself is well formed.
WRONG_ONLY_TO_ITS_KEY = {"tag_flipped", "ciphertext_flipped", "wrong_kek"}


@pytest.mark.parametrize("vector", VECTORS["good"], ids=lambda vector: vector["name"])
def test_parse_packet_reads_known_packets(vector: dict[str, Any]) -> None:
    document = json.loads(vector["packet"])
    packet = parse_packet(vector["packet"].encode())
    assert str(packet.kid) == document["kid"]
    assert packet.wrap_type == document["wrap_type"]
    assert b64encode(packet.iv).decode() == document["iv"]
    assert b64encode(packet.wrapped_data).decode() == document["wrapped_data"]


@pytest.mark.parametrize(("name", "version"), [("gcm", "v1"), ("ctr", "v1"), ("v2_kbs", "v2")])
def test_packet_is_written_byte_for_byte_as_upstream_does(
    name: str, version: PacketVersion
) -> None:
    (text,) = [vector["packet"] for vector in VECTORS["good"] if vector["name"] == name]
    assert parse_packet(text.encode()).to_json(version) == text.encode()


@pytest.mark.parametrize(
    "vector",
    [vector for vector in VECTORS["bad"] if vector["name"] not in WRONG_ONLY_TO_ITS_KEY],
    ids=lambda vector: vector["name"],
)
def test_parse_packet_refuses_known_bad_packets(vector: dict[str, Any]) -> None:
    with pytest.raises(CocoKpError) as error:
        parse_packet(vector["packet"].encode())
    assert error.value.exit_code == vector["exit_code"]


def test_packet_is_written_as_v1_by_default_and_v2_says_the_same() -> None:
    kid = ResourceUri("resource", "kbs.example:8080", ("default", "key", "1"))
    packet = AnnotationPacket(kid, bytes(209), bytes(12), Algorithm.A256GCM)
    assert packet.to_json() == packet.to_json("v1")
    assert b"\\/" not in packet.to_json()  # v1 readers borrow the kid: no escape may stand in it
    assert list(json.loads(packet.to_json("v1"))) == ["kid", "wrapped_data", "iv", "wrap_type"]
    assert parse_packet(packet.to_json("v1")) == parse_packet(packet.to_json("v2")) == packet


test_parse_packet_refusal_names_the_member = refusals(
    lambda members: parse_packet(with_members(V2, **members)),
    {
        "'kid' of the annotation packet is not a string": [{"kid": None}],
        "its scheme is not kbs": [{"kid": "kbs:default/key/1"}],
        "cannot be used": [{"kid": "kbs:///default/key/1/"}],
        "has no 'wrapped_data'": [{"wrapped_data": ...}],
        "'wrapped_data' of the annotation packet is not a string": [{"wrapped_data": [1, 2]}],
        "has 0 bytes, less than a tag": [{"wrapped_data": ""}],
        "'iv' of the annotation packet is not a string": [{"iv": None}],
        "'iv' of the annotation packet is not base64": [{"iv": "AAAA\n"}],
        "has no 'wrap_type'": [{"wrap_type": ...}],
        "'wrap_type' of the annotation packet is not a string": [{"wrap_type": 1}],
        "'version' of the annotation packet is '0.2.0'": [{"version": "0.2.0"}],
        "'version' of the annotation packet is not a string": [{"version": None}],
        "'provider' of the annotation packet is not a string": [{"provider": None}],
        "'provider_settings' of the annotation packet is not an": [{"provider_settings": None}],
        "'annotations' of the annotation packet is not an object": [{"annotations": []}],
    },
)


test_parse_packet_raises_kek_error_for_key_that_no_kbs_holds = refusals(
    lambda provider: parse_packet(
        with_members(V2, provider=provider, kid="arn:aws:kms", iv=..., wrap_type=...)
    ),
    {f"held by '{name}', which is not a KBS": [name] for name in ["aws", "aliyun", "KBS", ""]},
    raises=KekError,
)


def test_parse_packet_limits_size() -> None:
    padded = V1 + b" " * (MAX_PACKET - len(V1))
    parse_packet(padded)
    with pytest.raises(InputError, match="more than the 262144 allowed"):
        parse_packet(padded + b" ")


def test_parse_packet_accepts_ctr_packet_without_tag() -> None:
    packet = with_members(
        V1, wrap_type="A256CTR", iv=b64encode(b"\xff" * 16).decode(), wrapped_data="AA=="
    )
    assert parse_packet(packet).wrapped_data == b"\0"


def rewritten(counter: int) -> bytes:
    """A256GCM is counter mode from ``IV || 2`` on: without its tag, A256CTR opens it."""
    packet = json.loads(V1)
    iv = b64decode(packet["iv"]) + counter.to_bytes(4)
    wrapped = b64decode(packet["wrapped_data"])[:-16]
    members = {"iv": b64encode(iv).decode(), "wrapped_data": b64encode(wrapped).decode()}
    return with_members(V1, wrap_type="A256CTR", **members)


test_packet_with_a_counter_of_gcm_is_refused_by_every_reader = refusals(
    lambda row: row[0](rewritten(row[1])),
    {
        "rewritten as A256CTR": [
            (read, counter)
            for read in (read_packet, parse_packet, wrap_type_of)
            for counter in (0, 1, 2, 3, 1023)
        ]
    },
)


def test_packet_has_wrap_type_unless_it_has_another_form() -> None:
    assert wrap_type_of(rewritten(1024)) is Algorithm.A256CTR
    assert wrap_type_of(b"\0\1") is None
    assert wrap_type_of(b'{"key": 1}') is None
