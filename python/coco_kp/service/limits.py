"""What one caller, and all together, may take of a server.

A caller is who his certificate says, or else the address that he calls from. Those on this machine
that show no certificate cannot be told apart: they have no rate and no share, by which one could
keep the others out, and one bound together on the keys that are made for them.
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final

from coco_kp.crypto import Kek
from coco_kp.keyprovider.call import Call, TooManyCallsError
from coco_kp.model.client import ClientIdentity

AT_A_TIME: Final = 256
"""Calls of each operation at a time: where unwraps wait for a KBS that hangs, wraps go on. One
caller has no more of them than he leaves to others: half, where he alone calls."""

_BURST: Final = 10.0  # seconds' worth of calls that a caller may make at once
_HOUR: Final = 3600.0
_MOST_CALLERS: Final = 10_000
_TELLING: Final = 8  # bytes of an address: who has one of IPv6 has 2**64 of them


class Limits:
    """The limits of a server; threads share it.

    One caller may make ``rate`` calls a second, and ten seconds' worth of them at once; and have
    ``keks`` keys made, and as many more each hour.
    """

    def __init__(
        self,
        rate: float = math.inf,
        keks: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls = _Buckets(rate, rate * _BURST, clock)
        self._keks = _Buckets(keks / _HOUR, keks, clock)
        self._places = {
            operation: _Places(AT_A_TIME) for operation in ("keywrap", "keyunwrap", None)
        }

    @contextmanager
    def place(self, call: Call) -> Iterator[None]:
        """Have a place for a call while the block runs. Raises ``TooManyCallsError``."""
        caller = _caller(call.client)
        if caller is not None and not self._calls.take(caller):
            raise TooManyCallsError(f"too many calls of {call.client}", "call again in a second")
        with self._places[call.operation].one(caller, call.client):
            yield

    def new_kek(self, client: ClientIdentity) -> Kek:
        """Draw a KEK for a caller. Raises ``TooManyCallsError``."""
        if not self._keks.take(_caller(client)):
            raise TooManyCallsError(
                f"too many keys were made for {client} in this hour",
                "wrap several layers with one key: name its keyid, and have the provider's owner "
                "give it a directory for keys",
            )
        return Kek.generate()


class _Places:
    """Places for calls, of which one caller has no more than he leaves to the others."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._taken: Counter[Hashable] = Counter()

    @contextmanager
    def one(self, caller: Hashable, client: ClientIdentity) -> Iterator[None]:
        """Have a place while the block runs. Raises ``TooManyCallsError``."""
        with self._lock:
            free = self._most - self._taken.total()
            taken = self._taken[caller] if caller is not None else 0
            if not free:
                raise TooManyCallsError(
                    f"{self._most} calls of this kind are at work here", "call again in a minute"
                )
            if taken >= free:
                raise TooManyCallsError(
                    f"{taken} calls of this kind of {client} are at work here; the places that "
                    f"are left ({free}) are for others",
                    "call again in a minute",
                )
            self._taken[caller] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[caller] -= 1
                if not self._taken[caller]:
                    del self._taken[caller]


class _Buckets:
    """A bucket of tokens for each caller; it holds ``most`` and gains ``rate`` a second."""

    def __init__(self, rate: float, most: float, clock: Callable[[], float]) -> None:
        self._rate, self._most, self._clock = rate, most, clock
        self._lock = threading.Lock()
        self._left: dict[Hashable, tuple[float, float]] = {}  # tokens at a time; last used last

    def take(self, caller: Hashable) -> bool:
        """Take a token; False if there is none."""
        if self._most == math.inf:
            return True
        now = self._clock()
        with self._lock:
            left, then = self._left.pop(caller, (self._most, now))
            left = min(self._most, left + (now - then) * self._rate)
            self._left[caller] = (left - (left >= 1), now)
            if len(self._left) > _MOST_CALLERS:  # who has called least lately starts again
                del self._left[next(iter(self._left))]
        return left >= 1


UNLIMITED: Final = Limits()


def _caller(client: ClientIdentity) -> Hashable:
    """Return what identifies a caller; None where nothing does."""
    if client.certificate and client.certificate.names:
        return client.certificate
    if not client.ip:
        return None
    address = ipaddress.ip_address(client.ip)
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if address.is_loopback:
        return None
    return address.packed[:_TELLING]
