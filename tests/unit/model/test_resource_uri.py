from __future__ import annotations

import pytest

from coco_kp.errors import InputError
from coco_kp.model.resource_uri import (
    MAX_LENGTH,
    ResourceUri,
    parse_key_id,
    parse_resource_path,
    parse_resource_uri,
)
from tests.support.refusals import refusals
from tests.vectors import load_vectors

VECTORS = load_vectors("keyids")


@pytest.mark.parametrize(("text", "canonical"), VECTORS["accept"])
def test_parse_key_id_returns_canonical_uri(text: str, canonical: str) -> None:
    assert str(parse_key_id(text)) == canonical
    assert str(parse_resource_uri(canonical)) == canonical  # what a packet carries is read again


test_parse_key_id_refuses_known_bad_ids = refusals(
    parse_key_id, {"cannot be used": VECTORS["reject"]}, hint_has="kbs:///<repository>/<type>/<tag>"
)


test_parse_key_id_refusal_says_why = refusals(
    parse_key_id,
    {
        "it is empty": [""],
        "it has none of the accepted forms": ["key_id1"],
        "it has neither a scheme nor a leading slash": ["default/key/1"],
        "its scheme is not kbs or kbs+<plugin>": [
            *("https://h/a/b/c", "\N{KELVIN SIGN}bs:///a/b/c", "kbs+:///a/b/c", "kbs+a/b:///a/b/c")
        ],
        "a fragment has no meaning in it": ["kbs:///a/b/c#f"],
        "its query is empty or has a character that must be %-encoded": [
            *("kbs:///a/b/c?", "kbs:///a/b/c?x y")
        ],
        "its path must have three parts, not 2": ["kbs:///a/b"],
        "its path must have three parts, not 4": ["kbs:///a/b/c/d"],
        "it has no path": ["kbs+vault://h"],
        "the part '%2e%2e' is not letters": ["kbs:///a/%2e%2e/c"],
        "the part '.b' is not letters": ["kbs:///a/.b/c"],
        "the part 'c?' is not letters": ["kbs:///a/b/c\n"],
        "is not letters": ["kbs:///a/b/\N{DEVANAGARI DIGIT ONE}"],
        "'h:0' is not host, host:port or [IPv6]:port": ["kbs://h:0/a/b/c"],
        "'h:' is not host, host:port or [IPv6]:port": ["kbs://h:/a/b/c"],
        "the port 65536 is greater than 65535": ["kbs://h:65536/a/b/c"],
        "'user@h' is not host, host:port or [IPv6]:port": ["kbs://user@h/a/b/c"],
        "'::1' is not host, host:port or [IPv6]:port": ["kbs://::1/a/b/c"],
        "'[1::2::3]' is not an IPv6 address": ["kbs://[1::2::3]/a/b/c"],
        "is not host, host:port or [IPv6]:port": ["kbs://[fe80::1%25eth0]/a/b/c"],
        f"it has more than {MAX_LENGTH} characters": [f"kbs:///a/b/{'c' * MAX_LENGTH}"],
        **{
            f"key ID '{text}' cannot be used": [text]
            for text in ("/a/b", "kbs.example/a/b/c d", "KBS:///a/b", "key_id")
        },
    },
)


KEY = "orGVItV-fv0V8lvggOgU-1BIgRso8CNCaZw8INuIKMg"
HEX = "a2b19522d57e7efd15f25be080e814fb5048811b28f02342699c3c20db8828c8"


@pytest.mark.parametrize("key", [KEY, HEX, HEX.upper()])
@pytest.mark.parametrize("form", ["/a/b/{}", "kbs:///{}/b/c", "h/a/{}/c", "kbs+p:///a?k={}"])
def test_parse_key_id_refuses_id_that_holds_key(form: str, key: str) -> None:
    with pytest.raises(InputError, match="everybody who has the image can read it") as error:
        parse_key_id(form.format(key))
    assert key[:20] not in str(error.value)


def test_parse_resource_uri_reads_id_that_looks_like_key_as_packets_may_have_it() -> None:
    assert parse_resource_uri(f"kbs:///a/b/{HEX}").path == f"a/b/{HEX}"


@pytest.mark.parametrize("tag", ["0b6ac5a0-6d2e-4a11-8d1c-3f7f0b8d9a10", f"{HEX[:40]}", "A1" * 16])
def test_parse_key_id_reads_other_long_names(tag: str) -> None:
    assert parse_key_id(f"/default/image-kek/{tag}").segments[2] == tag


def test_parse_resource_path_reads_bare_path() -> None:
    assert parse_resource_path("default/key/1") == parse_key_id("/default/key/1")


test_parse_resource_path_refuses_other_text = refusals(
    parse_resource_path,
    {
        f"key ID '{text}' cannot be used": [text]
        for text in ("key_id1", "a/b", "/a/b/c", "a/b/c/", "h/a/b/c")
    },
)


test_parse_resource_uri_requires_kbs_scheme = refusals(
    lambda text: (parse_key_id(text), parse_resource_uri(text)),
    {"its scheme is not kbs": ["/default/key/1", "kbs.example/default/key/1"]},
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kbs:///a/b/c", ResourceUri("resource", "", ("a", "b", "c"))),
        ("KBS+Resource:///a/b/c", ResourceUri("resource", "", ("a", "b", "c"))),
        ("KBS+Vault://h:1/a?x=%20/?", ResourceUri("vault", "h:1", ("a",), "x=%20/?")),
        ("kbs://[0:0::1]/_/-/a.b-c", ResourceUri("resource", "[::1]", ("_", "-", "a.b-c"))),
        ("KBS.Example/a/b/c", ResourceUri("resource", "KBS.Example", ("a", "b", "c"))),
    ],
)
def test_parse_key_id_splits_id_into_parts(text: str, expected: ResourceUri) -> None:
    assert parse_key_id(text) == expected


def test_resource_uri_path_excludes_host_plugin_and_query() -> None:
    assert parse_key_id("kbs+x://h:1/a/b?q=1").path == "a/b"


def test_parse_resource_uri_reads_longest_one() -> None:
    text = "kbs:///a/b/" + "c" * (MAX_LENGTH - len("kbs:///a/b/"))
    assert str(parse_resource_uri(text)) == text
    with pytest.raises(InputError, match="more than"):
        parse_resource_uri(text + "c")
