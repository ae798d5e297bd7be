"""Wrapped KEKs, unwrapped by the key of their name: once for all who ask at the same time.

A guest asks for each layer of an image anew, all with the same ciphertext. Those who ask while the
KMS is at work wait for its one answer; where it ended only because its caller had no more time, one
of them asks again for all. Nothing is kept for later ones, so that no KEK stays in memory.
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


class _Answer(Future[bytes]):
    """What one call brings to all who wait for it."""

    cut_off = False  # whether its own caller's time was over, when others may have had more


@dataclass(frozen=True, slots=True)
class Unwrapping:
    """Unwraps KEKs; threads may share it."""

    keys: Mapping[str, WrappingKey]
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _at_work: dict[tuple[str, bytes], _Answer] = field(default_factory=dict, repr=False)
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
        while True:
            mine = _Answer()
            with self._lock:
                answer = self._at_work.setdefault((name, ciphertext), mine)
            if answer is mine:
                self._ask(name, ciphertext, mine)
            try:
                return answer.result(remaining())
            except TimeoutError:
                raise UnreachableError("another call for the same key is still at work") from None
            except UnreachableError:
                if answer is mine or not (answer.cut_off and remaining()):
                    raise

    def _ask(self, name: str, ciphertext: bytes, answer: _Answer) -> None:
        try:
            try:
                kek = self._unwrapped(name, ciphertext)
            finally:
                # First: who is woken and asks again is not to find this answer.
                with self._lock:
                    del self._at_work[name, ciphertext]
        except BaseException as error:  # noqa: BLE001 (raised to all who wait)
            answer.cut_off = not remaining()
            answer.set_exception(error)
        else:
            answer.set_result(kek)

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
