"""Programs that are run for what they say, no longer than somebody waits for it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from coco_kp.deadline import remaining, within

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
    # Not a pipe: an interrupted communicate() forgets what it has not written yet.
    with open(os.memfd_create("given"), "w+b") as stdin:  # noqa: PTH123 (it has no path)
        stdin.write(given)
        stdin.seek(0)
        with (
            within(seconds),
            subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | (environment or {}),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            ) as process,
        ):
            try:
                output, complaint = _said(process)
            except BaseException:
                process.kill()
                raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, complaint)


def _said(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Return what a program says until it ends. Raises ``TimeoutExpired`` at the deadline."""
    while True:
        try:
            return process.communicate(timeout=min(remaining(), _LOOK))
        except subprocess.TimeoutExpired:
            if not remaining():
                raise
