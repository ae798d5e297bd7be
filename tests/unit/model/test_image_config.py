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


@pytest.mark.parametrize("word", ["\x1b[2J", "li nux", "Linux", "linux/x", "l\u202e", "\ud800"])
@pytest.mark.parametrize("name", ["os", "architecture", "variant"])
def test_parse_image_config_refuses_platform_of_other_characters(name: str, word: str) -> None:
    document = {"os": "linux", "architecture": "arm64", "variant": "v8", name: word}
    with pytest.raises(InputError, match="is no platform") as error:
        parse_image_config(json.dumps(document).encode())
    assert str(error.value).isprintable()
