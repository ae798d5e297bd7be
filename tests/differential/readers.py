"""Other programs that read images, and what they get of one without its key."""

from __future__ import annotations

import io
import subprocess
import tarfile
import zlib
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from tests.peers.builder import Builder, BuilderError
from tests.peers.debian import debian_bin
from tests.peers.skopeo import PROVIDER, Skopeo, SkopeoError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS: Final = 60


class Reader(ABC):
    """A program that reads the image in a layout."""

    @abstractmethod
    def readable(self, layout: Path, scratch: Path) -> list[str]:
        """Return the names of files that it got out of layers; none where it refused the image."""


class Copier(Reader):
    """skopeo, or what copies as it does: whatever it stores is searched for layers."""

    def __init__(self, skopeo: Skopeo) -> None:
        self._skopeo = skopeo

    def readable(self, layout: Path, scratch: Path) -> list[str]:
        with suppress(SkopeoError):  # what was stored before counts, too
            self._skopeo.copy(f"oci:{layout}", f"dir:{scratch}", "--all")
        return [name for blob in files(scratch) for name in names(blob)]

    def decrypted(self, layout: Path, scratch: Path, config: Path) -> list[bytes] | None:
        """Decrypt with a guest's keys file; return all that it stored, None where it refused."""
        key = f"{PROVIDER}:offline_fs_kbc::null"
        try:
            self._skopeo.copy(
                f"oci:{layout}", f"dir:{scratch}", "--decryption-key", key, config=config
            )
        except SkopeoError:
            return None
        return files(scratch)


class Umoci(Reader):
    """umoci, which unpacks; it wants the image to have a name."""

    def readable(self, layout: Path, scratch: Path) -> list[str]:
        program = debian_bin() / "umoci"
        subprocess.run(
            [program, "unpack", "--rootless", "--image", f"{layout}:latest", scratch / "bundle"],
            capture_output=True,
            check=False,
            timeout=SECONDS,
        )
        root = scratch / "bundle/rootfs"
        return [str(file.relative_to(root)) for file in root.rglob("*")]


class Podman(Reader):
    """podman, which unpacks every layer into its storage."""

    def readable(self, layout: Path, scratch: Path) -> list[str]:
        with suppress(BuilderError):
            Builder("podman", scratch).pull(f"oci:{layout}")
        roots = scratch.glob("storage/vfs/dir/*")
        return [str(file.relative_to(root)) for root in roots for file in root.rglob("*")]


def files(folder: Path) -> list[bytes]:
    """Return the contents of all files in a folder."""
    return [file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()]


def names(blob: bytes) -> Iterator[str]:
    """Yield the names of files in a layer, if that is what a blob is, compressed or not."""
    for content in (blob, _inflated(blob)):
        try:
            with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
                yield from archive.getnames()
        except tarfile.TarError:
            continue


def _inflated(blob: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(blob)
    except zlib.error:
        return b""
