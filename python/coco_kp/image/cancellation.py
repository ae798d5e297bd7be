"""Ending a call of the library from another thread.

What waits in a call asks :mod:`coco_kp.deadline` how long, and so learns here too that nobody wants
the result any more. The last moment for that is just before the image gets its name.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from coco_kp.deadline import Caller, caller_has_gone, keep_caller, within
from coco_kp.errors import CancelledError, CocoKpError
from coco_kp.image.progress import Progress


class Cancellation:
    """Ends calls of the library that it is given to, from another thread.

    One may be given to several calls, also at the same time, and ends them all, those to come
    included. A call that is ended raises ``CancelledError`` once nothing of it runs any more:
    within a moment, or a minute where a peer does not take what is written to it. What it began is
    undone, and the destination is as it was. A call whose image gets its name goes on to its end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._callers: set[Caller] = set()

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """End the calls, without waiting for that; a second time does nothing.

        Not for signal handlers: what they interrupt may hold a lock that this waits for.
        """
        with self._lock:
            self._cancelled = True
            callers, self._callers = self._callers, set()
        for caller in callers:
            caller.leave()

    @contextmanager
    def _awaited(self) -> Iterator[Caller]:
        """Yield who waits for a call, until it ends or is cancelled. Raises ``CancelledError``."""
        caller = Caller()
        with self._lock:
            if self._cancelled:
                raise _cancelled()
            self._callers.add(caller)
        try:
            yield caller
        finally:
            with self._lock:
                self._callers.discard(caller)


@contextmanager
def heeding(cancel: Cancellation | None) -> Iterator[None]:
    """Let ``cancel`` end what runs in the block, which then raises ``CancelledError``.

    That replaces whatever a step fails with because nobody waits for it any more.
    """
    if cancel is None:
        yield
        return
    with cancel._awaited() as caller, within(math.inf, caller):  # noqa: SLF001
        try:
            yield
        except CocoKpError as error:
            reason = reason_of(error)
            if reason is error:
                raise
            raise reason from error
        check_wanted()  # what was given up without an error is no result


def check_wanted() -> None:
    """Raise ``CancelledError`` if the call was cancelled."""
    if caller_has_gone():
        raise _cancelled()


def reason_of(error: CocoKpError) -> CocoKpError:
    """Return why a call fails: the error, or ``CancelledError`` where that is behind it."""
    told = isinstance(error, CancelledError)  # and what became of the work
    return _cancelled() if caller_has_gone() and not told else error


def begin_naming(progress: Progress) -> None:
    """Go on to the end from here. Raises ``CancelledError`` where it is too late for that."""
    if not keep_caller():
        raise _cancelled()
    progress.naming()


def _cancelled() -> CancelledError:
    return CancelledError("the call was cancelled")
