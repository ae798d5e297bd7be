"""Locks on files and directories, against other processes; they end with the process."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from coco_kp.deadline import remaining, within
from coco_kp.errors import CocoKpError, InputError
from coco_kp.files import close, open_own, reason
from coco_kp.redact import shown

LOCK_SECONDS: Final = 60.0
"""How long to wait for a lock that is held only while a file is replaced."""

_POLL: Final = 0.01  # seconds between two tries for a lock


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other processes that lock the same directory out.

    Raises ``InputError`` if it cannot be used, or if another process keeps it for a minute: what is
    done under this lock takes no time.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as failure:
        raise InputError(f"cannot use {shown(str(directory))}: {reason(failure)}") from None
    try:
        if not lock(descriptor, directory, LOCK_SECONDS):
            raise InputError(f"another process keeps {shown(str(directory))} locked")
        yield
    finally:
        close(descriptor)


def lock(descriptor: int, path: Path, seconds: float = math.inf) -> bool:
    """Lock an open file or directory until it is closed; False if another has it so long.

    ``path`` is what messages call it. Raises ``InputError`` where there are no locks.
    """
    with within(seconds):
        return _lock(descriptor, path)


def _lock(descriptor: int, path: Path) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if remaining() < _POLL:
                return False
            time.sleep(_POLL)
        except OSError as failure:
            raise InputError(f"cannot lock {shown(str(path))}: {reason(failure)}") from None
        else:
            return True


def lock_file(path: Path) -> int | None:
    """Lock a file that is there for that alone; None if another process has it.

    Returns its descriptor, to be closed once the file is removed. Raises ``InputError`` as
    :func:`open_own` does.
    """
    while True:
        descriptor = open_own(path, os.O_RDWR)
        try:
            if not lock(descriptor, path, 0):
                close(descriptor)
                return None
        except CocoKpError:
            close(descriptor)
            raise
        if _is_at(path, os.fstat(descriptor)):
            return descriptor
        close(descriptor)  # who had it has removed it meanwhile


def _is_at(path: Path, status: os.stat_result) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.lstat(), status)
    return False
