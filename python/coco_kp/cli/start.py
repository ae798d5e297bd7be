"""The program's first lines, which load the rest: who interrupts that gets no traceback either."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import Final, NoReturn

_LOADED: Final = 50_000
"""Objects that are there once a command with a registry is loaded, of which none is garbage."""


def main() -> NoReturn:
    """Run the command that the process was started with, and exit."""
    _look_late_for_garbage()
    try:
        from coco_kp.cli.main import main as run_command

        run_command()
    except KeyboardInterrupt:  # before there was work, or once more after the work was undone
        with contextlib.suppress(OSError):
            os.write(2, b"coco-kp: interrupted\n")
        sys.exit(130)


def _look_late_for_garbage() -> None:
    """Have Python look for garbage once more is there than is loaded, and from then on as ever.

    Not more seldom for good: what comes from a registry would pile up where it is in a cycle.
    """
    usual = gc.get_threshold()

    def look_as_ever(_phase: str, _found: dict[str, int]) -> None:
        gc.callbacks.remove(look_as_ever)
        gc.set_threshold(*usual)

    gc.callbacks.append(look_as_ever)
    gc.set_threshold(_LOADED)
