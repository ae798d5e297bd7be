"""When a server may be asked again: what it said to one request holds for all threads.

A server that is overloaded says ``Retry-After`` (RFC 9110, 10.2.3; RFC 6585, 4). Whoever asked
waits as :mod:`.retry` has it; the others would only be told the same, each at the server's cost.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from coco_kp.deadline import remaining
from coco_kp.errors import RemoteError
from coco_kp.http.retry import LONGEST_PAUSE, retry_after
from coco_kp.http.url import Origin

_MOST_PAUSED: Final = 1000
"""Servers that are remembered; the first that were named are forgotten."""


class Pace:
    """Knows until when which server wants no requests; threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[Origin, float] = {}

    def heed(self, server: Origin, headers: Mapping[str, str]) -> None:
        """Take in the answer of a server that is overloaded."""
        asked = retry_after(headers)
        if asked is None:
            return
        until = self._clock() + asked
        with self._lock:
            self._until[server] = max(until, self._until.pop(server, 0.0))
            while len(self._until) > _MOST_PAUSED:
                del self._until[next(iter(self._until))]

    def wait(self, request: str, server: Origin, sleep: Callable[[float], None]) -> None:
        """Pause before a request until its server may be asked.

        Raises ``RemoteError`` where that would take too long.
        """
        waited = 0.0
        while (until := self._until.get(server, 0.0)) > waited:
            pause = until - self._clock()
            if pause > min(LONGEST_PAUSE, remaining()):
                raise RemoteError(
                    f"{request}: not asked, for the server wants no requests for another "
                    f"{math.ceil(pause)} s",
                    "run again then",
                )
            if pause > 0:
                sleep(pause)
            waited = until
