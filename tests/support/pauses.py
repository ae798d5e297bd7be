"""Pauses that nobody sits out."""

from __future__ import annotations

import time


class Pauses(list[float]):
    """What was waited for without waiting: ``append`` is the sleep that goes with `clock`."""

    def clock(self) -> float:
        """Return the time of ``time.monotonic``, as if all pauses had been sat out."""
        return time.monotonic() + sum(self)
