"""What matters of an image's config."""

from __future__ import annotations

import json

import pytest

from coco_kp.errors import InputError
from coco_kp.model.image_config import parse_image_config
from coco_kp.model.manifest import Platform

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
    [{}, {"rootfs": None}, {"rootfs": {"diff_ids": None}}, {"os": "", "architecture": ""}],
)
def test_parse_image_config_leaves_missing_members_unknown(document: object) -> None:
    config = parse_image_config(json.dumps(document).encode())
    assert (config.platform, config.diff_ids) == (None, ())


@pytest.mark.parametrize(
    "rootfs", [[], "x", {"diff_ids": "x"}, {"diff_ids": [1]}, {"diff_ids": ["sha256:short"]}]
)
def test_parse_image_config_refuses_malformed_diff_ids(rootfs: object) -> None:
    if rootfs == []:
        assert parse_image_config(b'{"rootfs": []}').diff_ids == ()
        return
    with pytest.raises(InputError):
        parse_image_config(json.dumps({"rootfs": rootfs}).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"os": 1, "os": 2}'])
def test_parse_image_config_refuses_data_that_is_not_an_object(data: bytes) -> None:
    with pytest.raises(InputError):
        parse_image_config(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"rootfs": {"diff_ids": []}, "rootfs": {"diff_ids": []}}',
        b'{"rootfs": {"diff_ids": []}, "RootFS": {"diff_ids": []}}',
        '{"rootf\u017f": {"diff_ids": []}}'.encode(),
        b'{"rootfs": {"diff_ids": [], "diff_ids": []}}',
        b'{"rootfs": {"diff_ids": [], "Diff_IDs": []}}',
        b'{"rootfs": {"DIFF_IDS": []}}',
        b'{"os": "linux", "OS": "linux"}',
        b'\xef\xbb\xbf{"os": "linux"}',
    ],
)
def test_parse_image_config_refuses_two_readings_of_what_it_reads(data: bytes) -> None:
    with pytest.raises(InputError):
        parse_image_config(data)


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


@pytest.mark.parametrize("word", ["\x1b[2J", "li nux", "Linux", "linux/x", "l\u202e", "\ud800"])
@pytest.mark.parametrize("name", ["os", "architecture", "variant"])
def test_parse_image_config_refuses_platform_of_other_characters(name: str, word: str) -> None:
    document = {"os": "linux", "architecture": "arm64", "variant": "v8", name: word}
    with pytest.raises(InputError, match="is not a platform") as error:
        parse_image_config(json.dumps(document).encode())
    assert str(error.value).isprintable()
