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

    Deadlines hold there, too. Whoever ends early waits for the piece that is being made.
    """
    made: SimpleQueue[memoryview | BaseException | None] = SimpleQueue()
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
            made.put(error)
        else:
            made.put(None)

    maker = threading.Thread(target=contextvars.copy_context().run, args=(make,), daemon=True)
    with closing(pieces):
        try:
            start(maker)
        except OSError:
            yield from pieces
            return
        try:
            while (piece := made.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
                room.release()
        finally:
            wanted = False
            room.release()
            maker.join()
