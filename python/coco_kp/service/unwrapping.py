"""Wrapped KEKs, unwrapped by the key of their name: once for all who ask at the same time.

A guest asks for each layer of an image anew, all with the same ciphertext. Those who ask while the
KMS is at work wait for its one answer; nothing is kept for later ones, so that no KEK stays in
memory.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Final

from coco_kp.deadline import acquire, remaining, within
from coco_kp.errors import CocoKpError, KekError, UnreachableError
from coco_kp.keys.external import context_of
from coco_kp.keys.kek import kek_of
from coco_kp.keys.stores.interface import TIMEOUT, CiphertextError, WrappingKey
from coco_kp.values import dataclass, field

_MOST_AT_WORK: Final = 32
"""Calls to KMSs at a time; more wait for their turn."""


class UnknownNameError(CocoKpError):
    """No key is configured for the name."""

    code = "name-unknown"


@dataclass(frozen=True, slots=True)
class Unwrapping:
    """Unwraps KEKs; threads may share it."""

    keys: Mapping[str, WrappingKey]
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _at_work: dict[tuple[str, bytes], Future[bytes]] = field(default_factory=dict, repr=False)
    _turns: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(_MOST_AT_WORK), repr=False
    )

    def unwrap(self, name: str, ciphertext: bytes, seconds: float = TIMEOUT) -> bytes:
        """Return the KEK, 32 bytes, within ``seconds`` as far as the KMS keeps its own deadline.

        Raises ``UnknownNameError``, ``CiphertextError`` for what is not a KEK that the name's key
        wrapped, and what else the key raises; ``UnreachableError`` where its turn or another's
        answer did not come in time.
        """
        if name not in self.keys:
            raise UnknownNameError("no key is configured for this name")
        with within(min(seconds, TIMEOUT)):
            return self._unwrap(name, ciphertext)

    def _unwrap(self, name: str, ciphertext: bytes) -> bytes:
        asked = (name, ciphertext)
        with self._lock:
            at_work = self._at_work.get(asked)
            mine = at_work or Future[bytes]()
            self._at_work[asked] = mine
        if at_work is None:
            try:
                mine.set_result(self._unwrapped(name, ciphertext))
            except BaseException as error:  # noqa: BLE001 (raised below, to all who wait)
                mine.set_exception(error)
            finally:
                with self._lock:
                    del self._at_work[asked]
        try:
            return mine.result(remaining())
        except TimeoutError:
            raise UnreachableError("another call for the same key is still at work") from None
        except UnreachableError:
            if at_work is None or not remaining():
                raise
            return self._unwrapped(name, ciphertext)  # whoever asked may have had less time

    def _unwrapped(self, name: str, ciphertext: bytes) -> bytes:
        if not acquire(self._turns):
            raise UnreachableError(f"{_MOST_AT_WORK} other calls are still at work")
        try:
            raw = self.keys[name].decrypt(ciphertext, context_of(tuple(name.split("/"))))
        finally:
            self._turns.release()
        try:
            return kek_of(raw, "what the key ID wraps").raw()
        except KekError as error:
            raise CiphertextError(error.message) from None
