"""Streams that tools make, and streams that were altered, read as the C libraries read them.

``make test`` takes a sample, ``pytest -m full tests/native/test_decompressing.py`` all of them.
"""

from __future__ import annotations

import hashlib
import random
import sys
import zlib
from collections import Counter
from typing import Literal

import pytest

from coco_kp.errors import IntegrityError
from coco_kp.unpacking import ContentCheck, Unpacking

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Verdict = bytes | Literal["malformed", "early"]
"""The content's SHA-256, or why there is none."""

SAMPLE_AND_ALL = pytest.mark.parametrize(
    "count", [2_000, pytest.param(100_000, marks=pytest.mark.full)]
)
STRATEGIES = (
    zlib.Z_DEFAULT_STRATEGY,
    zlib.Z_FILTERED,
    zlib.Z_HUFFMAN_ONLY,
    zlib.Z_RLE,
    zlib.Z_FIXED,
)
FLUSHES = (zlib.Z_NO_FLUSH, zlib.Z_PARTIAL_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH)


@SAMPLE_AND_ALL
def test_gzip_streams_are_read_as_zlib_reads_them(count: int) -> None:
    rng = random.Random(f"gzip {count}")
    verdicts = Counter[str]()
    for number in range(count):
        stream = b"".join(member(rng) for _ in range(rng.choice([1, 1, 1, 2, 5])))
        if number % 3:
            stream = altered(rng, stream)
        expected = read_by_zlib(stream)
        assert read_by_us(rng, "gzip", stream) == expected, stream.hex()
        verdicts[expected if isinstance(expected, str) else "read"] += 1
    assert all(verdicts[kind] > count // 50 for kind in ("read", "malformed", "early")), verdicts


@SAMPLE_AND_ALL
def test_zstd_streams_are_read_as_libzstd_reads_them(count: int) -> None:
    """Altered ones the one or the other may refuse: what is read is the same."""
    rng = random.Random(f"zstd {count}")
    for number in range(count // 4):
        stream = b"".join(frame(rng) for _ in range(rng.choice([1, 1, 2])))
        whole = number % 3 == 0
        if not whole:
            stream = altered(rng, stream)
        ours, theirs = read_by_us(rng, "zstd", stream), read_by_libzstd(stream)
        if whole or not (isinstance(ours, str) or isinstance(theirs, str)):
            assert ours == theirs, stream.hex()


def member(rng: random.Random) -> bytes:
    """Return a gzip member as some tool could make it."""
    data, wbits = content(rng), rng.randint(9, 15)
    deflate = zlib.compressobj(
        rng.randint(0, 9), zlib.DEFLATED, -wbits, rng.randint(1, 9), rng.choice(STRATEGIES)
    )
    cut = rng.randint(0, len(data))
    body = deflate.compress(data[:cut]) + deflate.flush(rng.choice(FLUSHES))
    body += deflate.compress(data[cut:]) + deflate.flush()
    return header(rng) + body + zlib.crc32(data).to_bytes(4, "little") + size(data)


def header(rng: random.Random) -> bytes:
    """Return a header (RFC 1952, 2.3), in one case of ten with a reserved flag or method."""
    flags = rng.choice([0, 0, 8, rng.randrange(32)])
    start = bytearray(b"\x1f\x8b\x08" + bytes([flags]) + rng.randbytes(6))
    if rng.random() < 0.02:
        start[rng.randrange(4)] ^= 1 << rng.randrange(8)
    extra = rng.randbytes(rng.randrange(20))
    if flags & 4:
        start += len(extra).to_bytes(2, "little") + extra
    for flag in (8, 16):
        start += (
            rng.randbytes(rng.randrange(9)).replace(b"\0", b"") + b"\0" if flags & flag else b""
        )
    if flags & 2:
        start += (zlib.crc32(start) & 0xFFFF).to_bytes(2, "little")
    return bytes(start)


def size(data: bytes) -> bytes:
    return (len(data) & 0xFFFFFFFF).to_bytes(4, "little")


def frame(rng: random.Random) -> bytes:
    """Return a zstd frame as some tool could make it, or one to be skipped."""
    if rng.random() < 0.1:
        skipped = rng.randbytes(rng.randrange(50))
        return bytes([0x50 + rng.randrange(16)]) + b"\x2a\x4d\x18" + size(skipped) + skipped
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: rng.choice([-5, 1, 3, 9, 19]),
        zstd.CompressionParameter.checksum_flag: rng.randrange(2),
        zstd.CompressionParameter.window_log: rng.randint(10, 20),
    }
    data, compressor = content(rng), zstd.ZstdCompressor(options=options)
    if rng.random() < 0.5:
        return zstd.compress(data, options=options)
    cut = rng.randint(0, len(data))
    start = compressor.compress(data[:cut], zstd.ZstdCompressor.FLUSH_BLOCK)
    return start + compressor.compress(data[cut:]) + compressor.flush()


def content(rng: random.Random) -> bytes:
    """Return bytes that compress well, badly or not at all."""
    length = rng.choice([0, 1, rng.randrange(300), rng.randrange(3000), rng.randrange(80_000)])
    match rng.randrange(4):
        case 0:
            return rng.randbytes(length)
        case 1:
            return bytes(length)
        case 2:
            word = rng.randbytes(rng.randint(1, 40))
            return (word * (length // len(word) + 1))[:length]
        case _:
            words = [rng.randbytes(rng.randint(1, 12)) for _ in range(20)]
            return b"".join(rng.choices(words, k=length // 6))


def altered(rng: random.Random, stream: bytes) -> bytes:
    """Return the stream with a few bytes changed, cut, put in or put behind."""
    data = bytearray(stream)
    for _ in range(rng.choice([1, 1, 2])):
        at = rng.choice([rng.randrange(len(data) + 1), rng.randrange(min(30, len(data)) + 1)])
        match rng.randrange(7):
            case 0 | 1:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 2:
                del data[at:]
            case 3:
                del data[at : at + rng.randint(1, 9)]
            case 4:
                data[at:at] = rng.randbytes(rng.randint(1, 9))
            case 5:
                data += rng.choice([bytes(1), bytes(512), b"\x1f\x8b", rng.randbytes(20)])
            case _:
                data[max(0, len(data) - 8) :] = rng.randbytes(8)
    return bytes(data)


def read_by_us(rng: random.Random, compression: str, stream: bytes) -> Verdict:
    check = ContentCheck(compression, "sha256", Unpacking(), aside=rng.random() < 0.1)
    step = rng.choice([1, 7, 1000, 70_000]) if len(stream) < 5000 else rng.choice([1000, 70_000])
    for start in range(0, len(stream), step):
        check.update(stream[start : start + step])
    try:
        return check.finish()[0]
    except IntegrityError as error:
        return "early" if "ends early" in error.message else "malformed"


def read_by_zlib(stream: bytes) -> Verdict:
    member, hasher = zlib.decompressobj(31), hashlib.sha256()
    while True:
        try:
            hasher.update(member.decompress(stream))
        except zlib.error:
            return "malformed"
        if not member.eof:
            return "early"
        if not (stream := member.unused_data):
            return hasher.digest()
        member = zlib.decompressobj(31)


def read_by_libzstd(stream: bytes) -> Verdict:
    frame, hasher = zstd.ZstdDecompressor(), hashlib.sha256()
    while True:
        try:
            hasher.update(frame.decompress(stream))
        except zstd.ZstdError:
            return "malformed"
        if not frame.eof:
            return "early"
        if not (stream := frame.unused_data):
            return hasher.digest()
        frame = zstd.ZstdDecompressor()
