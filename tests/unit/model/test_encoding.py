from __future__ import annotations

import contextlib
import json
import time
import tracemalloc
from base64 import b64encode, urlsafe_b64encode

import pytest

from coco_kp.errors import InputError
from coco_kp.model.encoding import (
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_MESSAGE,
    check_known_once,
    check_one_reading,
    decode_base64,
    encode_base64,
    member,
    parse_json_object,
    parse_lenient_object,
    write_json,
)
from tests.support.refusals import refusals

MIB = 1024 * 1024


@pytest.mark.parametrize("size", [*range(7), 31, 32, 33, 4096])
def test_base64_round_trips_data_of_any_size(size: int) -> None:
    data = bytes(number * 37 % 256 for number in range(size))
    assert decode_base64(encode_base64(data), "it") == data


test_decode_base64_refuses_text_that_some_reader_refuses = refusals(
    lambda text: decode_base64(text, "the value"),
    {
        "the value is not base64": [
            *("AAE", "====", "AA==AAEC", "AAE=x", "AAEC\n", "AA\rEC", "AAEC ", "ÄÄÄÄ", "\ud800AAA"),
            urlsafe_b64encode(b"\xfb\xff\xbe").decode(),
        ],
        "the value is not canonical base64": ["AAF=", "AB==", "AAAAAP=="],
    },
    exact=True,
)

test_decode_base64_refuses_text_that_is_not_canonical = refusals(
    lambda text: decode_base64(text, "the value"),
    {"base64": ["AAEC=", "AAEC=="]},  # which Python's decoder takes, in some versions
)


def test_parse_json_object_reads_bytes_and_text() -> None:
    text = '{"a":[1,-2.5,true,null],"ä":{"":"\\ud83d\\ude00/"}}'
    expected = {"a": [1, -2.5, True, None], "ä": {"": "😀/"}}
    assert parse_json_object(text.encode(), "it") == expected
    assert parse_json_object(text, "it") == expected


NO_JSON = {
    "nothing": b"",
    "words": b"kid=kbs:///default/key/1",
    "two documents": b"{}{}",
    "a comma too many": b'{"a":1,}',
    "single quotes": b"{'a':1}",
    "a control character": b'{"a":"\n"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "Latin-1": b'{"a":"\xe4"}',
    "an encoded surrogate": b'{"a":"\xed\xa0\x80"}',
    "half a surrogate pair as a value": b'{"a":"\\ud800"}',
    "half a surrogate pair as a name": b'{"\\udc00":1}',
    "a surrogate pair the wrong way round": b'{"a":["\\ude00\\ud83d"]}',
    "not a number": b'{"a":NaN}',
    "infinity": b'{"a":-Infinity}',
    "a number of too many digits": b'{"a":' + b"1" * 5000 + b"}",
    "depth": b'{"a":' * 100_000,
}


@pytest.mark.parametrize("data", NO_JSON.values(), ids=NO_JSON)
def test_parse_json_object_refuses_invalid_json_without_quoting_it(data: bytes) -> None:
    with pytest.raises(InputError) as error:
        parse_json_object(data, "the document")
    assert str(error.value) == "the document is not valid JSON"
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__  # a traceback would quote the document too


test_parse_json_object_refuses_other_documents = refusals(
    lambda document: parse_json_object(document, "it"),
    {
        "it is not valid JSON": ['{"a":"\ud800"}', '{"a": 1e999}', '{"a": -1e999}'],
        "it is not a JSON object": [b"[]", b'"text"', b"1", b"null", b"true"],
        "it has the member 'a' twice": ['{"a":1,"a":1}', '{"b":[{"a":1,"\\u0061":2}]}'],
    },
    exact=True,
)


def test_parse_json_object_finds_duplicate_among_many_members_in_linear_time() -> None:
    names = [f'"{number}":0' for number in range(200_000)]
    document = "{" + ",".join([*names, names[-1]]) + "}"
    began = time.process_time()
    with pytest.raises(InputError, match="'199999' twice"):
        parse_json_object(document, "it")
    assert time.process_time() - began < 10  # when each was compared with all others: minutes


def nested(levels: int, innermost: str = "") -> str:
    return '{"a":' + "[" * (levels - 1) + innermost + "]" * (levels - 1) + "}"


@pytest.mark.parametrize("innermost", ["", "1"])
def test_parse_json_object_limits_nesting_depth(innermost: str) -> None:
    parse_json_object(nested(MAX_DEPTH, innermost), "it")
    with pytest.raises(InputError, match="not valid JSON"):
        parse_json_object(nested(MAX_DEPTH + 1, innermost), "it")


