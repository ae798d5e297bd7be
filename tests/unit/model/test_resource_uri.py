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
from tests.vectors import load_vectors

VECTORS = load_vectors("keyids")


@pytest.mark.parametrize(("text", "canonical"), VECTORS["accept"])
def test_parse_key_id_returns_canonical_uri(text: str, canonical: str) -> None:
    assert str(parse_key_id(text)) == canonical
    assert str(parse_resource_uri(canonical)) == canonical  # what a packet carries is read again


@pytest.mark.parametrize("text", VECTORS["reject"])
def test_parse_key_id_refuses_known_bad_ids(text: str) -> None:
    with pytest.raises(InputError) as error:
        parse_key_id(text)
    assert error.value.exit_code == 3
    assert "kbs:///<repository>/<type>/<tag>" in error.value.hint


REFUSALS = {
    "": "it is empty",
    "key_id1": "it has none of the accepted forms",
    "default/key/1": "it has neither a scheme nor a leading slash",
    "https://h/a/b/c": "its scheme is not kbs or kbs+<plugin>",
    "\N{KELVIN SIGN}bs:///a/b/c": "its scheme is not kbs or kbs+<plugin>",
    "kbs+:///a/b/c": "its scheme is not kbs or kbs+<plugin>",
    "kbs+a/b:///a/b/c": "its scheme is not kbs or kbs+<plugin>",
    "kbs:///a/b/c#f": "a fragment has no meaning in it",
    "kbs:///a/b/c?": "its query is empty or has a character that must be %-encoded",
    "kbs:///a/b/c?x y": "its query is empty or has a character that must be %-encoded",
    "kbs:///a/b": "its path must have three parts, not 2",
    "kbs:///a/b/c/d": "its path must have three parts, not 4",
    "kbs+vault://h": "it has no path",
    "kbs:///a/%2e%2e/c": "the part '%2e%2e' is not letters",
    "kbs:///a/.b/c": "the part '.b' is not letters",
    "kbs:///a/b/c\n": "the part 'c?' is not letters",
    "kbs:///a/b/\N{DEVANAGARI DIGIT ONE}": "is not letters",
    "kbs://h:0/a/b/c": "'h:0' is not host, host:port or [IPv6]:port",
    "kbs://h:/a/b/c": "'h:' is not host, host:port or [IPv6]:port",
    "kbs://h:65536/a/b/c": "the port 65536 is greater than 65535",
    "kbs://user@h/a/b/c": "'user@h' is not host, host:port or [IPv6]:port",
    "kbs://::1/a/b/c": "'::1' is not host, host:port or [IPv6]:port",
    "kbs://[1::2::3]/a/b/c": "'[1::2::3]' is not an IPv6 address",
    "kbs://[fe80::1%25eth0]/a/b/c": "is not host, host:port or [IPv6]:port",
    f"kbs:///a/b/{'c' * MAX_LENGTH}": f"it has more than {MAX_LENGTH} characters",
}


@pytest.mark.parametrize(("text", "reason"), REFUSALS.items())
def test_parse_key_id_refusal_says_why(text: str, reason: str) -> None:
    with pytest.raises(InputError) as error:
        parse_key_id(text)
    assert reason in error.value.message


@pytest.mark.parametrize("text", ["/a/b", "kbs.example/a/b/c d", "KBS:///a/b", "key_id1"])
def test_parse_key_id_refusal_quotes_the_id(text: str) -> None:
    with pytest.raises(InputError, match=f"^key ID '{text}' cannot be used"):
        parse_key_id(text)


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


def test_parse_resource_path_reads_bare_path_and_refuses_other_text() -> None:
    assert parse_resource_path("default/key/1") == parse_key_id("/default/key/1")
    for text in ("key_id1", "a/b", "/a/b/c", "a/b/c/", "h/a/b/c"):
        with pytest.raises(InputError, match=f"^key ID '{text}' cannot be used"):
            parse_resource_path(text)


def test_parse_resource_uri_requires_kbs_scheme() -> None:
    for text in ("/default/key/1", "kbs.example/default/key/1"):
        parse_key_id(text)
        with pytest.raises(InputError, match="its scheme is not kbs"):
            parse_resource_uri(text)


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


def test_parse_resource_uri_limits_length() -> None:
    text = "kbs:///a/b/" + "c" * (MAX_LENGTH - len("kbs:///a/b/"))
    assert str(parse_resource_uri(text)) == text
    with pytest.raises(InputError, match="more than"):
        parse_resource_uri(text + "c")
