"""Patterns of key IDs and key references."""

from __future__ import annotations

import pytest

from coco_kp.model.pattern import parse_pattern
from tests.support.refusals import refusals


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("kbs:///a/b/c", "kbs:///a/b/c"),
        ("kbs:///a/*/*", "kbs:///a/key/1"),
        ("kbs:///*/*/*", "kbs:///a/key/1"),
        ("kbs:///a/b/app-*", "kbs:///a/b/app-"),
        ("kbs:///a/b/app-*", "kbs:///a/b/app-1"),
        ("kbs:///a/b/*-app", "kbs:///a/b/1-app"),
        ("kbs:///a/b/x*y", "kbs:///a/b/x-1-y"),
        ("kbs:///a/b/aa*aa", "kbs:///a/b/aaaa"),
        ("kbs://*/a/b/c", "kbs:///a/b/c"),
        ("kbs://*/a/b/c", "kbs://kbs.example.org:8080/a/b/c"),
        ("file:/keys/team-a/*", "file:/keys/team-a/app.kek"),
        ("vault:///kv/team-a/*", "vault:///kv/team-a/app?field=kek"),
    ],
)
def test_pattern_matches(pattern: str, text: str) -> None:
    assert parse_pattern(pattern).matches(text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("kbs:///a/b/c", "kbs:///a/b/cc"),
        ("kbs:///a/b/c", "kbs:///A/b/c"),
        ("kbs:///a/*/*", "kbs:///b/key/1"),
        ("kbs:///a/*/*", "kbs:///aa/key/1"),
        ("kbs:///a/*/*", "kbs://kbs.example.org/a/key/1"),
        ("kbs:///a/*/*", "kbs+pkcs11:///a/key/1"),
        ("kbs:///a/*/*", "kbs:///a/key"),
        ("kbs:///a/*/*", "kbs:///a/key/1/2"),
        ("kbs:///a/b/aa*aa", "kbs:///a/b/aaa"),
        ("kbs:///a/b/[cd]", "kbs:///a/b/c"),
        ("kbs:///a/b/?", "kbs:///a/b/c"),
        ("file:/keys/team-a/*", "file:/keys/team-a/sub/app.kek"),
        ("file:/keys/*/app.kek", "file:/keys/../app.kek"),
        ("file:/keys/team-a/*/*", "file:/keys/team-a/../app.kek"),
        ("file:/keys/*/app.kek", "file:/keys/./app.kek"),
        ("", "kbs:///a/b/c"),
    ],
)
def test_pattern_does_not_match(pattern: str, text: str) -> None:
    assert not parse_pattern(pattern).matches(text)


test_parse_pattern_refuses_two_stars_in_a_part = refusals(
    parse_pattern, {"has two * in one part": ["kbs:///a/b/*c*", "**", "file:/keys/**"]}
)
