"""A command in a process of its own, of which chosen system calls fail.

Linux tells a supervisor of each call before it is made (seccomp_unotify(2)), and the supervisor
answers with an error or lets it pass. So it reaches Rust's system calls, which no patch of Python
and no preloaded library does; it counts the calls of all threads together; and it costs a
microsecond's wait where strace costs a start of Python. Needs Linux 5.9 on x86-64, and no rights.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.calls import NUMBERS, Call, described
from tests.peers.cache import PeerUnavailableError

SECONDS: Final = 60.0
"""After so long a command hangs."""

# linux/seccomp.h, linux/filter.h, linux/audit.h, asm-generic/unistd.h
_SECCOMP: Final = 317
_SET_MODE_FILTER, _GET_NOTIF_SIZES = 1, 3
_NEW_LISTENER: Final = 1 << 3
_ALLOW, _USER_NOTIF = 0x7FFF0000, 0x7FC00000
_X86_64: Final = 0xC000003E
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_CONTINUE: Final = 1
_NO_NEW_PRIVS: Final = 38
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER_OFFSET, _ARCH_OFFSET = 0, 4

_REQUEST: Final = struct.Struct("=QIIiIQ6Q")
_ANSWER: Final = struct.Struct("=QqiI")

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


Choose = Callable[[Call], int]
"""Given each call, return the ``errno`` it fails with, or 0 to let it pass."""


@dataclass(frozen=True)
class Run:
    """How a command ended; ``code`` is negative for a signal, None if it hung."""

    code: int | None
    out: str
    err: str


def check_available() -> None:
    """Raise `PeerUnavailableError` where this kernel cannot supervise system calls."""
    sizes = (ctypes.c_uint16 * 3)()
    if platform.machine() != "x86_64" or _LIBC.syscall(_SECCOMP, _GET_NOTIF_SIZES, 0, sizes) != 0:
        raise PeerUnavailableError(
            "system calls can be made to fail on x86-64 with Linux 5.9 or newer, where the "
            "container that this may run in allows seccomp(2)"
        )


def run(
    command: Callable[[], int],
    scratch: Path,
    environment: Mapping[str, str],
    choose: Choose | None = None,
    stdin: bytes = b"",
) -> Run:
    """Run ``command`` in a fork of this process, which must have no other threads.

    ``choose`` is asked about each call that is about a file in ``scratch``, or about a thread or a
    socket. What the command reads and prints is kept in files beside ``scratch``.
    """
    given, out, err = (scratch.with_name(f"{scratch.name}.{name}") for name in ("in", "out", "err"))
    given.write_bytes(stdin)
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ours.close()
            _redirect(given, out, err)
            os.environ.clear()
            os.environ.update(environment)
            if choose is not None:
                _send_listener(theirs)
            theirs.close()
            code = command()
        except BaseException:  # noqa: BLE001 - a fork must never return into its parent's code
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    theirs.close()
    with ours:
        ended = _wait(pid, ours, scratch, choose)
    return Run(ended, out.read_text(), err.read_text())


def _redirect(given: Path, out: Path, err: Path) -> None:
    for number, path in ((0, given), (1, out), (2, err)):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        descriptor = os.open(path, flags, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, closefd=False) for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )


def _send_listener(theirs: socket.socket) -> None:
    numbers = sorted(NUMBERS)
    instructions = [
        (_LOAD, 0, 0, _ARCH_OFFSET),
        (_EQUAL, 0, len(numbers) + 1, _X86_64),
        (_LOAD, 0, 0, _NUMBER_OFFSET),
        *((_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _USER_NOTIF),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *i) for i in instructions))
    program = _Program(len(instructions), ctypes.addressof(code))
    if _LIBC.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    listener = _LIBC.syscall(_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(program))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    socket.send_fds(theirs, [b"."], [listener])
    os.close(listener)


def _wait(pid: int, ours: socket.socket, scratch: Path, choose: Choose | None) -> int | None:
    """Answer the child's calls until it has ended."""
    end = time.monotonic() + SECONDS
    process = os.pidfd_open(pid)
    listener = -1
    try:
        if choose is not None:
            _, received, _, _ = socket.recv_fds(ours, 1, 1)
            listener = received[0] if received else -1
        poll = select.poll()
        poll.register(process, select.POLLIN)
        if listener >= 0:
            poll.register(listener, select.POLLIN)
        while ready := poll.poll(max(0.0, end - time.monotonic()) * 1000):
            if any(descriptor == process for descriptor, _ in ready):
                break
            assert choose is not None
            _answer(listener, pid, scratch, choose)
        else:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(process)
        if listener >= 0:
            os.close(listener)


def _answer(listener: int, pid: int, scratch: Path, choose: Choose) -> None:
    request = bytearray(_REQUEST.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, request)
    except OSError:
        return  # the thread has ended meanwhile
    identity, _, _, number, _, _, *arguments = _REQUEST.unpack(request)
    call = described(pid, NUMBERS[number], arguments, scratch)
    error = choose(call) if call is not None else 0
    answer = _ANSWER.pack(identity, 0, -error, 0 if error else _CONTINUE)
    try:
        fcntl.ioctl(listener, _SEND, answer)
    except OSError:
        return
