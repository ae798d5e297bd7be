"""A systemd unit's sandbox without systemd: as much of it as any user can make for himself.

`sandboxed` gives a command line that runs a program with a file system that is read-only but for
one folder, no capabilities, no new privileges, no core files, and the unit's system calls: those of
``SystemCallFilter=``, and of ``MemoryDenyWriteExecute=``, which systemd makes a filter of as well.
Run as a module, it is the last step: it confines itself and becomes the program.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import sys
from pathlib import Path
from typing import Final

from tests.packaging.systemd import read_service, system_calls

# libseccomp's seccomp.h
_ALLOW: Final = 0x7FFF0000
_EPERM: Final = 0x00050000 | 1
_MASKED_EQUAL: Final = 7
_PROT_EXEC_INDEX: Final = 2  # of the arguments of mmap(2) and mprotect(2)

_MOUNTS: Final = """
mount --make-rprivate /
mount --bind "$1" "$1"
findmnt -rno TARGET | while read -r place; do
    [ "$place" = "$1" ] || mount -o remount,bind,ro "$place" 2>/dev/null || true
done
shift
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


class UnconfinedError(Exception):
    """A filter could not be made."""


def sandboxed(unit: Path, writable: Path, command: list[str]) -> list[str]:
    """Return the command line of ``command`` in the sandbox of a unit's file."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-euc", _MOUNTS, "sh"]
    confine = [sys.executable, "-m", "tests.packaging.sandbox", str(unit)]
    return [*unshare, str(writable), *confine, *command]


def allowed_calls(unit: Path) -> set[str]:
    """Return the names of the system calls that a unit's filters let through."""
    allowed: set[str] = set()
    for line in read_service(unit)["SystemCallFilter"]:
        names = {name for group in line.lstrip("~").split() for name in system_calls(group)}
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    )


def _confine(unit: Path) -> None:
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    seccomp.seccomp_init.argtypes = (ctypes.c_uint32,)
    rule, load = seccomp.seccomp_rule_add_array, seccomp.seccomp_load
    rule.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    )
    load.argtypes = (ctypes.c_void_p,)

    def number(call: str) -> int:
        found: int = seccomp.seccomp_syscall_resolve_name(call.encode())
        return found

    writable = mmap.PROT_WRITE | mmap.PROT_EXEC
    executable = mmap.PROT_EXEC
    # The second filter would not let the first be loaded.
    for otherwise, calls in (
        (_ALLOW, {"mmap": writable, "mprotect": executable, "pkey_mprotect": executable}),
        (_EPERM, dict.fromkeys(allowed_calls(unit))),
    ):
        filters = seccomp.seccomp_init(otherwise)
        for call, mask in calls.items():
            action = _ALLOW if otherwise == _EPERM else _EPERM
            compared = _Comparison(_PROT_EXEC_INDEX, _MASKED_EQUAL, mask or 0, mask or 0)
            known = number(call)
            if known >= 0 and rule(filters, action, known, mask is not None, compared):
                raise UnconfinedError(call)
        if load(filters):
            raise UnconfinedError(unit.name)


def main(unit: str, *command: str) -> None:
    """Confine this process, and become the command."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    _confine(Path(unit))
    os.execv(command[0], command)  # noqa: S606 (that is what it is for)


if __name__ == "__main__":
    main(*sys.argv[1:])
