"""What matters of an image's config."""

from __future__ import annotations

import json

import pytest

from coco_kp.model.image_config import parse_image_config
from coco_kp.model.manifest import Platform
from tests.support.refusals import refusals

DIGEST = f"sha256:{'a' * 64}"


def test_parse_image_config_reads_platform_and_diff_ids() -> None:
    config = parse_image_config(
        json.dumps(
            {
                "os": "linux",
                "architecture": "arm64",
                "variant": "v8",
                "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
                "config": {"Env": ["A=b"]},
            }
        ).encode()
    )
    assert config.platform == Platform("linux", "arm64", "v8")
    assert [str(digest) for digest in config.diff_ids] == [DIGEST]


@pytest.mark.parametrize(
    "document",
    [
        *({}, {"rootfs": None}, {"rootfs": []}, {"rootfs": {"diff_ids": None}}),
        {"os": "", "architecture": ""},
    ],
)
def test_parse_image_config_leaves_missing_members_unknown(document: object) -> None:
    config = parse_image_config(json.dumps(document).encode())
    assert (config.platform, config.diff_ids) == (None, ())


test_parse_image_config_refuses_malformed_diff_ids = refusals(
    lambda rootfs: parse_image_config(json.dumps({"rootfs": rootfs}).encode()),
    {
        "has no list of diff_ids": ["x", {"diff_ids": "x"}, {"diff_ids": [1]}],
        "a sha256 digest has 64 lower-case hex digits": [{"diff_ids": ["sha256:short"]}],
    },
)


test_parse_image_config_refuses_what_readers_do_not_read_alike = refusals(
    parse_image_config,
    {
        "is not valid JSON": [b"", b"{"],
        "is not a JSON object": [b"[]"],
        "begins with a byte order mark": [b'\xef\xbb\xbf{"os": "linux"}'],
        "the member 'os' twice": [b'{"os": 1, "os": 2}'],
        "take for 'os'": [b'{"os": "linux", "OS": "linux"}'],
        "the member 'rootfs' twice": [b'{"rootfs": {"diff_ids": []}, "rootfs": {"diff_ids": []}}'],
        "take for 'rootfs'": [
            b'{"rootfs": {"diff_ids": []}, "RootFS": {"diff_ids": []}}',
            '{"rootf\u017f": {"diff_ids": []}}'.encode(),
        ],
        "the member 'diff_ids' twice": [b'{"rootfs": {"diff_ids": [], "diff_ids": []}}'],
        "take for 'diff_ids'": [
            b'{"rootfs": {"diff_ids": [], "Diff_IDs": []}}',
            b'{"rootfs": {"DIFF_IDS": []}}',
        ],
    },
)


@pytest.mark.parametrize(
    "labels",
    [
        b'{"a": "\\ud83d"}',
        b'{"a": "1", "a": "2"}',
        b'{"a": "1", "A": "2"}',
        b'{"a": "\xe9"}',
        b'{"a": "\xef\xbb\xbf"}',
    ],
    ids=["half a surrogate pair", "twice", "in another case", "Latin-1", "byte order mark"],
)
def test_parse_image_config_takes_labels_that_every_other_tool_reads(labels: bytes) -> None:
    data = b'{"os": "linux", "architecture": "arm64", "config": {"Labels": %b}}' % labels
    assert parse_image_config(data).platform == Platform("linux", "arm64")


test_parse_image_config_refuses_platform_of_other_characters = refusals(
    lambda member: parse_image_config(
        json.dumps({"os": "linux", "architecture": "arm64", "variant": "v8", **member}).encode()
    ),
    {
        "is not a platform": [
            {name: word}
            for name in ("os", "architecture", "variant")
            for word in ("\x1b[2J", "li nux", "Linux", "linux/x", "l\u202e", "\ud800")
        ]
    },
)
