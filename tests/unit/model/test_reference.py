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


@pytest.mark.parametrize(
    "text",
    [
        "",
        "UPPER",
        "h.example/UPPER",
        "h.example/app:",
        "h.example/app:-x",
        "h.example/app:" + "t" * 129,
        "h.example/app:a b",
        "h.example/app@sha256:12",
        "h.example/app@",
        "h.example//app",
        "h.example/app/",
        "h.example/../app",
        "h.example/a___b",
        "h.example/.app",
        "h_x.example/app",
        "-h.example/app",
        "user:pass@h.example/app",
        "h.example:x/app",
        "h.example/" + "a" * 250,
        "h.example/app\n",
        "h.example/app?x=y",
        "h.example/app#x",
        "h.exämple/app",
    ],
)
def test_parse_image_reference_refuses_malformed_registry_names(text: str) -> None:
    with pytest.raises(InputError):
        parse_image_reference(f"docker://{text}")


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


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("nginx", "does not start with a transport"),
        ("nginx:1.27", "does not start with a transport"),
        ("https://h.example/app", "does not start with a transport"),
        ("docker:h.example/app", "lacks the slashes"),
        ("oci:", "names no path"),
        ("oci::v1", "names no path"),
        ("dir:", "names no path"),
        ("oci:a:..", "invalid image name"),
        ("oci:a:v1/", "invalid image name"),
        ("oci:a:-v1", "invalid image name"),
        ("oci:a:ä", "invalid image name"),
        ("docker-archive:a:@x", "is the Nth image"),
        ("oci:a:@", "is the Nth image"),
        ("oci:a:@-1", "is the Nth image"),
        (f"docker-archive:a:nginx@{HEX}", "has a digest"),
        ("docker-archive:a:UPPER", "invalid repository name"),
        ("oci:a\0b", "zero byte"),
    ],
)
def test_parse_image_reference_refusal_names_the_fault(text: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        parse_image_reference(text)


def test_parse_image_reference_hint_lists_transports() -> None:
    with pytest.raises(InputError) as caught:
        parse_image_reference("nginx")
    for transport in ("docker://", "oci:", "oci-archive:", "dir:", "docker-daemon:"):
        assert transport in caught.value.hint


@given(st.text())
def test_parse_image_reference_reads_or_refuses_any_text(text: str) -> None:
    try:
        found = parse_image_reference(text)
    except InputError:
        return
    assert parse_image_reference(str(found)) == found


@given(st.from_regex(r"docker://[a-zA-Z0-9._/:@\[\]-]{1,60}", fullmatch=True))
def test_parse_image_reference_round_trips_registry_names(text: str) -> None:
    try:
        found = parse_image_reference(text)
    except InputError:
        return
    assert parse_image_reference(str(found)) == found
