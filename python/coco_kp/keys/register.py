"""Registering a KEK with a KBS, from where attested guests fetch it: confirmed, and on record.

A key that images may depend on is not replaced, and no key gets a second name: whoever may name a
key file could else fetch another team's key under a name of his own.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from coco_kp.errors import RefusedError
from coco_kp.observe import event
from coco_kp.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coco_kp.crypto import Kek
    from coco_kp.kbs.admin import Admin
    from coco_kp.kbs.client import Kbs
    from coco_kp.kbs.record import Record
    from coco_kp.model.kbs_url import KbsUrl
    from coco_kp.model.resource_uri import ResourceUri


class Registrar:
    """Registers KEKs with one KBS; threads may share it, and processes may share its record.

    ``allow_alias`` lets a key be registered under a second key ID. Each call takes 30 seconds at
    the most. It raises ``RemoteError`` unless the KBS confirmed, ``RefusedError`` where another key
    was registered before or the key has another name, and ``InputError`` for a key ID that the KBS
    cannot hold.
    """

    def __init__(self, admin: Admin, record: Record, *, allow_alias: bool = False) -> None:
        self._admin = admin
        self._record = record
        self._allow_alias = allow_alias
        self._registered: dict[str, str] = {}

    @property
    def kbs(self) -> Kbs:
        """The KBS that it registers with."""
        return self._admin.kbs

    @property
    def kbs_url(self) -> KbsUrl:
        """Where that is."""
        return self._admin.kbs.url

    def check(self, kid: ResourceUri, kek: Kek, beside: Iterable[ResourceUri] = ()) -> None:
        """Raise what ``register`` would, as far as that shows without asking the KBS.

        ``beside`` are key IDs under which the key is to be registered as well.
        """
        self._admin.check(kid)
        self._refuse_alias(kid, kek, beside)
        self._refuse_other(kid, kek, self._record.fingerprint(self.kbs_url, kid))

    def check_unused(self, kid: ResourceUri) -> None:
        """Raise ``RefusedError`` if some key is on record for a key ID, for which one is wanted."""
        self._admin.check(kid)
        if fingerprint := self._record.fingerprint(self.kbs_url, kid):
            raise RefusedError(
                f"the key of '{kid}' was registered before ({fingerprint}), and is not known here",
                "name that key, or choose another key ID",
            )

    def register(self, kid: ResourceUri, kek: Kek, *, replace: bool = False) -> None:
        """Register a KEK; a second time in this process does nothing.

        ``replace`` does so where the record has another key, too.
        """
        self._admin.check(kid)
        with (
            self.kbs.one_use(),
            self._record.naming(self.kbs_url, kek.fingerprint),
            self._record.entry(self.kbs_url, kid) as entry,
        ):
            before = entry.fingerprint()
            if self._registered.get(kid.path) == kek.fingerprint == before:
                return
            self._refuse_alias(kid, kek)
            if not replace:
                self._refuse_other(kid, kek, before)
            store = self._admin.replace if replace else self._admin.put
            store(kid, kek.raw())
            entry.write(kek.fingerprint)
            self._registered[kid.path] = kek.fingerprint
            event(logging.INFO, "registered", kid=str(kid), address=str(self.kbs_url))

    def _refuse_other(self, kid: ResourceUri, kek: Kek, before: str) -> None:
        if before not in {"", kek.fingerprint}:
            raise RefusedError(
                f"'{kid}' was registered with {self.kbs_url} for another key ({before}; "
                f"this one is {kek.fingerprint})",
                "images that need the other key could not be opened any more; choose another key "
                "ID",
                code="key-id-registered",
            )

    def _refuse_alias(self, kid: ResourceUri, kek: Kek, beside: Iterable[ResourceUri] = ()) -> None:
        if self._allow_alias:
            return
        names = self._record.names(self.kbs_url, kek.fingerprint)
        others = (names | set(map(_name, beside))) - {_name(kid)}
        if others:
            registered = "is registered" if others <= names else "is to be registered"
            raise RefusedError(
                f"the key {kek.fingerprint} {registered} with {self.kbs_url} as "
                f"'{min(others)}', and would get a second name, '{kid}'",
                "whoever may read either name has the key: use the first one, or allow a second",
                code="key-has-name",
            )


def _name(kid: ResourceUri) -> str:
    """Return the key ID as the record has it."""
    return str(replace(kid, address=""))
