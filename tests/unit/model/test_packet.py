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


def altered(packet: bytes, **members: Any) -> bytes:
    """Replace members; ``...`` removes one."""
    merged = json.loads(packet) | members
    document = {name: value for name, value in merged.items() if value is not ...}
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"kid": None}, "'kid' of the annotation packet is not a string"),
        ({"kid": "kbs:default/key/1"}, "its scheme is not kbs"),
        ({"kid": "kbs:///default/key/1/"}, "cannot be used"),
        ({"wrapped_data": ...}, "has no 'wrapped_data'"),
        ({"wrapped_data": [1, 2]}, "'wrapped_data' of the annotation packet is not a string"),
        ({"wrapped_data": ""}, "has 0 bytes, less than a tag"),
        ({"iv": None}, "'iv' of the annotation packet is not a string"),
        ({"iv": "AAAA\n"}, "'iv' of the annotation packet is not base64"),
        ({"wrap_type": ...}, "has no 'wrap_type'"),
        ({"wrap_type": 1}, "'wrap_type' of the annotation packet is not a string"),
        ({"version": "0.2.0"}, "'version' of the annotation packet is '0.2.0'"),
        ({"version": None}, "'version' of the annotation packet is not a string"),
        ({"provider": None}, "'provider' of the annotation packet is not a string"),
        ({"provider_settings": None}, "'provider_settings' of the annotation packet is not an"),
        ({"annotations": []}, "'annotations' of the annotation packet is not an object"),
    ],
)
def test_parse_packet_refusal_names_the_member(members: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_packet(altered(V2, **members))
    assert message in error.value.message


@pytest.mark.parametrize("provider", ["aws", "aliyun", "KBS", ""])
def test_parse_packet_raises_kek_error_for_key_that_no_kbs_holds(provider: str) -> None:
    cloud = altered(V2, provider=provider, kid="arn:aws:kms", iv=..., wrap_type=...)
    with pytest.raises(KekError, match=f"held by '{provider}', which is not a KBS"):
        parse_packet(cloud)


def test_parse_packet_limits_size() -> None:
    padded = V1 + b" " * (MAX_PACKET - len(V1))
    parse_packet(padded)
    with pytest.raises(InputError, match="more than the 262144 allowed"):
        parse_packet(padded + b" ")


def test_parse_packet_accepts_ctr_packet_without_tag() -> None:
    packet = altered(
        V1, wrap_type="A256CTR", iv=b64encode(b"\xff" * 16).decode(), wrapped_data="AA=="
    )
    assert parse_packet(packet).wrapped_data == b"\0"


class TestRewrittenPacket:
    """A256GCM is counter mode from ``IV || 2`` on: without its tag, A256CTR opens it."""

    @staticmethod
    def rewritten(counter: int) -> bytes:
        packet = json.loads(V1)
        iv = b64decode(packet["iv"]) + counter.to_bytes(4)
        wrapped = b64decode(packet["wrapped_data"])[:-16]
        packet |= {"wrap_type": "A256CTR", "iv": b64encode(iv).decode()}
        packet |= {"wrapped_data": b64encode(wrapped).decode()}
        return json.dumps(packet).encode()

    @pytest.mark.parametrize("counter", [0, 1, 2, 3, 1023])
    def test_packet_with_a_counter_of_gcm_is_refused_by_every_reader(self, counter: int) -> None:
        for read in (read_packet, parse_packet, wrap_type_of):
            with pytest.raises(InputError, match="rewritten as A256CTR"):
                read(self.rewritten(counter))

    def test_packet_with_a_larger_counter_is_read(self) -> None:
        assert wrap_type_of(self.rewritten(1024)) is Algorithm.A256CTR

    def test_packet_of_another_form_has_no_wrap_type(self) -> None:
        assert wrap_type_of(b"\0\1") is None
        assert wrap_type_of(b'{"key": 1}') is None
