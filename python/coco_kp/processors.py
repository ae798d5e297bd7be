"""How many processors this process may use: a container's share of them, not the host's.

Linux counts what a process may run on in its affinity, but not how much of it: that is the quota of
its control group, and of each group above that (cgroups(7); cpu.max of the kernel's cgroup-v2.rst,
cpu.cfs_quota_us and cpu.cfs_period_us of sched-bwc.rst).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

_PROC: Final = Path("/proc/self")


def processors(process: Path = _PROC) -> int:
    """Return how many processors this process may use at once, 1 at the least.

    A part of a processor counts as one: a thread can use it. ``process`` is where the kernel
    describes the process (proc(5)); what cannot be read there limits nothing.
    """
    quotas = [quota for group in _groups(process) if (quota := _quota(group)) is not None]
    return math.ceil(min([len(os.sched_getaffinity(0)), *quotas]))


class _Mount(NamedTuple):
    """A mounted hierarchy of control groups that may limit processors."""

    root: PurePosixPath
    """The group that is mounted."""
    folder: Path
    """Where it is mounted."""
    unified: bool
    """Whether it is the one of version 2, which has all controllers."""


def _groups(process: Path) -> Iterator[Path]:
    """Yield the directory of each group that the process is in, and of those above it."""
    with suppress(OSError, ValueError):
        own = dict(_memberships((process / "cgroup").read_text()))
        for mount in _mounts((process / "mountinfo").read_text()):
            group = own.get(mount.unified)
            if group is None:
                continue
            # A container that sees the host's names has its own group for the mounted one's root.
            within = group.relative_to(mount.root) if group.is_relative_to(mount.root) else ""
            folder = mount.folder / within
            yield from (folder, *_up_to(folder, mount.folder))


def _up_to(folder: Path, top: Path) -> Iterator[Path]:
    for parent in folder.parents:
        if not parent.is_relative_to(top):
            return
        yield parent


def _memberships(text: str) -> Iterator[tuple[bool, PurePosixPath]]:
    """Yield the group of version 2 and the one of version 1's processor controller (cgroups(7))."""
    for line in text.splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            yield not controllers, PurePosixPath(group)


def _mounts(text: str) -> Iterator[_Mount]:
    """Yield the hierarchies that are mounted (proc_pid_mountinfo(5))."""
    for line in text.splitlines():
        fields, _, more = line.partition(" - ")
        kind, _, options = more.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(",")):
            root, folder = fields.split(" ")[3:5]
            yield _Mount(PurePosixPath(_name(root)), Path(_name(folder)), kind == "cgroup2")


def _name(text: str) -> str:
    """Return a name in which the kernel wrote blanks and backslashes in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _quota(group: Path) -> float | None:
    """Return the processors that a group may use, in either version; None where it says nothing."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        if float(quota) > 0:  # "max" is no number, and -1 is version 1's word for no quota
            return float(quota) / float(period)
    return None
