from __future__ import annotations

import contextlib
import json
import time
import tracemalloc
from base64 import b64encode, urlsafe_b64encode
from typing import Any

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

MIB = 1024 * 1024


@pytest.mark.parametrize("size", [*range(7), 31, 32, 33, 4096])
def test_base64_round_trips_data_of_any_size(size: int) -> None:
    data = bytes(number * 37 % 256 for number in range(size))
    assert decode_base64(encode_base64(data), "it") == data


BASE64_THAT_SOME_READER_REFUSES = {
    "no padding": "AAE",
    "only padding": "====",
    "padding in the middle": "AA==AAEC",
    "text behind the padding": "AAE=x",
    "a line break": "AAEC\n",
    "a carriage return in the middle": "AA\rEC",
    "a space": "AAEC ",
    "the other alphabet": urlsafe_b64encode(b"\xfb\xff\xbe").decode(),
    "not ASCII": "ÄÄÄÄ",
    "half a surrogate pair": "\ud800AAA",
}


@pytest.mark.parametrize(
    "text", BASE64_THAT_SOME_READER_REFUSES.values(), ids=BASE64_THAT_SOME_READER_REFUSES
)
def test_decode_base64_refuses_text_that_some_reader_refuses(text: str) -> None:
    with pytest.raises(InputError, match="^the value is not base64 ") as error:
        decode_base64(text, "the value")
    assert text not in str(error.value)


# Python's decoder takes these, in some versions.
@pytest.mark.parametrize("text", ["AAF=", "AB==", "AAAAAP==", "AAEC=", "AAEC=="])
def test_decode_base64_refuses_text_that_is_not_canonical(text: str) -> None:
    with pytest.raises(InputError, match="^the value is not (canonical )?base64 "):
        decode_base64(text, "the value")


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


def test_parse_json_object_refuses_lone_surrogate_in_text() -> None:
    with pytest.raises(InputError, match="not valid JSON"):
        parse_json_object('{"a":"\ud800"}', "it")


@pytest.mark.parametrize("document", [b"[]", b'"text"', b"1", b"null", b"true"])
def test_parse_json_object_refuses_json_that_is_not_an_object(document: bytes) -> None:
    with pytest.raises(InputError, match=r"^it is not a JSON object$"):
        parse_json_object(document, "it")


@pytest.mark.parametrize("document", ['{"a":1,"a":1}', '{"b":[{"a":1,"\\u0061":2}]}'])
def test_parse_json_object_refuses_duplicate_member_at_any_depth(document: str) -> None:
    with pytest.raises(InputError, match=r"^it has the member 'a' twice$"):
        parse_json_object(document, "it")


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


@pytest.mark.parametrize(
    ("value", "kind", "name"),
    [
        (1, str, "a string"),
        ([], dict, "an object"),
        ({}, list, "an array"),
        ("1", int, "an integer"),
        (True, int, "an integer"),
        (1, bool, "true or false"),
        (None, str, "a string"),
    ],
)
def test_member_refuses_value_of_another_type(value: Any, kind: type, name: str) -> None:
    with pytest.raises(InputError, match=f"^'a' of the document is not {name}$"):
        member({"a": value}, "a", kind, "the document")


def test_member_returns_value_or_names_missing_member() -> None:
    assert member({"a": "b"}, "a", str, "the document") == "b"
    assert member({"a": False}, "a", bool, "the document") is False
    with pytest.raises(InputError, match=r"^the document has no 'b'$"):
        member({"a": 1}, "b", int, "the document")


def test_encode_base64_uses_standard_alphabet() -> None:
    assert encode_base64(b"\xfb\xff\xbe") == b64encode(b"\xfb\xff\xbe").decode() == "+/++"


class TestOneReading:
    KNOWN = ("layers", "config", "kid")

    @pytest.mark.parametrize(
        "name", ["Layers", "LAYERS", "layer\u017f", "Config", "KID", "\u212aid"]
    )
    def test_known_member_in_another_case_is_refused(self, name: str) -> None:
        with pytest.raises(InputError, match="some readers take for"):
            check_one_reading({name: 1}, self.KNOWN, "it")

    @pytest.mark.parametrize("names", [("layers", "Layers"), ("other", "Other"), ("\u017f", "S")])
    def test_members_that_differ_in_case_only_are_refused(self, names: tuple[str, str]) -> None:
        with pytest.raises(InputError, match="differ in case only"):
            check_one_reading(dict.fromkeys(names), self.KNOWN, "it")

    def test_other_members_are_free(self) -> None:
        check_one_reading({"layers": {"Layers": 1, "layers": 2}, "x": 1}, self.KNOWN, "it")


class TestLenientObject:
    @pytest.mark.parametrize(
        "data",
        [
            rb'{"labels": {"a": "\ud83d"}}',
            b'{"labels": {"a": "\xe9"}}',
            b'{"labels": {"a": 1, "a": 2}, "labels": {}}',
            b'{"labels": {"a": "\xef\xbb\xbf"}}',
        ],
    )
    def test_what_other_readers_take_is_taken(self, data: bytes) -> None:
        parse_lenient_object(data, "it", 1000)

    @pytest.mark.parametrize("data", [b"\xef\xbb\xbf{}", b"{", b"[]", b'{"a": NaN}', b"[" * 500])
    def test_what_no_reader_takes_is_refused(self, data: bytes) -> None:
        with pytest.raises(InputError):
            parse_lenient_object(data, "it", 1000)

    def test_known_member_must_stand_once_and_be_spelled_right(self) -> None:
        for data in (b'{"os": 1, "os": 1}', b'{"OS": 1}', b'{"os": 1, "o\xc5\xbf": 1}'):
            document = parse_lenient_object(data, "it", 1000)
            with pytest.raises(InputError):
                check_known_once(document, ("os",), "it")
            check_known_once(document, ("rootfs",), "it")


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_parse_json_object_refuses_number_out_of_range(number: str) -> None:
    with pytest.raises(InputError, match="not valid JSON"):
        parse_json_object(f'{{"a": {number}}}', "it")
