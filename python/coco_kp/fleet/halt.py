"""Ending what the threads of a process do, without waiting for pauses that registries ask for."""

from __future__ import annotations

import threading

from coco_kp.errors import CancelledError


class Halt:
    """What ends the work of all threads of a process, between two blobs or two requests."""

    def __init__(self) -> None:
        self._wanted = threading.Event()

    def ask(self) -> None:
        """Have all work end that goes on."""
        self._wanted.set()

    def check(self) -> None:
        """Raise ``CancelledError`` if the work is to end."""
        if self._wanted.is_set():
            raise CancelledError("interrupted", "run the plan again: it goes on where this ended")

    def sleep(self, seconds: float) -> None:
        """Wait as `time.sleep`, but no longer than there is work to do."""
        self._wanted.wait(seconds)
        self.check()
