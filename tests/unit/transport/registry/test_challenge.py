"""``WWW-Authenticate``, as registries write it and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coco_kp.transport.registry.challenge import Challenge, parse_challenges

REALM = {"realm": "https://auth.example/token", "service": "registry.example"}

BASIC = Challenge("basic", {"realm": "corp"})


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://auth.example/token",service="registry.example"',
            [Challenge("bearer", REALM)],
        ),
        (
            'BEARER  realm = "https://auth.example/token" , service=registry.example',
            [Challenge("bearer", REALM)],
        ),
        ('Basic realm="a, \\"b\\" = c"', [Challenge("basic", {"realm": 'a, "b" = c'})]),
        ('Basic realm=""', [Challenge("basic", {"realm": ""})]),
        (
            'Bearer realm="x",scope="repository:a/b:pull,push", Basic realm="y"',
            [
                Challenge("bearer", {"realm": "x", "scope": "repository:a/b:pull,push"}),
                Challenge("basic", {"realm": "y"}),
            ],
        ),
        ("Basic", [Challenge("basic", {})]),
        ("Negotiate, Basic", [Challenge("negotiate", {}), Challenge("basic", {})]),
        ('Negotiate, Basic realm="corp"', [Challenge("negotiate", {}), BASIC]),
        ('Negotiate YIIBhg+/.~_-==, Basic realm="corp"', [Challenge("negotiate", {}), BASIC]),
        ('Basic realm="corp", NTLM', [BASIC, Challenge("ntlm", {})]),
        ("", []),
        (", ,", []),
        ('realm="x"', []),
        ('Basic realm="open', [Challenge("basic", {})]),
    ],
)
def test_parse_challenges_reads_www_authenticate_headers(
    header: str, expected: list[Challenge]
) -> None:
    assert parse_challenges(header) == expected


@given(st.text(alphabet='Baxr="\\, \t:/é'))
def test_parse_challenges_accepts_any_text(header: str) -> None:
    for challenge in parse_challenges(header):
        assert challenge.scheme
