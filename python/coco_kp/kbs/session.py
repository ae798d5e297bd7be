"""Reading resources as a guest does: in a session, renewed when the KBS no longer knows it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from coco_kp.deadline import acquire
from coco_kp.errors import UnreachableError
from coco_kp.kbs.client import resource_path
from coco_kp.kbs.refusal import SESSION_VARIANTS
from coco_kp.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Callable

    from coco_kp.kbs.client import Kbs
    from coco_kp.kbs.tee_key import TeeKey
    from coco_kp.model.resource_uri import ResourceUri

_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Session:
    """An attestation token and the key pair that it vouches for."""

    token: str = field(repr=False)
    tee_key: TeeKey


class Reader:
    """Fetches resources of one KBS; threads may share it. ``attest`` makes a session."""

    def __init__(self, kbs: Kbs, attest: Callable[[], Session]) -> None:
        self.kbs = kbs
        self._attest = attest
        self._session: Session | None = None
        self._lock = threading.Lock()

    def fetch(self, uri: ResourceUri) -> bytes:
        """Get the plain bytes of a resource, within 30 seconds.

        A session that the KBS does not accept is made anew, three tries in all; a session kept
        from an earlier call is made anew for any refusal, since policies and claims may have
        changed. Raises ``RemoteError``, or ``IntegrityError`` if the answer does not decrypt.
        """
        with self.kbs.one_use():
            return self._fetch(uri)

    def _fetch(self, uri: ResourceUri) -> bytes:
        stale: Session | None = None
        tries_left = _TRIES
        while True:
            session, fresh = self._current(stale)
            answer = self.kbs.call("GET", resource_path(uri), bearer=session.token, repeatable=True)
            if answer.refusal is None:
                return session.tee_key.open(answer.document())
            tries_left -= 1
            renewable = answer.refusal.variant in SESSION_VARIANTS or not fresh
            if not renewable or not tries_left:
                raise answer.refusal.error(f"hand out '{uri}'")
            stale = session

    def _current(self, stale: Session | None) -> tuple[Session, bool]:
        """Return the session (never ``stale``), and whether it was made just now."""
        if not acquire(self._lock):
            raise UnreachableError(f"the KBS {self.kbs.url} did not attest this machine in time")
        try:
            if self._session is not None and self._session is not stale:
                return self._session, False
            self._session = None
            self._session = self._attest()
            return self._session, True
        finally:
            self._lock.release()
