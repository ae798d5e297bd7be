"""What compressed bytes may unpack to."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

from coco_kp.errors import InputError
from coco_kp.image.diff_id import DiffIdCheck
from coco_kp.model.digest import Digest
from coco_kp.transport.tar import TarFile
from coco_kp.unpacking import Decompressor, Unpacking

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RATIO, TOTAL = 100, 1 << 40
"""What each compressed byte may become, and all of them together."""

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
ZEROS = gzip.compress(bytes(4 << 20))


def test_content_may_be_so_many_times_its_compressed_bytes_and_what_is_allowed() -> None:
    unpacking = Unpacking(1000)
    unpacking.packed(10)
    unpacking.unpacked(RATIO * 10)
    unpacking.unpacked(1000)
    with pytest.raises(InputError, match="became 2001 bytes") as error:
        unpacking.unpacked(1)
    assert error.value.code == "content-too-large"


def test_content_has_a_total_that_no_size_raises_but_the_user() -> None:
    for allowed, more in ((1, 0), (TOTAL + 5, 5)):
        unpacking = Unpacking(allowed)
        unpacking.packed(TOTAL)
        unpacking.unpacked(TOTAL + more)
        with pytest.raises(InputError):
            unpacking.unpacked(1)


@pytest.mark.parametrize("aside", [False, True])
def test_layers_share_what_is_allowed(aside: bool) -> None:
    unpacking = Unpacking(6 << 20)
    diff_id = Digest.of(bytes(4 << 20))
    with DiffIdCheck(LAYER, diff_id, unpacking, aside=aside) as first:
        first.update(ZEROS)
        first.finish()
    with DiffIdCheck(LAYER, diff_id, unpacking, aside=aside) as second:
        second.update(ZEROS)
        with pytest.raises(InputError, match="too many for its size"):
            second.finish()


@pytest.mark.parametrize(
    ("kind", "packed"), [("gzip", ZEROS), ("zstd", zstd.compress(bytes(4 << 20)))]
)
def test_decompressor_stops_in_the_middle_of_a_piece(kind: str, packed: bytes) -> None:
    stream = Decompressor(kind, Unpacking(1 << 20))
    stream.feed(packed)
    came: list[int] = []
    with pytest.raises(InputError):
        came.extend(len(piece) for piece in iter(stream.read, b""))
    assert 0 < sum(came) <= (1 << 20) + RATIO * len(packed)


def test_gzipped_archive_is_unpacked_within_bounds_alone(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(ZEROS)
    TarFile(archive, Unpacking(4 << 20)).close()
    with pytest.raises(InputError, match="too many for its size"):
        TarFile(archive, Unpacking(1 << 20))
