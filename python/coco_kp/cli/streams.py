"""Standard streams that may be closed, or have nowhere to put what is printed.

A command's exit code is about its work, not about who listens.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Final

_FIRST: Final = (0, 1, 2)
_NULL: Final = Path(os.devnull)


def open_missing() -> None:
    """Let nothing else take the place of a standard stream that the process was started without.

    The next file to be opened would, and a library that writes to stderr would write into it.
    """
    for number in _FIRST:
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            os.set_inheritable(null, True)
    # Python has None for them, and no library expects that.
    sys.stdin = sys.stdin or _NULL.open("r")
    sys.stdout = sys.stdout or _NULL.open("w")
    sys.stderr = sys.stderr or _NULL.open("w")


def escape_unprintable() -> None:
    """Let characters that the encoding of stdout lacks be printed as escapes, as on stderr."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Flush what was printed; what cannot be is dropped, for Python would end with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            with contextlib.suppress(OSError, ValueError):
                os.dup2(null, stream.fileno())
            os.close(null)
