"""Files, read within bounds and written so that nobody sees half of one.

A secret file is made 0600 from its first byte on. A file takes its name only when it is complete
and on the disk; whoever dies earlier leaves the old one, and a temporary file beside it that the
next write of the same file removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from coco_kp.errors import CocoKpError, InputError, RefusedError
from coco_kp.redact import shown

StrPath = str | os.PathLike[str]
"""A path as callers may give it."""

_NO_HARD_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""What FAT, SMB and FUSE answer where they have none."""


class UnsyncedError(InputError):
    """A new file has its name, and is not known to be on the disk."""


class Content(NamedTuple):
    """A file's bytes, and its owner and mode."""

    data: bytes
    status: os.stat_result


def read_file(
    path: Path,
    limit: int,
    error: type[CocoKpError] = InputError,
    *,
    named: Path | None = None,
) -> Content:
    """Read a regular file of at most ``limit`` bytes; longer ones give ``limit + 1`` bytes.

    Raises ``error`` as :func:`open_regular` does.
    """
    descriptor = open_regular(path, error, named=named)
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return Content(file.read(limit + 1), os.fstat(descriptor))
    except OSError as failure:
        raise error(f"cannot read {shown(str(named or path))}: {reason(failure)}") from None
    finally:
        close(descriptor)


def read_small(
    path: Path,
    limit: int,
    error: type[CocoKpError] = InputError,
    *,
    named: Path | None = None,
) -> bytes:
    """Read a regular file of at most ``limit`` bytes; messages call it ``named``.

    Raises ``error`` for a longer one, too.
    """
    data = read_file(path, limit, error, named=named).data
    if len(data) > limit:
        raise error(
            f"{shown(str(named or path))} is longer than the {limit} bytes that it may have"
        )
    return data


def read_small_if_there(path: Path, limit: int, *, named: Path | None = None) -> bytes | None:
    """Read a file as :func:`read_small` does; None where there is nothing of that name."""
    return read_small(path, limit, named=named) if is_there(path) else None


def close(descriptor: int) -> None:
    """Close a file that was only read, or is of no more use, or is on the disk by fsync(2).

    An error of closing says nothing new about such a file, and must not hide the one that does.
    """
    with contextlib.suppress(OSError):
        os.close(descriptor)


def open_regular(
    path: Path, error: type[CocoKpError] = InputError, *, named: Path | None = None
) -> int:
    """Open a regular file for reading, and return its descriptor.

    Raises ``error`` if there is none or it cannot be read; messages call it ``named``. A FIFO or a
    device is refused unread, since reading one could block for ever.
    """
    name = shown(str(named or path))
    try:
        # O_NONBLOCK: opening a FIFO must not wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError:
            close(descriptor)
            raise
    except OSError as failure:
        raise error(f"cannot read {name}: {reason(failure)}") from None
    if stat.S_ISREG(mode):
        return descriptor
    close(descriptor)
    if stat.S_ISDIR(mode):
        raise error(f"{name} is a directory, not a file")
    raise error(f"{name} is not a regular file")


