"""The digest of a layer's content, from pieces of any size, in bounded memory."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from coco_kp.errors import InputError, IntegrityError, RefusedError
from coco_kp.image.diff_id import DiffIdCheck
from coco_kp.model.digest import Digest
from coco_kp.unpacking import Unpacking
from tests.support.tar_blocks import END, entry

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[[str, bytes, bytes, int], None]

TAR = "application/vnd.oci.image.layer.v1.tar"
CONTENT = os.urandom(100_000) + bytes(2_000_000)
SKIPPABLE = b"\x5f\x2a\x4d\x18\x03\0\0\0abc"
CHECKED: dict[int, int] = {zstd.CompressionParameter.checksum_flag: 1}


@pytest.fixture(params=[False, True], ids=["here", "aside"])
def check(request: pytest.FixtureRequest) -> Check:
    """Checks a layer in pieces, whose buffer is overwritten at once, as the engine does."""

    def run(media_type: str, layer: bytes, content: bytes, step: int) -> None:
        diff_id = Digest.of(content)
        with DiffIdCheck(media_type, diff_id, Unpacking(), aside=request.param) as checking:
            feed(checking, layer, step)

    return run


def feed(checking: DiffIdCheck, layer: bytes, step: int) -> None:
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
        ("+zstd", zstd.compress),
        (
            "+zstd",
            lambda data: zstd.compress(data[:7]) + zstd.compress(b"") + zstd.compress(data[7:]),
        ),
        ("+zstd", lambda data: SKIPPABLE + zstd.compress(data, options=CHECKED) + SKIPPABLE),
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


@pytest.mark.parametrize(
    "broken",
    [
        lambda layer: layer[:-1],
        lambda layer: layer[:-4] + bytes(4),  # its checksum
        lambda layer: layer[:4] + bytes([layer[4] | 8]) + layer[5:],  # a reserved bit
        lambda layer: layer[5:],
        lambda layer: layer + b"x",
        lambda layer: layer + SKIPPABLE[:-1],
        lambda _: b"",
    ],
)
def test_diff_id_check_refuses_malformed_zstd_stream(
    check: Check, broken: Callable[[bytes], bytes]
) -> None:
    layer = zstd.compress(CONTENT, options=CHECKED)
    with pytest.raises(IntegrityError, match=r"zstd stream"):
        check(f"{TAR}+zstd", broken(layer), CONTENT, 1000)


def test_diff_id_check_refuses_zstd_frame_of_other_size_than_it_says(check: Check) -> None:
    said = bytearray(zstd.compress(b"content"))
    assert said[4:6] == bytes([0x20, 7])  # a single segment, with its size
    said[5] = 8
    with pytest.raises(IntegrityError, match="zstd stream"):
        check(f"{TAR}+zstd", bytes(said), b"content", 1000)


def test_diff_id_check_limits_how_far_zstd_looks_back(check: Check) -> None:
    for window_log in (25, 26):
        options: dict[int, int] = {
            zstd.CompressionParameter.window_log: window_log,
            zstd.CompressionParameter.enable_long_distance_matching: 1,
        }
        stream = zstd.ZstdCompressor(options=options)
        layer = stream.compress(CONTENT) + stream.flush()  # without its size
        if window_log == 25:
            check(f"{TAR}+zstd", layer, CONTENT, 1 << 20)
        else:
            with pytest.raises(IntegrityError, match="zstd stream") as error:
                check(f"{TAR}+zstd", layer, CONTENT, 1 << 20)
            assert "look back 32 MiB" in error.value.hint


@pytest.mark.parametrize("flags", range(32))
def test_diff_id_check_accepts_split_gzip_header_with_any_flags(flags: int) -> None:
    """RFC 1952, 2.3. ISA-L, tried for its speed, refused some of these."""
    layer = header_with(flags) + BODY
    for cut in range(len(layer) - len(BODY) + 1):
        checking = DiffIdCheck(f"{TAR}+gzip", Digest.of(b"content"), Unpacking())
        checking.update(memoryview(layer)[:cut])
        checking.update(memoryview(layer)[cut:])
        checking.finish()


BODY = gzip.compress(b"content", mtime=0)[10:]


def header_with(flags: int) -> bytes:
    header = bytearray(gzip.compress(b"", mtime=0)[:10])
    header[3] = flags
    header += b"\x04\x00abcd" if flags & 4 else b""
    header += b"name\0" if flags & 8 else b""
    header += b"comment\0" if flags & 16 else b""
    header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little") if flags & 2 else b""
    return bytes(header)


def test_diff_id_check_refuses_wrong_checksum_of_gzip_header(check: Check) -> None:
    header = bytearray(header_with(2))
    header[-1] ^= 1
    with pytest.raises(IntegrityError, match="gzip"):
        check(f"{TAR}+gzip", bytes(header) + BODY, b"content", 1000)


@pytest.mark.parametrize("flag", [0x20, 0x40, 0x80])
def test_diff_id_check_refuses_reserved_gzip_flags(check: Check, flag: int) -> None:
    layer = bytearray(gzip.compress(b"content"))
    layer[3] |= flag
    with pytest.raises(IntegrityError, match="gzip"):
        check(f"{TAR}+gzip", bytes(layer), b"content", 1000)


@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.parametrize("member", [0, 1])
def test_diff_id_check_tells_gzip_checksum_of_header_in_any_member(member: int, step: int) -> None:
    content = entry(b"a") + END
    halves = [gzip.compress(content[:512], mtime=0), gzip.compress(content[512:], mtime=0)]
    halves[member] = header_with(2) + halves[member][10:]
    refusals: list[InputError] = []
    diff_id = Digest.of(content)
    feed(
        DiffIdCheck(f"{TAR}+gzip", diff_id, Unpacking(), refusals=refusals), b"".join(halves), step
    )
    assert [refusal.message for refusal in refusals] == [
        "guests refuse the layer's content: it has a gzip header with a checksum (FHCRC)"
    ]


@pytest.mark.parametrize("aside", [False, True])
def test_diff_id_check_names_block_of_first_entry_that_guests_refuse(aside: bool) -> None:
    content = entry(b"a", b"1") + entry(b"secret", kind=b"1", target=b"other") + END
    refusals: list[InputError] = []
    with DiffIdCheck(
        TAR, Digest.of(content), Unpacking(), refusals=refusals, aside=aside
    ) as checking:
        feed(checking, content, 100)
    (refusal,) = refusals
    assert refusal.message == (
        "guests refuse the layer's content: the entry at block 2 "
        "leads to what the layer does not have by then"
    )
    assert "--block-number" in refusal.hint


@pytest.mark.parametrize("kind", ["", "+gzip", "+zstd"])
@pytest.mark.parametrize("aside", [False, True])
def test_diff_id_check_takes_sha512(kind: str, aside: bool) -> None:
    compress: dict[str, Any] = {"": bytes, "+gzip": gzip.compress, "+zstd": zstd.compress}
    for content in (CONTENT, CONTENT + b"x"):
        diff_id = Digest("sha512", hashlib.sha512(CONTENT).hexdigest())
        with DiffIdCheck(TAR + kind, diff_id, Unpacking(), aside=aside) as checking:
            if content == CONTENT:
                feed(checking, compress[kind](content), 100_000)
            else:
                with pytest.raises(IntegrityError, match="not the one that the config names"):
                    feed(checking, compress[kind](content), 100_000)


def test_diff_id_check_refuses_unknown_compression() -> None:
    with pytest.raises(RefusedError):
        DiffIdCheck(f"{TAR}+lzma", Digest.of(b""), Unpacking())


@pytest.mark.parametrize("finished", [False, True])
def test_diff_id_check_aside_leaves_no_thread(finished: bool) -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    before = threads()
    with DiffIdCheck(f"{TAR}+gzip", Digest.of(CONTENT), Unpacking(), aside=True) as aside:
        aside.update(gzip.compress(CONTENT))
        if finished:
            aside.finish()
    assert threads() <= before


def test_diff_id_check_aside_checks_without_thread_when_none_is_to_be_had() -> None:
    code = (
        "import sys; from coco_kp.unpacking import *; unpacking = Unpacking();"
        "check = ContentCheck('', 'sha256', unpacking, guest=True, aside=True);"
        "check.update(b'x' * 1000); print(check.finish())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        # As where no more processes are allowed: no stack fits into the address space.
        env=os.environ | {"RUST_MIN_STACK": str(1 << 47)},
        check=True,
    )
    assert repr(hashlib.sha256(b"x" * 1000).digest()) in run.stdout


def alone(code: str, *arguments: Path) -> tuple[str, int]:
    """Run code in its own process; return the line it prints, and its peak memory in bytes."""
    code = (
        "import re, sys; from pathlib import Path; from coco_kp.unpacking import *;"
        f"{code};"
        "print(re.search(r'VmHWM:\\s*(\\d+) kB', Path('/proc/self/status').read_text())[1])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    said, peak = run.stdout.splitlines()
    return said, int(peak) * 1024


@pytest.mark.parametrize("aside", [False, True])
@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_content_check_decompresses_bomb_in_bounded_memory(
    aside: bool, kind: str, tmp_path: Path
) -> None:
    size = 300 << 20
    zeros, bomb = bytes(1 << 20), tmp_path / "bomb"
    stream = zlib.compressobj(9, zlib.DEFLATED, 31) if kind == "gzip" else zstd.ZstdCompressor()
    pieces = [*(stream.compress(zeros) for _ in range(size >> 20)), stream.flush()]
    bomb.write_bytes(b"".join(pieces))
    hasher = hashlib.sha256()
    for _ in range(size >> 20):
        hasher.update(zeros)
    digest, peak = alone(
        f"check = ContentCheck({kind!r}, 'sha256', Unpacking(), guest=True, aside={aside});"
        "check.update(Path(sys.argv[1]).read_bytes()); print(check.finish()[0].hex())",
        bomb,
    )
    assert digest == hasher.hexdigest()
    assert peak < 48 << 20


def test_content_check_holds_bounded_memory_for_names() -> None:
    """Of directories in one another, and of content none. docs/verify.md has the figure."""
    message, peak = alone(
        "from tests.support.tar_blocks import entry;"
        "check = ContentCheck('', 'sha256', Unpacking(), guest=True);"
        "check.update(entry(b'content', bytes(50 << 20)));"
        "[check.update(entry(b'%05d/' % n + b'd/' * 40 + b'f')) for n in range(12_000)];"
        "print(check.finish()[1].message)"
    )
    assert message.endswith("no more than 500000 names are judged")
    assert peak < 190 << 20  # the content is made in this process, too


def test_content_check_holds_target_of_hard_links_once() -> None:
    """Each of many hard links to a symbolic link held a copy of its long target."""
    message, peak = alone(
        "from tests.support.tar_blocks import entry;"
        "check = ContentCheck('', 'sha256', Unpacking(), guest=True);"
        "path = b'/'.join([b'd' * 250] * 15) + b'\\0';"
        "check.update(entry(b'././@LongLink', path, kind=b'L') + entry(b'file'));"
        "check.update(entry(b'././@LongLink', path, kind=b'K'));"
        "check.update(entry(b'link', kind=b'2', target=b't'));"
        "[check.update(entry(b'%06d' % n, kind=b'1', target=b'link')) for n in range(100_000)];"
        "check.update(bytes(1024)); print(check.finish()[1])"
    )
    assert message == "None"
    assert peak < 100 << 20


def test_content_check_lets_other_threads_run() -> None:
    layer = zlib.compress(bytes(200 << 20), wbits=31)
    checking = DiffIdCheck(f"{TAR}+gzip", Digest.of(b""), Unpacking())
    worker = threading.Thread(target=checking.update, args=(layer,))
    worker.start()
    turns = 0
    while worker.is_alive():
        turns += 1
    assert turns > 1000  # one or two, if the lock were held
