"""Layers such as users have, made on the spot: the libraries of the locked Python environment."""

from __future__ import annotations

import hashlib
import sysconfig
import tarfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from tests.support.documents import TAR, TAR_GZIP
from tests.support.image import Image
from tests.support.layout import LayoutWriter

if TYPE_CHECKING:
    from coco_kp.model.digest import Hasher

LEVEL: Final = 6
"""Of gzip, as most tools have it."""


class _Layer:
    """A layer that is written: its bytes go to a file, and both digests grow."""

    def __init__(self, file: BinaryIO, *, compressed: bool) -> None:
        self._file = file
        self._deflate = zlib.compressobj(LEVEL, wbits=31) if compressed else None
        self.digest: Hasher = hashlib.sha256()
        self.diff_id: Hasher = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.diff_id.update(data)
        self._append(self._deflate.compress(data) if self._deflate else data)
        return len(data)

    def finish(self) -> None:
        self._append(self._deflate.flush() if self._deflate else b"")

    def _append(self, data: bytes) -> None:
        self.digest.update(data)
        self._file.write(data)


def write_libraries_image(folder: Path, *, compressed: bool) -> Image:
    """Write an image of one layer that holds the libraries, in gzip or as it is."""
    layout, unnamed = LayoutWriter(folder), folder / "layer"
    with unnamed.open("wb") as file:
        layer = _Layer(file, compressed=compressed)
        with tarfile.open(fileobj=layer, mode="w|") as archive:  # type: ignore[call-overload]
            archive.add(sysconfig.get_path("purelib"), "usr/lib/python3/dist-packages")
        layer.finish()
    kind = TAR_GZIP if compressed else TAR
    descriptor = layout.take(kind, unnamed, layer.digest.hexdigest())
    layout.name(layout.put_image([descriptor], [f"sha256:{layer.diff_id.hexdigest()}"]))
    return Image(folder)
