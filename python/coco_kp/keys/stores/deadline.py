"""A deadline for libraries that have none over a whole exchange."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from coco_kp.deadline import Alarm, start
from coco_kp.errors import UnreachableError
from coco_kp.http.failure import LATER
from coco_kp.keys.stores.interface import TIMEOUT

T = TypeVar("T")


def in_time(
    call: Callable[[], T],
    what: str,
    hint: str = LATER,
    *,
    turn: AbstractContextManager[object] | None = None,
    seconds: float = TIMEOUT,
) -> T:
    """Return what ``call`` returns within ``seconds``; its errors pass.

    The libraries bound each read, but not an answer that trickles in, nor logins and repeats
    together. ``call`` runs in a thread of its own, which a late answer finds abandoned; ``what``
    names it in the error. Where calls take turns, one that is late before its ``turn`` is never
    made. Raises ``UnreachableError`` when the time is over.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        with turn or nullcontext(), contextlib.suppress(InvalidStateError):
            if outcome.cancelled():
                return
            try:
                outcome.set_result(call())
            except BaseException as error:  # noqa: BLE001 (raised to the caller)
                outcome.set_exception(error)

    try:
        alarm = Alarm(seconds, outcome.cancel)
        start(threading.Thread(target=run, name="key store", daemon=True))
    except OSError as error:
        raise UnreachableError(f"{what}: {error.strerror}", LATER) from None
    try:
        return outcome.result()
    except CancelledError:
        if not outcome.cancelled():
            raise
        raise UnreachableError(f"{what}: no answer in time", hint) from None
    finally:
        alarm.off()
