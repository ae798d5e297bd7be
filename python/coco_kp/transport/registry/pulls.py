"""A registry that counts pulls, as Docker Hub does, and says how many are left.

Each answer about a manifest has ``ratelimit-limit: 100;w=21600`` and ``ratelimit-remaining:
76;w=21600``: so many in a window of so many seconds (Docker Hub's documentation, "Pull usage and
limits"). A GET of a manifest counts, a HEAD does not; what is not limited lacks the headers.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Final

_REMAINING: Final = re.compile(r"([0-9]{1,9});w=[0-9]{1,9}")


class Pulls:
    """How many pulls a registry leaves one user, as far as it says; threads may share it.

    What an answer says is reckoned to lack all pulls that may not have been counted by then.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: int | None = None
        self._begun = 0
        self._ended = 0

    @property
    def ended(self) -> int:
        """How many pulls were answered: what is asked from now on is answered with those counted.

        To be given to `renew`.
        """
        return self._ended

    def begin(self) -> int | None:
        """Count a pull that is about to be asked for; None, uncounted, where none is left.

        Returns what `end` wants.
        """
        with self._lock:
            return self._begin()

    def end(self, before: int, headers: Mapping[str, str]) -> None:
        """Take in a pull's answer; ``before`` is what `begin` returned."""
        with self._lock:
            self._ended += 1
            if (said := _remaining(headers)) is not None:
                self._left = max(0, said - (self._begun - before - 1))

    def renew(self, before: int, headers: Mapping[str, str]) -> int | None:
        """Begin a pull as the answer to a HEAD allows, which was `ended` before it was asked.

        Without a word on it there may be one: of some images pulls are not counted.
        """
        with self._lock:
            if (said := _remaining(headers)) is None:
                self._begun += 1
                return self._ended
            self._left = max(0, said - (self._begun - before))
            return self._begin()

    def _begin(self) -> int | None:
        if self._left == 0:
            return None
        self._left = self._left and self._left - 1
        self._begun += 1
        return self._ended


def _remaining(headers: Mapping[str, str]) -> int | None:
    found = _REMAINING.fullmatch(headers.get("ratelimit-remaining", "").replace(" ", ""))
    return int(found[1]) if found else None
