"""Addresses of KBSes: one spelling out, whatever was written, and key IDs that fit them."""

from __future__ import annotations

import pytest

from coco_kp.errors import InputError
from coco_kp.model.kbs_url import KbsUrl


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("https://kbs.example", "https://kbs.example"),
        ("https://KBS.Example:443/", "https://kbs.example"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("https://[2001:DB8:0::1]:8080/a/b/", "https://[2001:db8::1]:8080/a/b"),
        ("https://kbs:8080/team-a/kbs.v1", "https://kbs:8080/team-a/kbs.v1"),
    ],
)
def test_kbs_url_has_one_canonical_spelling(text: str, canonical: str) -> None:
    assert str(KbsUrl.parse(text)) == canonical
    assert str(KbsUrl.parse(canonical)) == canonical


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not begin with https://"),
        ("kbs.example:8080", "does not begin with https://"),
        ("ftp://kbs.example", "does not begin with https://"),
        ("kbs:///default/key/1", "does not begin with https://"),
        ("https://", "has no valid host"),
        ("https://kbs example", "has no valid host"),
        ("https://kbs..example", "has no valid host"),
        (f"https://{'k' * 64}.example", "has no valid host"),
        ("https://kbs.example:0", "has no valid host"),
        ("https://[::g]", "is not a URL"),
        ("https://kbs:65536", "is not a URL"),
        ("https://kbs:x", "is not a URL"),
        ("https://kbs/?a=b", "has a query"),
        ("https://kbs/#", "has a query or a fragment"),
        ("https://kbs/a//b", "has an unusual path"),
        ("https://kbs/../x", "has an unusual path"),
        ("https://kbs/a b", "has an unusual path"),
    ],
)
def test_kbs_url_refuses_malformed_address(text: str, reason: str) -> None:
    with pytest.raises(InputError) as refused:
        KbsUrl.parse(text)
    assert reason in refused.value.message
    assert refused.value.hint == "give the address of the KBS as https://host[:port][/prefix]"


@pytest.mark.parametrize("text", ["https://kbs/kbs/v0", "https://kbs/team/kbs/v0/"])
def test_kbs_url_refuses_api_path_in_address(text: str) -> None:
    """With it the KBS says that it has no plugin of that name, which helps nobody."""
    with pytest.raises(InputError, match="ends with /kbs/v0") as refused:
        KbsUrl.parse(text)
    assert refused.value.hint == "leave /kbs/v0 out"


def test_kbs_url_refuses_password_without_repeating_it() -> None:
    with pytest.raises(InputError) as refused:
        KbsUrl.parse("https://admin:hunter2@kbs.example")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "address", "same"),
    [
        ("https://kbs.example:8080", "", True),
        ("https://kbs.example:8080", "kbs.example:8080", True),
        ("https://kbs.example:8080", "KBS.example:8080", True),
        ("https://kbs.example:8080", "kbs.example", False),
        ("https://kbs.example", "kbs.example", True),
        ("https://kbs.example", "kbs.example:443", True),
        ("http://kbs.example", "kbs.example:443", False),
        ("https://kbs.example", "other.example", False),
        ("https://[::1]:8080", "[::1]:8080", True),
        ("https://[::1]", "[::1]", True),
        ("https://[::1]", "[::2]", False),
    ],
)
def test_kbs_url_names_address_of_the_same_kbs_only(url: str, address: str, same: bool) -> None:
    assert KbsUrl.parse(url).names(address) is same
