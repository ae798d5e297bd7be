"""How an operation on an image tells what it is doing, and learns that it shall stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait


class Progress:
    """Told of what happens, by several threads at once; this one tells nobody."""

    def expect(self, size: int) -> None:
        """Learn how many bytes there are to move in all."""

    def begin(self, name: str, size: int) -> None:
        """Learn that the work on something of ``size`` bytes begins."""

    def advance(self, name: str, count: int) -> None:
        """Learn that ``count`` more bytes of it were moved."""

    def end(self, name: str) -> None:
        """Learn that it is done."""

    def notice(self, text: str) -> None:
        """Learn something that the user should know."""


class Stopped(Exception):  # noqa: N818 (no error: the reason is told elsewhere)
    """The work on one layer ended early, because another one failed or the user wants it."""


class Work:
    """Several pieces of work side by side, of which the first that fails stops the others."""

    def __init__(self, progress: Progress, jobs: int) -> None:
        self.progress = progress
        self._jobs = jobs
        self._stop = threading.Event()

    def check(self) -> None:
        """Raise ``Stopped`` if this work is no longer wanted."""
        if self._stop.is_set():
            raise Stopped

    def run(self, pieces: Iterable[Callable[[], object]]) -> None:
        """Do all pieces, as many at once as there are jobs; raise what the first failure raised.

        Whatever happens, none is running any more when this returns.
        """
        with ThreadPoolExecutor(self._jobs) as pool:
            futures = [pool.submit(piece) for piece in pieces]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                # Nothing to stop where all is done; else a failure, or a signal in this thread.
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
        self._stop.clear()
        for future in futures:
            error = None if future.cancelled() else future.exception()
            if error and not isinstance(error, Stopped):
                raise error
