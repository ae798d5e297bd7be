"""Programs that are run for what they say, no longer than somebody waits for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from coco_kp.deadline import remaining, start, within

_LOOK: Final = 0.05  # seconds after which it shows that nobody waits for a program


def run_program(
    command: Sequence[str | Path],
    *,
    seconds: float,
    given: bytes = b"",
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program in ``folder`` for so many seconds at the most, and let it read ``given``.

    ``environment`` is added to ours. The exit status is the caller's to judge. Never put a key into
    ``command``: every user of the machine can read it. Raises ``OSError`` where it cannot be run,
    ``TimeoutExpired`` where it takes longer, or nobody waits any more.
    """
    with (
        within(seconds),
        subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | (environment or {}),
            stdin=subprocess.PIPE if given else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        try:
            _give(process, given)
            output, complaint = _said(process)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, complaint)


def _give(process: subprocess.Popen[bytes], given: bytes) -> None:
    """Write what a program is to read, on a thread of its own.

    An interrupted communicate() forgets what it has not written yet; and it is a pipe, as of others
    who run such programs, for what reads a file otherwise (asyncio's, epoll's) may be in one.
    """
    stdin, process.stdin = process.stdin, None  # or communicate() closes it
    if stdin is None:
        return

    def write() -> None:
        with contextlib.suppress(OSError), stdin:  # it may not want to read
            stdin.write(given)

    try:
        start(threading.Thread(target=write, daemon=True))
    except OSError:
        stdin.close()
        raise


def _said(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Return what a program says until it ends. Raises ``TimeoutExpired`` at the deadline."""
    while True:
        try:
            return process.communicate(timeout=min(remaining(), _LOOK))
        except subprocess.TimeoutExpired:
            if not remaining():
                raise
