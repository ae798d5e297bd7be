"""Tokens that a registry's token server gave, by what they open."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from coco_kp.transport.registry.turns import in_turn
from coco_kp.values import dataclass, field

_MOST_KEPT: Final = 256
"""Tokens that are kept; the one that was needed the longest ago is forgotten. Each is of some
kilobytes, and a registry may have any number of repositories."""

Scopes = tuple[str, ...]
"""What a token is to open (distribution's ``docs/spec/auth/scope.md``)."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token, and until when it is used (of the clock)."""

    value: str = field(repr=False)
    fresh_until: float


class _Place:
    def __init__(self) -> None:
        self.token: Token | None = None
        self.asked = ""
        self.fetching = threading.Lock()


class Tokens:
    """Keeps tokens while they are fresh. Of threads that need one, one fetches it.

    Who needs another one does not wait for that. ``server`` names the token server in messages.
    """

    def __init__(self, server: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._clock = clock
        self._lock = threading.Lock()
        self._places: dict[Scopes, _Place] = {}

    def get(self, scopes: Scopes, fetch: Callable[[str], Token]) -> Token:
        """Return a token that opens ``scopes``.

        ``fetch`` is called with the scope that the registry itself named, empty if it named none.
        It may raise, and is called again by whoever needs the token next.
        """
        place = self._place(scopes)
        with in_turn(place.fetching, self._server):
            if place.token is None or self._clock() >= place.token.fresh_until:
                place.token = fetch(place.asked)
            return place.token

    def drop(self, scopes: Scopes, spent: str, asked: str) -> None:
        """Forget a token that did not suffice, unless another took its place since.

        ``asked`` is the scope that the registry names in its stead.
        """
        place = self._place(scopes)
        with in_turn(place.fetching, self._server):
            place.asked = asked
            if place.token is not None and place.token.value == spent:
                place.token = None

    def _place(self, scopes: Scopes) -> _Place:
        with self._lock:
            place = self._places.pop(scopes, None) or _Place()
            self._places[scopes] = place
            if len(self._places) > _MOST_KEPT:
                del self._places[next(iter(self._places))]
            return place
