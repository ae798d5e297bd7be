"""Names of images, as skopeo and docker read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coco_kp.errors import InputError
from coco_kp.model.digest import parse_digest
from coco_kp.model.reference import (
    FileReference,
    RegistryReference,
    SkopeoReference,
    parse_image_reference,
)
from tests.support.refusals import refusals

HEX = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag"),
    [
        ("nginx", "docker.io", "library/nginx", "latest"),
        ("nginx:1.27", "docker.io", "library/nginx", "1.27"),
        ("team/app", "docker.io", "team/app", "latest"),
        ("docker.io/nginx", "docker.io", "library/nginx", "latest"),
        ("index.docker.io/team/app:x", "docker.io", "team/app", "x"),
        ("localhost/app", "localhost", "app", "latest"),
        ("localhost:5000/app:v1", "localhost:5000", "app", "v1"),
        ("registry.example.com/a/b/c", "registry.example.com", "a/b/c", "latest"),
        ("registry:5000/app", "registry:5000", "app", "latest"),
        ("Registry/app", "Registry", "app", "latest"),
        ("10.0.0.1/app", "10.0.0.1", "app", "latest"),
        ("[::1]:5000/app:v1", "[::1]:5000", "app", "v1"),
        ("h.example/a__b/c--d/e.f_g", "h.example", "a__b/c--d/e.f_g", "latest"),
        ("h.example/app:" + "t" * 128, "h.example", "app", "t" * 128),
    ],
)
def test_parse_image_reference_reads_registry_names(
    text: str, host: str, repository: str, tag: str
) -> None:
    found = parse_image_reference(f"docker://{text}")
    assert found == RegistryReference(host, repository, tag)
    assert parse_image_reference(str(found)) == found


def test_parse_image_reference_prefers_digest_to_tag() -> None:
    for text in (f"docker://h.example/app@{HEX}", f"docker://h.example/app:v1@{HEX}"):
        found = parse_image_reference(text)
        assert found == RegistryReference("h.example", "app", None, parse_digest(HEX))
    assert str(found) == f"docker://h.example/app@{HEX}"


test_parse_image_reference_refuses_malformed_registry_names = refusals(
    lambda text: parse_image_reference(f"docker://{text}"),
    {
        "invalid repository name": [
            *("", "UPPER", "h.example/UPPER", "h.example//app", "h.example/app/", "h.example/.app"),
            *("h.example/../app", "h.example/a___b", "h.example/" + "a" * 250, "h.example/app\n"),
            *("h.example/app?x=y", "h.example/app#x"),
        ],
        "invalid tag": [
            *("h.example/app:", "h.example/app:-x", "h.example/app:" + "t" * 129),
            "h.example/app:a b",
        ],
        "digest": ["h.example/app@sha256:12", "h.example/app@"],
        "'h.example/app' is not a digest": ["user:pass@h.example/app"],
        "invalid registry host": [
            *("h_x.example/app", "-h.example/app", "h.example:x/app"),
            "h.exämple/app",
        ],
    },
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oci:a/b", FileReference("oci", "a/b")),
        ("oci:/a/b:", FileReference("oci", "/a/b")),
        ("oci:a:v1.0_x", FileReference("oci", "a", "v1.0_x")),
        ("oci:a:h.example/x:y@z", FileReference("oci", "a", "h.example/x:y@z")),
        ("oci-archive:a.tar:v1", FileReference("oci-archive", "a.tar", "v1")),
        ("dir:a:b", FileReference("dir", "a:b")),
        ("oci:a:@0", FileReference("oci", "a", position=0)),
        ("oci-archive:a:@12", FileReference("oci-archive", "a", position=12)),
        ("docker-archive:a:@1", FileReference("docker-archive", "a", position=1)),
        ("docker-archive:a.tar", FileReference("docker-archive", "a.tar")),
        ("docker-archive:a.tar:nginx:1", FileReference("docker-archive", "a.tar", "nginx:1")),
        ("docker-daemon:nginx:1", SkopeoReference("docker-daemon", "docker-daemon:nginx:1")),
        (
            "containers-storage:[x@y]z",
            SkopeoReference("containers-storage", "containers-storage:[x@y]z"),
        ),
    ],
)
def test_parse_image_reference_reads_names_of_other_transports(text: str, expected: object) -> None:
    found = parse_image_reference(text)
    assert found == expected
    assert parse_image_reference(str(found)) == expected


test_parse_image_reference_refusal_names_the_fault = refusals(
    parse_image_reference,
    {
        "does not start with a transport": ["nginx", "nginx:1.27", "https://h.example/app"],
        "lacks the slashes": ["docker:h.example/app"],
        "names no path": ["oci:", "oci::v1", "dir:"],
        "invalid image name": [
            *("oci:a:..", "oci:a:v1/", "oci:a:-v1", "oci:a:ä", "docker-archive:a:@x", "oci:a:@"),
            "oci:a:@-1",
        ],
        "has a digest": [f"docker-archive:a:nginx@{HEX}"],
        "invalid repository name": ["docker-archive:a:UPPER"],
        "zero byte": ["oci:a\0b"],
    },
)

test_parse_image_reference_hint_lists_transports = refusals(
    parse_image_reference,
    {"does not start with a transport": ["nginx"]},
    hint_has="docker://host/repository:tag; others start with oci:, oci-archive:, dir:, "
    "docker-archive:, containers-storage:, docker-daemon:",
)

test_parse_image_reference_hint_says_what_a_position_is = refusals(
    parse_image_reference,
    {"invalid image name": ["docker-archive:a:@x", "oci:a:@", "oci:a:@-1"]},
    hint="':@N' is the Nth image, from 0",
)


@given(st.text() | st.from_regex(r"docker://[a-zA-Z0-9._/:@\[\]-]{1,60}", fullmatch=True))
def test_parse_image_reference_reads_or_refuses_any_text(text: str) -> None:
    try:
        found = parse_image_reference(text)
    except InputError:
        return
    assert parse_image_reference(str(found)) == found
