"""Unfinished files: in a directory of their own, beside where they will go, until all is well.

The directory ``.coco-kp-<16 hex digits>`` holds a marker, and is locked (``flock``) as long as its
process lives. Whoever makes the next one there removes those whose lock is free, for their
processes were killed: only directories of that form with the marker, or empty. All else is the
user's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Final

from coco_kp.errors import CocoKpError, InPlaceError, IntegrityError
from coco_kp.files import close, is_there, reason, sync_directory
from coco_kp.model.digest import Digest
from coco_kp.redact import shown
from coco_kp.transport.base import BlobWriter, Pieces
from coco_kp.transport.files import naming, write_all

PREFIX: Final = ".coco-kp-"
MARKER: Final = "unfinished-files-of-coco-kp"
_FORM: Final = re.compile(rf"{re.escape(PREFIX)}[0-9a-f]{{16}}")
_TRIES: Final = 100


class Staging:
    """A private directory in ``parent``; ``close`` removes it with all that is left in it."""

    def __init__(self, parent: Path) -> None:
        with naming("write to", parent):
            _remove_abandoned(parent)
            self.folder, self._lock, self._made = _make(parent)
        self._published: list[Path] = []

    def create(self) -> tuple[Path, int]:
        """Make an empty file and return its path and descriptor, open for reading and writing."""
        with naming("write to", self.folder.parent):
            # Unlike mkstemp's, these files get the modes that the user's umask gives new files.
            name = self.folder / os.urandom(8).hex()
            return name, os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)

    def write(self, data: bytes) -> Path:
        """Make a durable file of ``data`` and return its path."""
        path, fd = self.create()
        with naming("write to", self.folder.parent):
            try:
                write_all(fd, memoryview(data))
                os.fsync(fd)
            finally:
                close(fd)
        return path

    def publish(self, staged: Path, final: Path) -> None:
        """Rename a durable staged file to its final name, replacing an old one; not yet durable."""
        with naming("write to", final.parent):
            new = not is_there(final)
            self._made[:0] = _missing(final.parent)
            final.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(final)
        if new:
            self._published.append(final)

    def publish_durably(self, staged: Path, final: Path) -> None:
        """Rename a durable staged file to its final name, and make the name durable."""
        self.publish(staged, final)
        with naming("write", final):
            sync_directory(final.parent)

    @contextlib.contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Take away what the block gave new names to, if it fails before the image has its own."""
        try:
            yield
        except InPlaceError:
            raise
        except CocoKpError:
            for path in self._published:
                with contextlib.suppress(OSError):
                    path.unlink()
            raise

    def close(self) -> None:
        """Remove the directory, and those made on the way to it that are empty.

        A second call does nothing.
        """
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                _remove(self.folder)
            close(self._lock)
            self._lock = -1
            _remove_empty(self._made)  # those that are in use by now stay


class StagedBlob(BlobWriter):
    """A blob in a staged file; ``keep`` is called with path, digest and size once it is durable."""

    def __init__(self, staging: Staging, keep: Callable[[Path, Digest, int], None]) -> None:
        self.folder = self._parent = staging.folder.parent
        self._path, self.fd = staging.create()
        self._keep = keep

    def take(self, pieces: Pieces) -> None:
        """Write it."""
        for piece in pieces(0):
            with naming("write to", self._parent):
                write_all(self._open(), piece)

    def commit(self, digest: Digest, size: int) -> None:
        """Make the file durable and hand it over."""
        fd = self._open()
        with naming("write to", self._parent):
            found = os.fstat(fd).st_size
            if found != size:
                self.abort()
                raise IntegrityError(f"the blob {digest} has {found} bytes, expected {size}")
            os.fsync(fd)
        self._close()
        self._keep(self._path, digest, size)

    def abort(self) -> None:
        """Remove the file."""
        if self.fd is not None:
            self._close()
            with contextlib.suppress(OSError):  # it goes with the directory
                self._path.unlink(missing_ok=True)

    def _open(self) -> int:
        if self.fd is None:
            raise ValueError("the blob is finished")
        return self.fd

    def _close(self) -> None:
        close(self._open())
        self.fd = None


def publish_image(staged: Path, final: Path, reference: str) -> None:
    """Rename the file to its final name, with which ``reference`` becomes the new image.

    Raises ``InPlaceError`` if that has happened, else ``InputError``.
    """
    with naming("write", final):
        staged.replace(final)
    try:
        sync_directory(final.parent)
    except OSError as error:
        raise InPlaceError(
            f"{reference} is in place, but may not outlast a crash of this machine: "
            f"cannot write {shown(str(final.parent))}: {reason(error)}"
        ) from error


def _make(parent: Path) -> tuple[Path, int, list[Path]]:
    """Make the directory, lock and mark it; return also parents made for it, innermost first."""
    made: list[Path] = []
    try:
        for _ in range(_TRIES):
            made = made or _missing(parent)
            parent.mkdir(parents=True, exist_ok=True)
            # Until the lock is there, others may take the directory for abandoned and remove it.
            with contextlib.suppress(FileNotFoundError):
                folder = parent / f"{PREFIX}{os.urandom(8).hex()}"
                folder.mkdir(mode=0o700)
                return folder, _marked(folder), made
    except BaseException:
        _remove_empty(made)
        raise
    raise FileNotFoundError(errno.ENOENT, "its temporary directory is removed again and again")


def _marked(folder: Path) -> int:
    """Lock a new directory, mark it, and return what keeps it locked; or remove it."""
    fd = -1
    try:
        fd = os.open(folder, _OPEN)
        fcntl.flock(fd, fcntl.LOCK_EX)
        (folder / MARKER).touch()
    except BaseException:
        with contextlib.suppress(OSError):
            (folder / MARKER).unlink(missing_ok=True)
        _remove_empty([folder])
        if fd >= 0:
            close(fd)
        raise
    return fd


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove those that are empty and can be removed, in this order."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _missing(folder: Path) -> list[Path]:
    """Return the directories that are to be made for this one, innermost first."""
    return list(takewhile(lambda path: not is_there(path), (folder, *folder.parents)))


_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        if _FORM.fullmatch(folder.name):
            with contextlib.suppress(OSError):
                _remove_unlocked(folder)


def _remove_unlocked(folder: Path) -> None:
    fd = os.open(folder, _OPEN)
    try:
        if os.fstat(fd).st_uid == os.geteuid():
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
    finally:
        close(fd)


def _remove(folder: Path) -> None:
    """Remove a directory that has the marker, or is empty; raises ``OSError``."""
    marker = folder / MARKER
    if marker.is_file():
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                import shutil  # noqa: PLC0415 (nobody but an oci-archive has one, and it loads much)

                shutil.rmtree(entry)
            elif entry != marker:
                entry.unlink()
        marker.unlink()  # the last, so that whoever is killed before leaves what the next removes
    folder.rmdir()
