"""Layers that are compressed with zstd."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from coco_kp.errors import IntegrityError
from coco_kp.image.diff_id import DiffIdCheck
from coco_kp.image.zstd import MAX_WINDOW
from coco_kp.model.digest import Digest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
CONTENT = os.urandom(100_000) + bytes(2_000_000)


def check(layer: bytes, content: bytes, step: int) -> None:
    checking = DiffIdCheck(ZSTD, Digest.of(content))
    for start in range(0, len(layer), step):
        checking.update(memoryview(layer)[start : start + step])
    checking.finish()


@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_zstd_decompressor_reads_consecutive_frames(step: int) -> None:
    layer = zstd.compress(CONTENT[:5]) + zstd.compress(b"") + zstd.compress(CONTENT[5:])
    check(layer, CONTENT, step)


@pytest.mark.parametrize(
    "broken", [lambda layer: layer[:-1], lambda layer: layer[5:], lambda layer: layer + b"x"]
)
def test_zstd_decompressor_refuses_malformed_stream(broken: Any) -> None:
    with pytest.raises(IntegrityError, match="zstd stream"):
        check(broken(zstd.compress(CONTENT)), CONTENT, 1000)


def test_zstd_decompressor_limits_window_size() -> None:
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: MAX_WINDOW + 1,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    layer = zstd.compress(bytes(1 << 28), options=options)
    with pytest.raises(IntegrityError, match="zstd stream") as error:
        check(layer, b"", 1 << 20)
    assert "look back" in error.value.hint
