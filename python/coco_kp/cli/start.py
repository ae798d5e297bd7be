"""The program's first lines, which load the rest: who interrupts that gets no traceback either."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command that the process was started with, and exit."""
    try:
        from coco_kp.cli.main import main as run_command

        run_command()
    except KeyboardInterrupt:  # before there was work, or once more after the work was undone
        with contextlib.suppress(OSError):
            os.write(2, b"coco-kp: interrupted\n")
        sys.exit(130)
