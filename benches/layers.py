"""Images to measure with, made on the spot: of layers such as users have, and of random bytes.

The trees are what a package registry gives: Debian's smallest root file system with Python, and one
with PyTorch, SciPy and pandas. A model's weights are a tar of files that nothing compresses.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from tests.peers.tree import BASE, LIBRARIES, gzip_layer
from tests.support.documents import TAR, TAR_GZIP
from tests.support.image import Image
from tests.support.layout import LayoutWriter

from benches.machine import GIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from coco_kp.model.digest import Hasher


SHARD: Final = 512 * MIB
"""Bytes of one file of a model's weights."""


class Digests(NamedTuple):
    """The SHA-256 of a layer's file and of its content, in hexadecimal."""

    layer: str
    content: str


@dataclass(frozen=True)
class Kind:
    """An image that can be made, of layers that each a function writes to a file."""

    name: str
    group: str
    """Of those that the same is asked of."""
    media_type: str
    layers: Sequence[Callable[[BinaryIO], Digests]]

    @property
    def compressed(self) -> bool:
        return self.media_type == TAR_GZIP

    def make(self, folder: Path) -> Image:
        """Write the image as the only one of a layout."""
        layout, unnamed = LayoutWriter(folder), folder / "layer"
        layers, diff_ids = [], []
        for write in self.layers:
            with unnamed.open("wb") as file:
                digests = write(file)
            layers.append(layout.take(self.media_type, unnamed, digests.layer))
            diff_ids.append(f"sha256:{digests.content}")
        layout.name(layout.put_manifest(layers, diff_ids))
        return Image(folder)


def real(percent: int, *, quick: bool) -> Iterator[Kind]:
    """Yield the images that users have, of the weights so much; if quick, those in gzip alone."""
    for name, packages in (("base", BASE), ("libraries", LIBRARIES)):
        compressed = partial(packed, name=name, packages=packages)
        yield Kind(f"{name}, gzip", f"{name}, gzip", TAR_GZIP, [compressed])
        if not quick:
            unpacked = partial(bare, name=name, packages=packages)
            yield Kind(f"{name}, tar", f"{name}, tar", TAR, [unpacked])
    if not quick:
        shards = max(1, 8 * percent // 100)
        name = f"weights, {shards * SHARD / GIB:g} GiB, tar"
        yield Kind(name, "weights", TAR, [partial(weights, shards=shards)])


def random(percent: int) -> Iterator[Kind]:
    """Yield images of incompressible layers; of smaller ones than whole, nothing is asked."""
    for count, size in ((1, 1024), (4, 256), (40, 8)):
        group = f"{count} random" if percent == 100 else ""
        yield random_image(count, max(1, size * percent // 100), group)


def random_image(count: int, size: int, group: str = "") -> Kind:
    """Return an image of so many layers, of so many MiB each."""
    unit = f"{size // 1024} GiB" if size % 1024 == 0 else f"{size} MiB"
    layers = [partial(stored, size=size * MIB)] * count
    return Kind(f"{count} x {unit}", group, TAR_GZIP, layers)


def packed(file: BinaryIO, name: str, packages: Sequence[str]) -> Digests:
    """Write a tree in gzip."""
    writer, content = _Hashing(file), hashlib.sha256()
    path = gzip_layer(name, packages)
    with path.open("rb") as source:
        _copy(source, writer)
    with gzip.open(path) as source:
        while piece := source.read(MIB):
            content.update(piece)
    return Digests(writer.sha256.hexdigest(), content.hexdigest())


def bare(file: BinaryIO, name: str, packages: Sequence[str]) -> Digests:
    """Write a tree in a bare tar."""
    writer = _Hashing(file)
    with gzip.open(gzip_layer(name, packages)) as source:
        _copy(source, writer)
    return Digests(writer.sha256.hexdigest(), writer.sha256.hexdigest())


def weights(file: BinaryIO, shards: int) -> Digests:
    """Write a tar of so many files that nothing compresses."""
    writer = _Hashing(file)
    with tarfile.open(fileobj=writer, mode="w|") as archive:  # type: ignore[call-overload]
        for number in range(shards):
            member = tarfile.TarInfo(f"models/model-{number:05}.safetensors")
            member.size = SHARD
            archive.addfile(member, _Random())
    return Digests(writer.sha256.hexdigest(), writer.sha256.hexdigest())


def stored(file: BinaryIO, size: int) -> Digests:
    """Write bytes that nothing compresses, in gzip that does not try to."""
    writer, content = _Hashing(file), hashlib.sha256()
    stream = zlib.compressobj(0, wbits=16 + zlib.MAX_WBITS)
    for _ in range(size // MIB):
        piece = os.urandom(MIB)
        content.update(piece)
        writer.write(stream.compress(piece))
    writer.write(stream.flush())
    return Digests(writer.sha256.hexdigest(), content.hexdigest())


def _copy(source: BinaryIO | gzip.GzipFile, target: _Hashing) -> None:
    while piece := source.read(MIB):
        target.write(piece)


class _Hashing:
    """A file, and the digest of what was written into it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256: Hasher = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)


class _Random(io.RawIOBase):
    """A file without an end."""

    def read(self, size: int = -1) -> bytes:
        return os.urandom(size)
