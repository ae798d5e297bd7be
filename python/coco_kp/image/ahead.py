"""Pieces of a layer, made on a thread of their own ahead of whoever sends or writes them."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Generator
from contextlib import closing
from queue import SimpleQueue
from typing import Final

from coco_kp.deadline import start

Making = Generator[memoryview, None, None]

_AHEAD: Final = 6  # pieces that wait at the most

BUFFERS: Final = _AHEAD + 1
"""After so many further pieces, one may be overwritten: one is taken, others wait or are made."""


def ahead(pieces: Making) -> Making:
    """Yield the pieces, which are made on another thread; on this one if there is no further.

    Deadlines hold there, too. Whoever ends early waits for the piece that is being made. What was
    made before a failure is of no use, and on a slow line is not sent either.
    """
    made: SimpleQueue[memoryview | None] = SimpleQueue()
    failures: list[BaseException] = []
    room = threading.Semaphore(_AHEAD)
    wanted = True

    def make() -> None:
        try:
            for piece in pieces:
                made.put(piece)
                room.acquire()
                if not wanted:
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised where the pieces are taken
            failures.append(error)
        made.put(None)

    maker = threading.Thread(target=contextvars.copy_context().run, args=(make,), daemon=True)
    with closing(pieces):
        try:
            start(maker)
        except OSError:
            yield from pieces
            return
        try:
            while (piece := made.get()) is not None and not failures:
                yield piece
                room.release()
            if failures:
                raise failures[0]
        finally:
            wanted = False
            room.release()
            maker.join()
