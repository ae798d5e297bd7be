"""What a layer's first bytes are: whatever some reader unpacks is no ciphertext."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
import zlib
from collections.abc import Mapping

import pytest

from coco_kp.image.content import HEAD, content_kind
from tests.support.image import tar

ARCHIVE = tar({"etc/secret": b"TOPSECRET"})
TEXT, CHECKSUM, EXTRA, NAME, COMMENT, RESERVED = 1, 2, 4, 8, 16, 0xE0


def gzipped(flags: int, parts: Mapping[int, bytes]) -> bytes:
    """Compress the archive under a header with these flags and their parts (RFC 1952, 2.3)."""
    header = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6)
    for flag in (EXTRA, NAME, COMMENT, CHECKSUM):
        header += parts[flag] if flags & flag else b""
    return header + gzip.compress(ARCHIVE)[10:]


PARTS = {EXTRA: b"\x03\0abc", NAME: b"name\0", COMMENT: b"words\0", CHECKSUM: b"\0\0"}


@pytest.mark.parametrize("flags", [0, TEXT, CHECKSUM, EXTRA, NAME, COMMENT, RESERVED, 0xFF])
def test_gzip_with_any_flags_is_gzip(flags: int) -> None:
    data = gzipped(flags, PARTS)
    if not flags & (CHECKSUM | RESERVED):  # which zlib looks at, and Go does not or not so
        assert zlib.decompress(data, 31) == ARCHIVE
    assert content_kind(data[:HEAD]) == "gzip"


def test_gzip_whose_header_is_longer_than_what_is_looked_at_is_gzip() -> None:
    long = gzipped(NAME | EXTRA, PARTS | {EXTRA: b"\xff\xff" + bytes(0xFFFF)})
    assert content_kind(long[:HEAD]) == "gzip"
    long = gzipped(NAME, {NAME: b"n" * HEAD + b"\0"})
    assert content_kind(long[:HEAD]) == "gzip"


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("bzip2", bz2.compress(ARCHIVE)),
        ("bzip2", bz2.compress(b"") + bz2.compress(ARCHIVE)),
        ("xz", lzma.compress(ARCHIVE)),
        ("zstd", b"\x28\xb5\x2f\xfd and a frame"),
        ("zstd", b"\x5f\x2a\x4d\x18 and a frame to be skipped"),
        ("tar", ARCHIVE),
        ("tar", tar({})),
    ],
)
def test_content_is_known_by_its_first_bytes(kind: str, data: bytes) -> None:
    assert content_kind(data) == kind


@pytest.mark.parametrize("checksum", [b"%06o\0 ", b"%07o\0", b"%6o\0\0", b" %05o\0x"])
def test_archive_whose_checksum_is_of_signed_bytes_is_a_tar(checksum: bytes) -> None:
    block = bytearray(ARCHIVE)
    block[265:275] = b"\xfc" * 10
    block[148:156] = b" " * 8
    block[148:156] = checksum % sum(byte - 256 * (byte > 0x7F) for byte in block[:512])
    assert content_kind(bytes(block)) == "tar"
    if not checksum.endswith(b"x"):  # Go's reader ends at the NUL, Python's does not
        with tarfile.open(fileobj=io.BytesIO(block)) as archive:
            assert archive.getnames() == ["etc/secret"]


@pytest.mark.parametrize("flags", [b"\x00", b"\x08", b"\xff"])
@pytest.mark.parametrize("size", [600, HEAD])
def test_noise_behind_a_magic_number_is_ciphertext(flags: bytes, size: int) -> None:
    noise = random.Random(0).randbytes(size)  # the same each time: chance may make a stream
    assert content_kind(b"\x1f\x8b\x08" + flags + noise[4:]) is None
    assert content_kind(noise) is None
