"""The digest of a layer's content, from pieces of any size, in bounded memory."""

from __future__ import annotations

import gzip
import hashlib
import os
import threading
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest

from coco_kp.errors import IntegrityError, RefusedError
from coco_kp.image.compression import PIECE, decompressor
from coco_kp.image.diff_id import DiffIdCheck, DiffIdCheckAside
from coco_kp.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[[str, bytes, bytes, int], None]

TAR = "application/vnd.oci.image.layer.v1.tar"
CONTENT = os.urandom(100_000) + bytes(2_000_000)


@pytest.fixture(params=["here", "aside"])
def check(request: pytest.FixtureRequest) -> Check:
    """Checks a layer in pieces, whose buffer is overwritten at once, as the engine does."""

    def run(media_type: str, layer: bytes, content: bytes, step: int) -> None:
        diff_id = Digest.of(content)
        if request.param == "here":
            feed(DiffIdCheck(media_type, diff_id), layer, step)
        else:
            with DiffIdCheckAside(media_type, diff_id) as aside:
                feed(aside, layer, step)

    return run


def feed(checking: DiffIdCheck | DiffIdCheckAside, layer: bytes, step: int) -> None:
    buffer = bytearray(step)
    for start in range(0, len(layer), step):
        piece = layer[start : start + step]
        buffer[: len(piece)] = piece
        checking.update(memoryview(buffer)[: len(piece)])
        buffer[:] = bytes(step)
    checking.finish()


@pytest.mark.parametrize("step", [1, 1000, 16 * 1024, 16 * 1024 + 1, 1 << 20])
@pytest.mark.parametrize(
    ("kind", "compress"),
    [
        ("", lambda data: data),
        ("+gzip", gzip.compress),
        ("+gzip+encrypted", gzip.compress),
        ("+gzip", lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:])),
        ("+gzip", lambda data: gzip.compress(b"") * 50 + gzip.compress(data)),
        ("+gzip", lambda data: gzip.compress(data, compresslevel=0)),
    ],
)
def test_diff_id_check_accepts_matching_content_in_pieces_of_any_size(
    check: Check, kind: str, compress: Callable[[bytes], bytes], step: int
) -> None:
    content = CONTENT if step > 1 else CONTENT[99_000:101_000]
    check(TAR + kind, compress(content), content, step)


@pytest.mark.parametrize("kind", ["", "+gzip"])
def test_diff_id_check_refuses_other_content(check: Check, kind: str) -> None:
    layer = gzip.compress(CONTENT) if kind else CONTENT
    with pytest.raises(IntegrityError, match="not the one that the config names"):
        check(TAR + kind, layer, CONTENT + b"x", 1000)


@pytest.mark.parametrize(
    "layer",
    [
        gzip.compress(CONTENT)[:-1],
        gzip.compress(CONTENT)[:5000],
        gzip.compress(CONTENT) + b"\x1f\x8b",
        gzip.compress(CONTENT) + bytes(512),
        CONTENT,
        b"",
        zlib.compress(CONTENT),
    ],
)
def test_diff_id_check_refuses_malformed_gzip_stream(check: Check, layer: bytes) -> None:
    with pytest.raises(IntegrityError, match="gzip"):
        check(f"{TAR}+gzip", layer, CONTENT, 1000)


@pytest.mark.parametrize("flags", range(32))
def test_diff_id_check_accepts_split_gzip_header_with_any_flags(flags: int) -> None:
    """RFC 1952, 2.3. ISA-L, tried for its speed, refused some of these."""
    plain = gzip.compress(b"content", mtime=0)
    header = bytearray(plain[:10])
    header[3] = flags
    header += b"\x04\x00abcd" if flags & 4 else b""
    header += b"name\0" if flags & 8 else b""
    header += b"comment\0" if flags & 16 else b""
    header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little") if flags & 2 else b""
    layer = bytes(header) + plain[10:]
    for cut in range(len(header) + 1):
        checking = DiffIdCheck(f"{TAR}+gzip", Digest.of(b"content"))
        checking.update(memoryview(layer)[:cut])
        checking.update(memoryview(layer)[cut:])
        checking.finish()


@pytest.mark.parametrize("flag", [0x20, 0x40, 0x80])
def test_diff_id_check_refuses_reserved_gzip_flags(flag: int) -> None:
    layer = bytearray(gzip.compress(b"content"))
    layer[3] |= flag
    with pytest.raises(IntegrityError, match="gzip"):
        DiffIdCheck(f"{TAR}+gzip", Digest.of(b"content")).update(memoryview(layer))


def test_diff_id_check_decompresses_gzip_bomb_in_bounded_memory() -> None:
    size = 300 * 1024 * 1024
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1 << 20)
    bomb = b"".join([*(stream.compress(zeros) for _ in range(size >> 20)), stream.flush()])
    hasher = hashlib.sha256()
    for _ in range(size >> 20):
        hasher.update(zeros)
    checking = DiffIdCheck(f"{TAR}+gzip", Digest("sha256", hasher.hexdigest()))
    tracemalloc.start()
    try:
        checking.update(memoryview(bomb))
        checking.finish()
        assert tracemalloc.get_traced_memory()[1] < 4 * PIECE
    finally:
        tracemalloc.stop()


def test_decompressor_refuses_unknown_compression() -> None:
    with pytest.raises(RefusedError):
        decompressor(f"{TAR}+lzma")


def test_diff_id_check_aside_leaves_no_thread_when_abandoned() -> None:
    before = threading.active_count()
    with DiffIdCheckAside(TAR, Digest.of(b"")) as aside:
        aside.update(memoryview(b"piece"))
    assert threading.active_count() == before


def test_diff_id_check_aside_checks_without_thread_when_none_is_to_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with DiffIdCheckAside(TAR, Digest.of(CONTENT)) as aside:
        feed(aside, CONTENT, 1000)
    with DiffIdCheckAside(TAR, Digest.of(b"")) as aside, pytest.raises(IntegrityError):
        feed(aside, CONTENT, 1000)
