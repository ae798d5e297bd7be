"""The verdict at the end of a blob."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path

import pytest

from coco_kp.errors import IntegrityError
from coco_kp.model.manifest import Descriptor, describe, parse_descriptor
from coco_kp.transport import BlobReader
from coco_kp.transport.base import RawBlob
from coco_kp.transport.files import open_whole

DATA = os.urandom(10_000)
BLOB = describe("x", DATA)
SHA512 = parse_descriptor(
    {**BLOB.document, "digest": "sha512:" + __import__("hashlib").sha512(DATA).hexdigest()}, "x"
)


class Bytes(RawBlob):
    """Bytes that come in pieces of at most ``step``."""

    def __init__(self, data: bytes, step: int = 1 << 20) -> None:
        self.stream = io.BytesIO(data)
        self.step = step

    def readinto(self, buffer: memoryview) -> int:
        return self.stream.readinto(buffer[: self.step])

    def start(self, offset: int) -> None:
        self.stream.seek(offset)

    def close(self) -> None:
        self.stream.close()


def reader(
    data: bytes, blob: Descriptor = BLOB, *, verify: bool = True, step: int = 1 << 20
) -> BlobReader:
    return BlobReader(Bytes(data, step), blob, verify=verify)


@pytest.mark.parametrize("blob", [BLOB, SHA512])
@pytest.mark.parametrize("step", [1, 7, 4096, 10_000, 10_001])
@pytest.mark.parametrize("verify", [True, False])
def test_blob_reader_returns_blob_in_steps_of_any_size(
    blob: Descriptor, step: int, verify: bool
) -> None:
    with reader(DATA, blob, verify=verify, step=step) as stream:
        assert stream.readall() == DATA
        assert stream.read(1) == b""


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (DATA[:-1], "ends 1 bytes early"),
        (b"", "ends 10000 bytes early"),
        (DATA + b"x", "longer than the 10000 bytes"),
        (DATA + DATA, "longer than the 10000 bytes"),
    ],
)
def test_blob_reader_raises_for_wrong_size_on_every_read(
    data: bytes, words: str, verify: bool
) -> None:
    with reader(data, verify=verify) as stream:
        for _ in range(3):
            with pytest.raises(IntegrityError, match=words):
                stream.readall()


@pytest.mark.parametrize("position", [0, 5000, 9999])
def test_blob_reader_raises_for_flipped_bit(position: int) -> None:
    damaged = bytearray(DATA)
    damaged[position] ^= 1
    with reader(bytes(damaged)) as stream:
        for _ in range(3):
            with pytest.raises(IntegrityError, match="content that its digest names"):
                stream.readall()


def test_blob_reader_returns_no_byte_beyond_size() -> None:
    with reader(DATA + b"x" * 5_000) as stream:
        buffer = bytearray(20_000)
        with pytest.raises(IntegrityError):
            stream.readinto(buffer)
        assert buffer[10_001:] == bytes(9_999)


def test_blob_reader_does_not_judge_empty_read() -> None:
    with reader(b"") as stream:
        assert stream.read(0) == b""


def test_blob_reader_works_with_buffered_reader() -> None:
    packed = zlib.compress(DATA)
    stream = io.BufferedReader(reader(packed, describe("x", packed)))
    assert zlib.decompress(stream.read()) == DATA
    stream.close()


class TestDescriptor:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "blob"
        path.write_bytes(DATA)
        return path

    def test_blob_reader_offers_descriptor_when_caller_verifies(self, file: Path) -> None:
        with BlobReader(open_whole(file), BLOB, verify=False) as stream:
            assert stream.fd is not None
            assert os.pread(stream.fd, 10, 0) == DATA[:10]

    def test_blob_reader_offers_no_descriptor_when_it_verifies_itself(self, file: Path) -> None:
        with BlobReader(open_whole(file), BLOB, verify=True) as stream:
            assert stream.fd is None

    def test_blob_reader_closes_its_descriptor(self, file: Path) -> None:
        with BlobReader(open_whole(file), BLOB, verify=False) as stream:
            fd = stream.fd
        assert fd is not None
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)

    def test_blob_reader_refuses_file_of_another_size(self, file: Path) -> None:
        file.write_bytes(DATA + b"x")
        with pytest.raises(IntegrityError, match="size of its descriptor"):
            BlobReader(open_whole(file), BLOB, verify=False)
