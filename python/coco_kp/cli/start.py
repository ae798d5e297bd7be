"""The program's first lines, which load the rest: who interrupts that gets no traceback either."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import Final, NoReturn

_NEW_OBJECTS: Final = 50_000
"""Objects that come and do not go before a look for garbage among them, in place of Python's 700:
nothing that is loaded is garbage, and most commands make less. Of small ones it is 5 MB."""


def main() -> NoReturn:
    """Run the command that the process was started with, and exit."""
    gc.set_threshold(_NEW_OBJECTS)
    try:
        from coco_kp.cli.main import main as run_command

        run_command()
    except KeyboardInterrupt:  # before there was work, or once more after the work was undone
        with contextlib.suppress(OSError):
            os.write(2, b"coco-kp: interrupted\n")
        sys.exit(130)
