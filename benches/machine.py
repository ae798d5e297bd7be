"""The machine that is measured: what it is, and files that lie in its memory."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from coco_kp.processors import processors

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB: Final = 1 << 20
GIB: Final = 1 << 30


def machine() -> str:
    """Name the processor, how many of them may be used, and how busy they are."""
    load = f"load {os.getloadavg()[0]:.1f}"
    with contextlib.suppress(OSError):
        model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        if model is not None:
            return f"{model[1]}, {processors()} cores, {load}"
    return f"{os.uname().machine}, {processors()} cores, {load}"


@contextlib.contextmanager
def tmpfs() -> Iterator[Path]:
    """Yield a folder in memory while the block runs."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


def warm(folder: Path, size: int) -> None:
    """Touch as much memory as will be written.

    A virtual machine's host takes free memory back, and its first touch then costs ten times the
    second: as much as all that is measured.
    """
    file, block = folder / "warm", bytes(MIB)
    with file.open("wb", buffering=0) as target:
        for _ in range(size // MIB + 64):
            target.write(block)
    file.unlink()
