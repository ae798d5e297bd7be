"""The system calls that may fail, what each is about, and the errors it may fail with."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

_READING: Final = ("EIO", "EINTR")
_WRITING: Final = ("EIO", "ENOSPC", "EDQUOT", "EINTR")
_LOOKING: Final = ("EIO", "EACCES")
_CHANGING: Final = ("EIO", "ENOSPC", "EDQUOT", "EACCES", "EROFS")
_REMOVING: Final = ("EIO", "EACCES", "EROFS")
_OPENING: Final = ("EIO", "EACCES", "EMFILE", "EINTR")
_CREATING: Final = (*_OPENING, "ENOSPC", "EDQUOT", "EROFS")


class _Kind(NamedTuple):
    """Where a call's subject stands among its arguments, and how it may fail."""

    name: str
    errors: tuple[str, ...]
    descriptors: tuple[int, ...] = ()
    paths: tuple[tuple[int, int], ...] = ()
    """Places of a path, and of the directory it is relative to (-1 for the working directory)."""


_D, _P, _AT = (0,), ((0, -1),), ((1, 0),)

# asm/unistd_64.h
NUMBERS: Final = {
    number: _Kind(name, errors, descriptors, paths)
    for number, name, errors, descriptors, paths in (
        (0, "read", _READING, _D, ()),
        (1, "write", _WRITING, _D, ()),
        (2, "open", _OPENING, (), _P),
        (3, "close", ("EIO", "ENOSPC"), _D, ()),
        (4, "stat", _LOOKING, (), _P),
        (5, "fstat", ("EIO",), _D, ()),
        (6, "lstat", _LOOKING, (), _P),
        (17, "pread", _READING, _D, ()),
        (18, "pwrite", _WRITING, _D, ()),
        (19, "readv", _READING, _D, ()),
        (20, "writev", _WRITING, _D, ()),
        (21, "access", _LOOKING, (), _P),
        (40, "sendfile", ("EIO", "ENOSPC", "EDQUOT", "EINTR", "EINVAL"), (0, 1), ()),
        (41, "socket", ("EMFILE", "EACCES"), (), ()),
        (56, "clone", ("EAGAIN",), (), ()),
        (73, "flock", ("ENOLCK", "EINTR", "EWOULDBLOCK"), _D, ()),
        (74, "fsync", (*_WRITING, "EROFS", "EINVAL"), _D, ()),
        (75, "fdatasync", (*_WRITING, "EROFS", "EINVAL"), _D, ()),
        (77, "ftruncate", _WRITING, _D, ()),
        (82, "rename", _CHANGING, (), ((0, -1), (1, -1))),
        (83, "mkdir", _CHANGING, (), _P),
        (84, "rmdir", _REMOVING, (), _P),
        (86, "link", (*_CHANGING, "EPERM"), (), ((0, -1), (1, -1))),
        (87, "unlink", _REMOVING, (), _P),
        (88, "symlink", _CHANGING, (), ((1, -1),)),
        (90, "chmod", ("EPERM", "EROFS"), (), _P),
        (91, "fchmod", ("EPERM", "EROFS"), _D, ()),
        (217, "getdents", ("EIO",), _D, ()),
        (257, "openat", _OPENING, (), _AT),
        (258, "mkdirat", _CHANGING, (), _AT),
        (262, "newfstatat", _LOOKING, (), _AT),
        (263, "unlinkat", _REMOVING, (), _AT),
        (264, "renameat", _CHANGING, (), ((1, 0), (3, 2))),
        (265, "linkat", (*_CHANGING, "EPERM"), (), ((1, 0), (3, 2))),
        (285, "fallocate", _WRITING, _D, ()),
        (295, "preadv", _READING, _D, ()),
        (296, "pwritev", _WRITING, _D, ()),
        (316, "renameat2", _CHANGING, (), ((1, 0), (3, 2))),
        (326, "copy_file_range", (*_WRITING, "EXDEV"), (0, 2), ()),
        (332, "statx", _LOOKING, (), _AT),
        (435, "clone3", ("EAGAIN",), (), ()),
        (437, "openat2", _OPENING, (), _AT),
    )
}

_ANYWHERE: Final = ("clone", "clone3", "socket")
_RANDOM: Final = re.compile(r"[0-9a-f]{16,}|#[0-9]+")


@dataclass(frozen=True)
class Call:
    """A system call that is about to be made."""

    name: str
    subject: str
    """The file, relative to the scratch folder; random parts and digests are ``*``."""
    errors: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.subject}"


def described(pid: int, kind: _Kind, arguments: Sequence[int], scratch: Path) -> Call | None:
    """Return the call that a process is about to make, None if it is not about ``scratch``."""
    if kind.name in _ANYWHERE:
        return Call(kind.name, "", kind.errors)
    for place in kind.descriptors:
        path = _target(pid, arguments[place])
        if (subject := _within(path, scratch)) is not None:
            return Call(kind.name, subject, kind.errors)
    for place, directory in kind.paths:
        path = _text(pid, arguments[place])
        if not path and kind.name in ("newfstatat", "statx"):  # with AT_EMPTY_PATH
            kind = NUMBERS[5]
        if not path.startswith("/"):
            base = arguments[directory] & 0xFFFFFFFF if directory >= 0 else _CWD
            folder = (
                _target(pid, base) if base != _CWD else str(Path(f"/proc/{pid}/cwd").readlink())
            )
            path = f"{folder}/{path}" if path else folder
        if (subject := _within(path, scratch)) is not None:
            flags = arguments[place + 1] if kind.name in ("open", "openat") else 0
            creates = flags & (os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY)
            return Call(kind.name, subject, _CREATING if creates else kind.errors)
    return None


_CWD: Final = 0xFFFFFFFF & -100  # AT_FDCWD


def _target(pid: int, descriptor: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/fd/{descriptor & 0xFFFFFFFF}").readlink())
    except OSError:
        return ""


def _text(pid: int, address: int) -> str:
    """Read a string of the process."""
    try:
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            memory.seek(address)
            # What is not there beyond the page is not read.
            return os.fsdecode(memory.read(4096).partition(b"\0")[0])
    except (OSError, OverflowError, ValueError):
        return ""


def _within(path: str, scratch: Path) -> str | None:
    root = str(scratch)
    if path != root and not path.startswith(f"{root}/"):
        return None
    return _RANDOM.sub("*", path[len(root) + 1 :]) or "."


def number(name: str) -> int:
    """Return the number of an error."""
    return int(getattr(errno, name))
