"""Addresses of KBSes: one spelling out, whatever was written, and key IDs that fit them."""

from __future__ import annotations

import pytest

from coco_kp.model.kbs_url import KbsUrl
from tests.support.refusals import refusals


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


test_kbs_url_refuses_malformed_address = refusals(
    KbsUrl.parse,
    {
        "does not begin with https://": [
            *("", "kbs.example:8080", "ftp://kbs.example", "kbs:///default/key/1"),
        ],
        "has no valid host": [
            *("https://", "https://kbs example", "https://kbs..example", "https://kbs.example:0"),
            f"https://{'k' * 64}.example",
        ],
        "is not a URL": ["https://[::g]", "https://kbs:65536", "https://kbs:x"],
        "has a query or a fragment": ["https://kbs/?a=b", "https://kbs/#"],
        "has an unusual path": ["https://kbs/a//b", "https://kbs/../x", "https://kbs/a b"],
        "carries a user name or password": ["https://admin:hunter2@kbs.example"],
    },
    hint="give the address of the KBS as https://host[:port][/prefix]",
    secret="hunter2",
)


# With it the KBS says that it has no plugin of that name, which helps nobody.
test_kbs_url_refuses_api_path_in_address = refusals(
    KbsUrl.parse,
    {"ends with /kbs/v0": ["https://kbs/kbs/v0", "https://kbs/team/kbs/v0/"]},
    hint="leave /kbs/v0 out",
)


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
