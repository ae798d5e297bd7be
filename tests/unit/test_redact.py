"""Words of others: no character gets through that draws on a terminal, and no key."""

from __future__ import annotations

import json
import time
import unicodedata
from base64 import b64encode, urlsafe_b64encode

import pytest

from coco_kp.cli.output import print_json, say
from coco_kp.cli.table import print_table
from coco_kp.errors import CocoKpError
from coco_kp.redact import masked, printable, printable_json, printable_lines, redacted, shown

DRAWS = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *map(chr, range(0x202A, 0x202F)),  # embeddings and overrides of direction
    *map(chr, range(0x2066, 0x206A)),  # isolates
    *("\u200e", "\u200f", "\u061c", "\u2028", "\u2029", "\ufeff", "\U000e0041"),
    *("\ud800", "\udfff"),
]
KEY = "orGVItV+fv0V8lvggOgU+1BIgRso8CNCaZw8INuIKMg="
HEX = "a2b19522d57e7efd15f25be080e814fb5048811b28f02342699c3c20db8828c8"
RAW = bytes(range(200, 232))
PADDED = b64encode(RAW).decode()


@pytest.mark.parametrize("character", DRAWS, ids=lambda character: f"{ord(character):x}")
def test_character_that_draws_is_in_no_output(
    capsys: pytest.CaptureFixture[str], character: str
) -> None:
    text = f"a{character}b"
    assert printable(text) == redacted(text) == str(CocoKpError(text)) == "a?b"
    assert CocoKpError("", text).hint == "a?b"
    say(text)
    print_table(["A"], [[text]])
    print_json({text: [text]})
    said, heading, cell, *document = capsys.readouterr().out.splitlines()
    assert (said, heading, cell) == ("a?b", "A", "a?b")
    assert json.loads("".join(document)) == {text: [text]}
    assert "".join(document).isprintable()


def test_text_of_all_scripts_is_kept() -> None:
    text = "Grüße, 世界, שלום, 🔑"
    assert printable(text) == redacted(text) == text
    assert printable_json({text: 1}) == f'{{"{text}": 1}}'


def test_json_that_is_indented_keeps_its_line_feeds_alone() -> None:
    text = printable_json({"a": "\n\u202e", "b": []}, indent=1)
    assert text == '{\n "a": "\\n\\u202e",\n "b": []\n}'


def test_printable_lines_keep_line_feeds_and_nothing_else() -> None:
    assert printable_lines("a\x1b\nb\r\n\u2028") == "a?\nb?\n?"


def test_no_control_or_format_character_is_printable() -> None:
    every = "".join(map(chr, range(0x110000)))
    kept = {unicodedata.category(character) for character in set(printable(every))}
    assert not kept & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize("key", [KEY, KEY[:-1], HEX, HEX.upper()])
def test_key_in_an_error_is_masked(key: str) -> None:
    error = CocoKpError(f"'/keys/{key}' is not there", f"give {key}")
    assert str(error).count("(what looks like a key)") == 2
    assert key[:20] not in str(error)
    assert key[:20] not in error.args[0]


@pytest.mark.parametrize("text", [f"--{KEY[:-1]}", f"x{HEX}", f"{KEY[:-1]}x", f"--a={KEY}"])
def test_key_with_words_around_it_is_masked_in_usage_errors(text: str) -> None:
    assert KEY[:20] not in masked(text)
    assert HEX[:20] not in masked(text)


def test_digest_is_no_key() -> None:
    text = f"the blob sha256:{HEX} is at https://registry.example/v2/a/blobs/sha256:{HEX}"
    assert redacted(text) == text


@pytest.mark.parametrize(
    "value",
    [
        "",
        "key_id1",
        "/home/ä/keys and more/key",
        "/srv/confidential-images/keys/of/the/base/1",  # 43 characters, as a key has
        "/srv/Confidential-Images/keys/of/the/base/k",
        "kbs:///default/key/key_id1",
        "docker://registry.example/image@sha256:" + RAW.hex(),
        "oci:/images/base/blobs/sha256/" + RAW.hex(),
        RAW.hex() + "0",
        PADDED[:42],
        "x" * 120,
    ],
)
def test_shown_quotes_value(value: str) -> None:
    assert shown(value) == f"'{value}'"


@pytest.mark.parametrize(
    "key",
    [
        PADDED,
        PADDED.rstrip("="),
        urlsafe_b64encode(RAW).decode(),
        urlsafe_b64encode(RAW).decode().rstrip("="),
        RAW.hex(),
        RAW.hex().upper(),
    ],
)
@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "key={}",
        "'{}'",
        "{}\n",
        "a word, {} and others",
        "é{}",
        "/k/{}",
        "kbs:///a/b/{}",
        "kbs://{}/a/b",
    ],
)
def test_shown_hides_value_that_could_hold_a_key(key: str, form: str) -> None:
    value = form.format(key)
    assert shown(value) == f"({len(value)} characters that look like a key)"


@pytest.mark.parametrize("form", ["/run/keys/{}", "kbs:///default/key/{}", "x" * 110 + "{}"])
def test_shown_hides_padded_key_wherever_it_stands(form: str) -> None:
    assert PADDED[:10] not in shown(form.format(PADDED))


def test_shown_hides_key_that_begins_near_the_cut() -> None:
    value = "-" * 100 + " " + RAW.hex()
    assert RAW.hex()[:10] not in shown(value)


def test_shown_hides_part_of_what_could_be_a_key() -> None:
    key = "QUtgNcL7Y/yghNM5KsJTZKJ7ITXNwYV90ZFdogqZXc8="
    assert shown("QUtgNcL7Y", key) == "(9 characters that look like a key)"
    assert shown("yghNM5", "x" * 1000 + f" {key}") == "(6 characters that look like a key)"
    assert shown("b c", "kbs:///a/b c/d") == "'b c'"


def test_shown_truncates_long_value() -> None:
    assert shown("y" * 121) == f"'{'y' * 120}…'"
    began = time.process_time()
    assert len(shown("y" * 4_000_000)) == 123
    assert time.process_time() - began < 1  # what is not shown is not searched


@pytest.mark.parametrize(
    "character",
    ["\n", "\r", "\t", "\0", "\x1b", "\x7f", "\x9b", "\N{RIGHT-TO-LEFT OVERRIDE}", "\ud800"],
)
def test_shown_replaces_control_characters(character: str) -> None:
    assert shown(f"a{character}b") == "'a?b'"
