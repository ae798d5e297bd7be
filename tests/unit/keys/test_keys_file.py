from __future__ import annotations

import hashlib
import json
import multiprocessing
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest

from coco_kp.crypto import Kek
from coco_kp.errors import InputError, KekError, RefusedError
from coco_kp.keys import keys_file
from coco_kp.keys.keys_file import (
    MAX_KEYS_FILE,
    add_kek,
    find_kek,
    format_keys,
    generate_keys,
    list_keys,
    parse_keys,
    parse_keys_file_name,
    read_keys,
)
from coco_kp.model.resource_uri import parse_key_id
from tests.support.refusals import refusals

RAW = bytes(range(0x20, 0x40))
TEXT = b64encode(RAW).decode()
KID = parse_key_id("kbs:///default/key/key_id1")


def test_generate_keys_uses_upstream_names_and_distinct_keys() -> None:
    keys = generate_keys("default", 10)
    assert list(keys) == [f"default/key/key_id{number}" for number in range(1, 11)]
    assert len({b64decode(key, validate=True) for key in keys.values()}) == 10
    assert {len(b64decode(key)) for key in keys.values()} == {32}


test_generate_keys_refuses_repository_that_no_key_id_can_have = refusals(
    lambda repository: generate_keys(repository, 1),
    {"cannot be used": ["", "a/b", "../x", "a b", "ä", "a\n"]},
)


def test_format_keys_writes_file_as_upstream_does() -> None:
    text = format_keys({"a/b/1": "AA==", "a/b/2": "AQ=="})
    assert text == b'{\n  "a/b/1": "AA==",\n  "a/b/2": "AQ=="\n}\n'


@pytest.mark.parametrize(
    ("text", "kid"),
    [
        ("default/key/key_id1", "kbs:///default/key/key_id1"),
        ("/default/key/key_id1", "kbs:///default/key/key_id1"),
        ("kbs:///default/key/key_id1", "kbs:///default/key/key_id1"),
        ("kbs://kbs.example/default/key/key_id1", "kbs://kbs.example/default/key/key_id1"),
    ],
)
def test_parse_keys_file_name_reads_names_from_files_and_packets(text: str, kid: str) -> None:
    uri = parse_keys_file_name(text)
    assert str(uri) == kid
    assert find_kek({"default/key/key_id1": TEXT}, uri, "the file").raw() == RAW


test_parse_keys_file_name_refuses_malformed_name = refusals(
    parse_keys_file_name,
    {"cannot be used": ["", "key_id1", "default/key", "a/b/c/d", "default/key/key id1"]},
)


@pytest.mark.parametrize("kid", ["kbs://h:1/a/b/c", "kbs+x:///a/b/c", "kbs:///a/b/c?q=1"])
def test_find_kek_ignores_host_plugin_and_query_of_key_id(kid: str) -> None:
    assert find_kek({"a/b/c": TEXT}, parse_key_id(kid), "it").raw() == RAW


test_find_kek_reports_missing_or_malformed_key = refusals(
    lambda keys: find_kek(keys, KID, "the file"),
    {
        "there is no key 'default/key/key_id1' in the file": [{}, {"/default/key/key_id1": TEXT}],
        "'default/key/key_id1' of the file is not base64": [
            *({KID.path: "?"}, {KID.path: TEXT + "\n"})
        ],
        "expected a 32-byte key in 'default/key/key_id1' of the file, found 16 bytes": [
            {KID.path: b64encode(RAW[:16]).decode()}
        ],
    },
    raises=KekError,
    exact=True,
)


test_parse_keys_refuses_malformed_file = refusals(
    lambda data: parse_keys(data, "the keys file"),
    {
        "the keys file is not valid JSON": [b""],
        "the keys file is not a JSON object": [b"[]"],
        "the member 'a/b/c' of the keys file is not a string": [
            *(b'{"a/b/c":1}', b'{"a/b/c":{"k":"v"}}')
        ],
        "the keys file has the member 'a/b/c' twice": [b'{"a/b/c":"AA==","a/b/c":"AQ=="}'],
        "more than the 4194304 allowed": [b" " * (MAX_KEYS_FILE + 1)],
    },
)


def test_read_keys_raises_kek_error_for_missing_file(tmp_path: Path) -> None:
    with pytest.raises(KekError, match="no such file"):
        read_keys(tmp_path / "absent")


