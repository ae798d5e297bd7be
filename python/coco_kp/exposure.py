"""What others may do with a secret file: the warnings, by the rules of ssh.

A key that others may read is no secret; one that they may change or replace makes images for them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from coco_kp.redact import shown

_ROOT: Final = 0
_UNMAPPED: Final = 65534
"""How the host's root looks from a user namespace, such as that of ``buildah unshare``."""

_READABLE: Final = stat.S_IRGRP | stat.S_IROTH
_WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH


def exposure(what: str, path: Path, status: os.stat_result) -> tuple[str, ...]:
    """Return warnings about a file, and about the first directory above it that is not safe.

    ``what`` says what kind of file ``path`` is, ``status`` is that of the file that was read.
    """
    name = f"the {what} {shown(str(path))}"
    found = (_of_owner(name, status.st_uid), _of_mode(name, status.st_mode))
    return tuple(text for text in (*found, _of_directories(name, path)) if text)


def _of_owner(name: str, uid: int) -> str:
    return "" if _is_trusted(uid) else f"another user (uid {uid}) may change {name}: it is his"


def _of_mode(name: str, mode: int) -> str:
    actions = " and ".join(
        action for action, bits in {"read": _READABLE, "change": _WRITABLE}.items() if mode & bits
    )
    return f"others may {actions} {name}: chmod 600 it" if actions else ""


def _of_directories(name: str, path: Path) -> str:
    # As texts: to make a Path of each takes longer than to look at it.
    below = os.path.realpath(path)
    while (directory := os.path.dirname(below)) != below:  # noqa: PTH120
        below = directory
        try:
            status = os.stat(directory)  # noqa: PTH116
        except OSError:
            return ""
        trusted = _is_trusted(status.st_uid)
        if trusted and not _others_may_write(status):
            continue
        place = f"the directory {shown(directory)}"
        if not trusted:
            return f"another user (uid {status.st_uid}) may replace {name}: {place} is his"
        return f"others may replace {name}: they may write to {place}: chmod go-w it"
    return ""


def _is_trusted(uid: int) -> bool:
    return uid in (os.geteuid(), _ROOT, _UNMAPPED)


def _others_may_write(directory: os.stat_result) -> bool:
    if directory.st_mode & stat.S_ISVTX:  # what is in it can be replaced by its owner alone
        return False
    if directory.st_mode & stat.S_IWOTH:
        return True
    return bool(directory.st_mode & stat.S_IWGRP) and not _is_private(directory.st_gid)


def _is_private(gid: int) -> bool:
    """Return whether a group is this user's alone, as Debian and Fedora make one for each user."""
    import grp  # noqa: PLC0415 (files are seldom a group's)
    import pwd  # noqa: PLC0415

    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
