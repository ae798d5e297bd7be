"""The one rule for asking again: after what, how often, and after which pause.

An immutable value, like urllib3's ``Retry``. Each failure makes the next one; what made progress
starts again from the first.
"""

from __future__ import annotations

import email.utils
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Final

from coco_kp.deadline import remaining
from coco_kp.values import dataclass

RETRIED: Final = frozenset({429, 500, 502, 503, 504})
"""Statuses that a repeat may cure."""

LONGEST_PAUSE: Final = 120.0
"""Seconds; a ``Retry-After`` beyond this is not waited for."""

_LONGEST_OWN_PAUSE: Final = 30.0
"""Seconds at which pauses that nobody asked for stop to grow."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Retry:
    """How often something may fail in a row (``repeats`` times and once more), and has failed.

    ``pause`` is how many seconds to wait before the next try.
    """

    repeats: int
    failures: int = 0
    pause: float = 0.0

    def after(self, asked: float | None = None) -> Retry:
        """Return what is left after one more failure.

        ``asked`` is the pause that the other side asks for (see :func:`retry_after`); without it,
        pauses double from half a second, each longer by up to as much again, so that clients that
        failed together do not come back together.
        """
        own = min(
            2.0 ** (self.failures - 1) * (1 + secrets.randbelow(1000) / 1000), _LONGEST_OWN_PAUSE
        )
        return Retry(self.repeats, self.failures + 1, own if asked is None else asked)

    @property
    def over(self) -> bool:
        """Whether to give up."""
        return self.failures > self.repeats or self.pause > LONGEST_PAUSE

    def wait(self, reason: str, sleep: Callable[[float], None]) -> None:
        """Say why the next try is needed, and pause before it; no-op where the time is over."""
        if not remaining():
            return
        tries = self.repeats + 1
        _log.warning("%s; try %d of %d in %.1f s", reason, self.failures + 1, tries, self.pause)
        sleep(self.pause)


NEVER: Final = Retry(0)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a ``Retry-After`` asks for: a number or a date (RFC 9110, 10.2.3).

    None if there is none, or a date that has passed: clocks differ.
    """
    value = headers.get("Retry-After", "")
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        pause = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return pause if pause >= 0 else None
