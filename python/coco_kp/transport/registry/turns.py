"""Taking turns at what one thread does for all of them, no longer than somebody waits for that."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from coco_kp.deadline import acquire
from coco_kp.errors import UnreachableError


@contextmanager
def in_turn(lock: threading.Lock | threading.Semaphore, who: str) -> Iterator[None]:
    """Hold a lock in the block.

    Raises ``UnreachableError``, that ``who`` did not answer, where time ends before it is to be
    had: others, who have theirs, may still wait.
    """
    if not acquire(lock):
        raise UnreachableError(f"{who} did not answer in time")
    try:
        yield
    finally:
        lock.release()