def test_read_keys_warns_once_about_file_that_others_may_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.json"
    file.write_text("{}")
    file.chmod(0o600)
    read_keys(file)
    assert not caplog.messages
    file.chmod(0o602)
    for _ in range(3):
        read_keys(file)
    assert caplog.messages == [f"others may change the keys file '{file}': chmod 600 it"]


def test_list_keys_returns_names_with_fingerprint_or_fault() -> None:
    rows = list_keys({"default/key/1": TEXT, "bare": TEXT, "a/b/2": "AA==", "a/b/3": "?"})
    fingerprint = "sha256:" + hashlib.sha256(RAW).hexdigest()[:16]
    assert rows == [
        ("kbs:///default/key/1", fingerprint),
        ("bare", fingerprint),
        ("kbs:///a/b/2", "not a 32-byte key in base64"),
        ("kbs:///a/b/3", "not a 32-byte key in base64"),
    ]


def test_list_keys_hides_key_in_place_of_name() -> None:
    assert list_keys({TEXT: "default/key/1"}) == [
        ("(44 characters that look like a key)", "not a 32-byte key in base64")
    ]


def test_list_keys_replaces_control_characters() -> None:
    assert list_keys({"\x1b[2J": TEXT})[0][0] == "'?[2J'"


def test_add_kek_keeps_every_other_member(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    add_kek(file, KID, Kek(RAW), replace=False)
    assert json.loads(file.read_bytes()) == {KID.path: TEXT}
    assert file.stat().st_mode & 0o777 == 0o600
    others = {"z": "not a key", "default/key/0": TEXT, "ä": ""}
    file.write_text(json.dumps(others))
    add_kek(file, KID, Kek(RAW), replace=False)
    assert list(json.loads(file.read_bytes()).items()) == [*others.items(), (KID.path, TEXT)]


def test_add_kek_replaces_key_only_with_replace(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    old = {KID.path: b64encode(bytes(32)).decode(), "x": "y"}
    file.write_text(json.dumps(old))
    with pytest.raises(RefusedError, match="has a key 'default/key/key_id1'") as error:
        add_kek(file, KID, Kek(RAW), replace=False)
    assert error.value.code == "keys-file-has-key"
    assert json.loads(file.read_bytes()) == old
    add_kek(file, KID, Kek(RAW), replace=True)
    assert json.loads(file.read_bytes()) == old | {KID.path: TEXT}


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a":1}', b'{"a":"b","a":"c"}'])
def test_add_kek_leaves_malformed_file_unchanged(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(content)
    with pytest.raises(InputError):
        add_kek(file, KID, Kek(RAW), replace=True)
    assert file.read_bytes() == content


def test_add_kek_makes_no_file_that_is_too_long_to_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.json"
    monkeypatch.setattr(keys_file, "MAX_KEYS_FILE", 200)
    for number in (1, 2):
        uri = parse_key_id(f"kbs:///default/key/{number}")
        add_kek(path, uri, Kek.generate(), replace=False)
    before = path.read_bytes()
    with pytest.raises(InputError, match="no room for another key"):
        add_kek(path, parse_key_id("kbs:///default/key/3"), Kek.generate(), replace=False)
    assert path.read_bytes() == before
    assert len(read_keys(path)) == 2


def test_add_kek_reports_file_that_cannot_be_examined(tmp_path: Path) -> None:
    with pytest.raises(KekError, match="file name too long"):
        add_kek(tmp_path / ("x" * 300), KID, Kek(RAW), replace=False)


def test_add_kek_writes_through_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "keys.json").symlink_to("real/keys.json")
    for name in ("a/b/1", "a/b/2"):
        add_kek(tmp_path / "keys.json", parse_keys_file_name(name), Kek(RAW), replace=False)
    assert (tmp_path / "keys.json").is_symlink()
    assert list(read_keys(tmp_path / "real" / "keys.json")) == ["a/b/1", "a/b/2"]


def add_many(file: Path, first: int, ready: Any) -> None:
    ready.wait()
    for number in range(first, first + 20):
        add_kek(file, parse_key_id(f"/a/b/{number}"), Kek(RAW), replace=False)


def test_add_kek_in_parallel_loses_no_key(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(3, timeout=60)
    firsts = (100, 200, 300)
    processes = [context.Process(target=add_many, args=(file, first, ready)) for first in firsts]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    expected = {f"a/b/{first + number}" for first in firsts for number in range(20)}
    assert read_keys(file).keys() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]
