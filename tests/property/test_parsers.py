"""Parsers give a value or refuse in our own words."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from coco_kp.errors import CocoKpError
from coco_kp.keyprovider.address import parse_address
from coco_kp.keys.keys_file import list_keys, parse_keys, parse_keys_file_name
from coco_kp.keys.reference import parse_kek_reference, parse_wrapping_reference
from coco_kp.model.algorithm import Algorithm, parse_algorithm
from coco_kp.model.digest import parse_digest
from coco_kp.model.encoding import (
    decode_base64,
    encode_base64,
    parse_json_object,
    write_json,
)
from coco_kp.model.host_port import HostPort
from coco_kp.model.image_config import parse_image_config
from coco_kp.model.kbc_spec import parse_kbc_spec
from coco_kp.model.kbs_url import KbsUrl
from coco_kp.model.layer_options import (
    PrivateOptions,
    PublicOptions,
    parse_private_options,
    parse_public_options,
)
from coco_kp.model.manifest import parse_manifest, parse_platform
from coco_kp.model.packet import AnnotationPacket, PacketVersion, parse_packet
from coco_kp.model.params import parse_params
from coco_kp.model.pattern import parse_pattern
from coco_kp.model.protocol import parse_request
from coco_kp.model.reference import parse_image_reference
from coco_kp.model.resource_uri import ResourceUri, parse_key_id, parse_resource_uri
from tests.property.strategies import (
    IMAGES,
    PACKETS,
    PRIVATE_OPTIONS,
    REQUESTS,
    altered,
    any_text,
    json_objects,
    retyped,
)

PARSERS_OF_TEXT: list[Callable[[str], object]] = [
    parse_params,
    parse_key_id,
    parse_resource_uri,
    parse_keys_file_name,
    parse_kbc_spec,
    parse_address,
    parse_digest,
    parse_image_reference,
    parse_kek_reference,
    parse_wrapping_reference,
    parse_pattern,
    parse_platform,
    KbsUrl.parse,
    lambda text: parse_algorithm(text, "it"),
    lambda text: HostPort.parse(text, "it"),
    lambda text: decode_base64(text, "it"),
    lambda text: parse_json_object(text, "it"),
]

PARSERS_OF_BYTES: list[Callable[[bytes], object]] = [
    parse_packet,
    parse_private_options,
    parse_public_options,
    parse_request,
    parse_manifest,
    parse_image_config,
    lambda data: list_keys(parse_keys(data, "it")),
]


def refuses_in_our_words(parse: Callable[[Any], object], value: object) -> None:
    try:
        parse(value)
    except CocoKpError as error:
        refusal = error
    else:
        return
    assert refusal.exit_code in {2, 3, 4}
    assert str(refusal).isprintable()
    assert 0 < len(str(refusal)) < 1500
    assert not refusal.message.endswith(".")


@pytest.mark.parametrize("parse", PARSERS_OF_TEXT)
@given(any_text)
@example("\ud800")
@example("x" * 100_000)
@example("::" * 50_000)
@example("/" * 50_000)
@example("keyid=" * 20_000)
def test_text_parser_reads_or_refuses_any_text(parse: Callable[[str], object], text: str) -> None:
    refuses_in_our_words(parse, text)


almost = st.text("kbs:/+[]#?=.@% \n\\0aZ9-_", max_size=40)


@pytest.mark.parametrize("parse", PARSERS_OF_TEXT)
@given(almost)
def test_text_parser_reads_or_refuses_nearly_valid_text(
    parse: Callable[[str], object], text: str
) -> None:
    for whole in (text, f"kbs:///{text}", f"keypath=/k::keyid={text}", f"127.0.0.1:{text}"):
        refuses_in_our_words(parse, whole)


@pytest.mark.parametrize("parse", PARSERS_OF_BYTES)
@given(st.binary())
def test_bytes_parser_reads_or_refuses_any_bytes(
    parse: Callable[[bytes], object], data: bytes
) -> None:
    refuses_in_our_words(parse, data)


@pytest.mark.parametrize("parse", PARSERS_OF_BYTES)
@given(json_objects)
def test_bytes_parser_reads_or_refuses_any_json(
    parse: Callable[[bytes], object], document: dict[str, Any]
) -> None:
    refuses_in_our_words(parse, json.dumps(document).encode())


WELL_FORMED = [*PACKETS, PRIVATE_OPTIONS, *REQUESTS, *IMAGES]


@pytest.mark.parametrize("parse", PARSERS_OF_BYTES)
@given(altered(WELL_FORMED) | retyped(WELL_FORMED))
def test_bytes_parser_reads_or_refuses_nearly_valid_documents(
    parse: Callable[[bytes], object], data: bytes
) -> None:
    refuses_in_our_words(parse, data)


@given(st.binary())
def test_base64_round_trips_any_bytes(data: bytes) -> None:
    assert decode_base64(encode_base64(data), "it") == data


@given(st.text("ABab01+/-_= \n", max_size=12))
def test_decode_base64_accepts_canonical_spelling_only(text: str) -> None:
    try:
        data = decode_base64(text, "it")
    except CocoKpError:
        return
    assert encode_base64(data) == text


@given(json_objects)
def test_json_round_trips_any_object(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    assume("NaN" not in text and "Infinity" not in text)  # which Python writes, but JSON has not
    assert parse_json_object(text, "it") == document
    assert parse_json_object(write_json(document), "it") == document


segments = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,10}", fullmatch=True)
resource_uris = st.builds(
    ResourceUri,
    st.just("resource"),
    st.sampled_from(["", "kbs.example", "localhost:8080", "[::1]:1", "10.0.0.1"]),
    st.tuples(segments, segments, segments),
    st.sampled_from(["", "version=2", "a/b?c"]),
) | st.builds(
    ResourceUri,
    st.from_regex(r"(?!resource$)[a-z0-9][a-z0-9.-]{0,9}", fullmatch=True),
    st.just(""),
    st.lists(segments, min_size=1, max_size=5).map(tuple),
)


@given(resource_uris)
def test_key_id_round_trips(uri: ResourceUri) -> None:
    assert parse_key_id(str(uri)) == parse_resource_uri(str(uri)) == uri


@given(any_text | almost)
def test_parse_key_id_result_is_ascii_and_stable(text: str) -> None:
    try:
        uri = str(parse_key_id(text))
    except CocoKpError:
        return
    assert uri.isascii()
    assert uri.isprintable()
    assert str(parse_resource_uri(uri)) == uri


@given(
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=16, max_size=16),
    st.sampled_from(["", "sha256:" + "0" * 64]),
)
def test_private_options_round_trip(key: bytes, nonce: bytes, digest: str) -> None:
    options = PrivateOptions(key, nonce, digest)
    assert parse_private_options(options.to_json()) == options


@given(st.binary(min_size=32, max_size=32))
def test_public_options_round_trip(hmac: bytes) -> None:
    assert parse_public_options(PublicOptions(hmac).to_json()) == PublicOptions(hmac)


@given(
    resource_uris,
    st.binary(min_size=16, max_size=64),
    # not one that an A256GCM packet has when it was rewritten
    st.binary(min_size=16, max_size=16).filter(lambda iv: int.from_bytes(iv[-4:]) >= 1024),
    st.sampled_from(Algorithm),
    st.sampled_from(["v1", "v2"]),
)
def test_packet_round_trips(
    kid: ResourceUri, wrapped: bytes, iv: bytes, algorithm: Algorithm, version: PacketVersion
) -> None:
    packet = AnnotationPacket(kid, wrapped, iv[: algorithm.iv_size], algorithm)
    assert parse_packet(packet.to_json(version)) == packet
