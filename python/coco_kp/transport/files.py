"""Local files: opened, read at a place, written through to the disk; errors that name them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coco_kp.errors import InputError
from coco_kp.files import close, open_regular, reason
from coco_kp.redact import shown
from coco_kp.transport.base import RawBlob


@contextmanager
def naming(action: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the block into ``cannot <action> '<path>': <why>``."""
    try:
        yield
    except OSError as exc:
        raise InputError(f"cannot {action} {shown(str(path))}: {reason(exc)}") from exc


def write_all(fd: int, data: memoryview) -> None:
    """Write ``data`` at the file's position, all of it."""
    while data:
        data = data[os.write(fd, data) :]


def temporary_folder() -> Path:
    """Return the directory for large temporary files: ``TMPDIR``, else ``/var/tmp``.

    ``/tmp`` is memory on many machines.
    """
    return Path(os.environ.get("TMPDIR") or ("/var/tmp" if Path("/var/tmp").is_dir() else "/tmp"))  # noqa: S108


@contextmanager
def naming_temporary() -> Iterator[None]:
    """Turn an ``OSError`` of the block into one that names the directory for temporary files.

    A read that fails there is a disk's, and another directory may be on another one.
    """
    folder = temporary_folder()
    try:
        yield
    except OSError as exc:
        raise InputError(
            f"cannot use a temporary file in {shown(str(folder))}: {reason(exc)}",
            "TMPDIR names another directory for temporary files",
        ) from exc


def unnamed_file() -> int:
    """Open a temporary file that has no name and is gone when it is closed."""
    import tempfile  # noqa: PLC0415 (few images need one, and it loads much)

    with naming_temporary(), tempfile.TemporaryFile(dir=temporary_folder()) as file:
        return os.dup(file.fileno())


class FilePart(RawBlob):
    """``size`` bytes of the open file at ``path`` from ``offset`` on.

    It owns ``fd`` only if it is all of it.
    """

    def __init__(self, fd: int, offset: int, size: int, *, whole: bool, path: Path) -> None:
        self.fd = fd if whole else None
        self.path = self._path = path
        self.size = size
        self._file = fd
        self._offset = offset
        self._end = offset + size

    def readinto(self, buffer: memoryview) -> int:
        """Fill the start of ``buffer``."""
        with naming("read", self._path):
            count = os.preadv(self._file, [buffer[: self._end - self._offset]], self._offset)
        self._offset += count
        return count

    def start(self, offset: int) -> None:
        """Begin so many bytes later."""
        self._offset += offset

    def close(self) -> None:
        """Close the file if it is this blob's own."""
        if self.fd is not None:
            close(self.fd)
            self.fd = None


def open_whole(path: Path, *, named: Path | None = None) -> FilePart:
    """Open a plain file as a blob; messages call it ``named``."""
    fd = open_regular(path, named=named)
    try:
        with naming("read", named or path):
            size = os.fstat(fd).st_size
    except BaseException:
        close(fd)
        raise
    return FilePart(fd, 0, size, whole=True, path=named or path)