def write_file(path: Path, data: bytes, *, replace: bool, mode: int = 0o600) -> None:
    """Write a file whole and to the disk before it has its name, for its owner only by default.

    Raises ``RefusedError`` if it exists and ``replace`` is False, ``InputError`` if it cannot be
    written; then nothing is left, or the old file, or the error says that the new one is in place.
    """
    if not path.name:
        raise InputError(f"cannot write {shown(str(path))}: it is a directory")
    if replace:
        check_replaceable(path)
    try:
        _remove_abandoned(path)
        temporary, descriptor = _open_temporary(path, mode)
        try:
            # Open, and so locked, until it has its name.
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(data)
            os.fsync(descriptor)
            if replace:
                temporary.rename(path)
            else:
                _take_name(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # then the next write of this file removes it
                temporary.unlink(missing_ok=True)
            close(descriptor)
        _sync_name(path, replace=replace)
    except FileExistsError:
        raise RefusedError(
            f"{shown(str(path))} exists", "choose another name", code="file-exists"
        ) from None
    except OSError as failure:
        raise unwritten(path, failure) from None


def check_replaceable(path: Path) -> None:
    """Raise ``InputError`` where a device, a FIFO, a link or a directory has the name of a file.

    Else ``/dev/null`` would become a file, for all programs of the machine. Raises it also where
    no file can be made in the directory.
    """
    with contextlib.suppress(OSError):  # of what is not there
        if not stat.S_ISREG(path.lstat().st_mode):
            directory = path.is_dir() and not path.is_symlink()
            what = "a directory" if directory else "not a regular file"
            raise InputError(f"cannot write {shown(str(path))}: it is {what}")
    check_directory(path)


def check_directory(path: Path) -> None:
    """Raise ``InputError`` where the directory of a file to be made is missing or closed."""
    if not is_folder(path.parent):
        raise unwritten(path, FileNotFoundError(errno.ENOENT, ""))
    if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
        raise InputError(f"cannot write {shown(str(path))}: its directory is not writable")


def _sync_name(path: Path, *, replace: bool) -> None:
    """Put a new file's name on the disk; where that fails, take it away if nothing had it before.

    Raises ``UnsyncedError`` if it stays, else ``OSError``.
    """
    try:
        sync_directory(path.parent)
    except OSError as failure:
        if not replace and _removed(path):
            raise
        raise UnsyncedError(
            f"{shown(str(path))} is in place, but may not outlast a crash of this machine: "
            f"{reason(failure)}"
        ) from None


def _removed(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.unlink()
        return True
    return False


def _open_temporary(path: Path, mode: int) -> tuple[Path, int]:
    """Make ``.<name>.<16 hex digits>.tmp`` beside ``path``, locked while it is open."""
    while True:
        # Not from `secrets`, whose import takes 4 ms.
        temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with contextlib.suppress(OSError):  # where nobody can lock, nobody removes either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Until the lock was there, others may have taken it for abandoned.
        if is_there(temporary):
            return temporary, descriptor
        close(descriptor)


def _remove_abandoned(path: Path) -> None:
    """Remove temporary files of ``path`` whose writers were killed: they hold what it holds."""
    form = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.tmp")
    with contextlib.suppress(OSError):  # a directory that cannot be listed
        for file in path.parent.iterdir():
            if form.fullmatch(file.name):
                with contextlib.suppress(OSError):
                    _remove_unlocked(file)


def _remove_unlocked(temporary: Path) -> None:
    # For writing, without which NFS gives no lock.
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(temporary, flags)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink()
    finally:
        close(descriptor)


def _take_name(temporary: Path, path: Path) -> None:
    """Rename a temporary file to a name. Raises ``FileExistsError`` if the name is taken."""
    try:
        os.link(temporary, path)  # unlike rename, fails if the name is taken
    except OSError as failure:
        if failure.errno not in _NO_HARD_LINKS:
            raise
    else:
        return
    # Claim the name with an empty file, all that a crash can leave, and replace that.
    close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        temporary.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def home() -> Path:
    """Return the user's home, ``/nonexistent`` for a user of a container who has no name."""
    try:
        return Path.home()
    except RuntimeError:  # neither HOME nor an entry in /etc/passwd
        return Path("/nonexistent")  # as Debian has it for users without


def is_there(path: Path) -> bool:
    """Return whether there is a file. One that cannot be looked at counts: its use will say why."""
    return _is(path, lambda _: True)


def exists(path: Path) -> bool:
    """Return whether something has that name, be it a link to nothing.

    Raises ``InputError`` if it cannot be looked at.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as failure:
        raise InputError(f"cannot look at {shown(str(path))}: {reason(failure)}") from None
    return True


def is_folder(path: Path) -> bool:
    """Return whether it is a directory. What cannot be looked at counts: its use will say why."""
    return _is(path, stat.S_ISDIR)


def _is(path: Path, kind: Callable[[int], bool]) -> bool:
    try:
        return kind(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def brief(path: Path) -> Path:
    """Return what messages call a file whose name is a digest: whole, it is masked as a key."""
    return path.with_name(f"{path.name[:12]}…")


def sync_directory(path: Path) -> None:
    """Put a directory's entries on the disk. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as failure:
        if failure.errno != errno.EINVAL:  # file systems, mostly remote ones, that cannot
            raise
    finally:
        close(descriptor)


def open_own(path: Path, flags: int) -> int:
    """Open a file of this user's to write to it, made 0600 if it is not there.

    No link is followed, and no file opened that has another name as well. Raises ``InputError``.
    """
    flags |= os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o600)
        try:
            status = os.fstat(descriptor)
        except OSError:
            close(descriptor)
            raise
    except OSError as failure:
        raise unwritten(path, failure) from None
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or status.st_uid != os.geteuid():
        close(descriptor)
        raise InputError(
            f"cannot write {shown(str(path))}: it is not a file of this user's alone",
            "remove it, if nobody needs it",
        )
    return descriptor


def unwritten(path: Path, failure: OSError, what: str = "") -> InputError:
    """Make the error for a file that was not written; ``what`` says what kind of file it is."""
    missing = failure.errno == errno.ENOENT and not is_folder(path.parent)
    why = f"there is no directory {shown(str(path.parent))}" if missing else reason(failure)
    return InputError(f"cannot write {what and f'the {what} '}{shown(str(path))}: {why}")


def reason(failure: OSError) -> str:
    """Say in a few words why the operating system refused, without the path."""
    if failure.errno == errno.ENOENT:
        return "no such file"
    text = failure.strerror or type(failure).__name__
    return text[:1].lower() + text[1:]