def test_parse_json_object_limits_size() -> None:
    document = b'{"a":"' + b"x" * 92 + b'"}'
    assert parse_json_object(document, "it", 100) == {"a": "x" * 92}
    with pytest.raises(InputError, match=r"^it has 100 bytes, more than the 99 allowed$"):
        parse_json_object(document, "it", 99)
    with pytest.raises(InputError, match=f"{MAX_MESSAGE + 1} bytes"):
        parse_json_object(b" " * (MAX_MESSAGE + 1), "it")


def test_parse_json_object_limits_number_of_objects_and_arrays() -> None:
    document = '{"a":[' + ",".join(["{}"] * (MAX_CONTAINERS - 2)) + "%s]}"
    parse_json_object(document % "", "it")
    with pytest.raises(InputError, match=r"^it has more than 100000 objects and arrays$"):
        parse_json_object(document % ",[]", "it")


COSTLY = {
    "objects": b'{"a":1},',
    "arrays": b"[],",
    "arrays in arrays": b"[[]],",
    "numbers": b"300,",
    "strings": b'"ab",',
}


@pytest.mark.parametrize("element", COSTLY.values(), ids=COSTLY)
def test_parse_json_object_limits_memory(element: bytes) -> None:
    document = b'{"a":[' + element * ((MAX_MESSAGE - 10) // len(element)) + b"0]}"
    tracemalloc.start()
    try:
        with contextlib.suppress(InputError):
            parse_json_object(document, "it")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 80 * MIB


def test_write_json_is_compact_and_ordered_with_plain_slashes() -> None:
    document = {"kid": "kbs:///ä", "b": [1, None], "a": {}}
    assert write_json(document) == '{"kid":"kbs:///ä","b":[1,null],"a":{}}'.encode()
    assert json.loads(write_json(document)) == document


test_member_refuses_value_of_another_type = refusals(
    lambda row: member({"a": row[0]}, "a", row[1], "the document"),
    {
        "'a' of the document is not a string": [(1, str), (None, str)],
        "'a' of the document is not an object": [([], dict)],
        "'a' of the document is not an array": [({}, list)],
        "'a' of the document is not an integer": [("1", int), (True, int)],
        "'a' of the document is not true or false": [(1, bool)],
    },
    exact=True,
)


def test_member_returns_value_or_names_missing_member() -> None:
    assert member({"a": "b"}, "a", str, "the document") == "b"
    assert member({"a": False}, "a", bool, "the document") is False
    with pytest.raises(InputError, match=r"^the document has no 'b'$"):
        member({"a": 1}, "b", int, "the document")


def test_encode_base64_uses_standard_alphabet() -> None:
    assert encode_base64(b"\xfb\xff\xbe") == b64encode(b"\xfb\xff\xbe").decode() == "+/++"


test_known_member_in_another_case_and_members_that_differ_in_case_only_are_refused = refusals(
    lambda names: check_one_reading(dict.fromkeys(names), ("layers", "config", "kid"), "it"),
    {
        "which some readers take for 'layers'": [["Layers"], ["LAYERS"], ["layer\u017f"]],
        "which some readers take for 'config'": [["Config"]],
        "which some readers take for 'kid'": [["KID"], ["\u212aid"]],
        "it has members that differ in case only": [
            *(("layers", "Layers"), ("other", "Other"), ("\u017f", "S"))
        ],
    },
)


def test_other_members_are_free() -> None:
    check_one_reading({"layers": {"Layers": 1, "layers": 2}, "x": 1}, ("layers",), "it")


@pytest.mark.parametrize(
    "data",
    [
        rb'{"labels": {"a": "\ud83d"}}',
        b'{"labels": {"a": "\xe9"}}',
        b'{"labels": {"a": 1, "a": 2}, "labels": {}}',
        b'{"labels": {"a": "\xef\xbb\xbf"}}',
    ],
)
def test_lenient_object_takes_what_other_readers_take(data: bytes) -> None:
    check_known_once(parse_lenient_object(data, "it", 1000), ("rootfs",), "it")


test_lenient_object_refuses_what_no_reader_takes = refusals(
    lambda data: check_known_once(parse_lenient_object(data, "it", 1000), ("os",), "it"),
    {
        "it begins with a byte order mark, which most readers refuse": [b"\xef\xbb\xbf{}"],
        "it is not a JSON object": [b"[]"],
        "it is not valid JSON": [b"{", b'{"a": NaN}', b"[" * 500],
        "it has the member 'os' twice": [b'{"os": 1, "os": 1}'],
        "which some readers take for 'os'": [b'{"OS": 1}', b'{"os": 1, "o\xc5\xbf": 1}'],
    },
)
