"""KEKs that guests can fetch: made, stored, registered, confirmed, and only then used.

One KEK for each key id, for every layer and every image, however many ask at once; a key that
images may depend on is neither lost nor replaced.
"""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING

from coco_kp.crypto import Kek
from coco_kp.errors import InputError, RefusedError, shown
from coco_kp.files import is_there, reason, sync_directory, write_file
from coco_kp.kbs.client import deadline
from coco_kp.keys.kek_file import read_kek
from coco_kp.model.resource_uri import ResourceUri
from coco_kp.observe import event

if TYPE_CHECKING:
    from pathlib import Path

    from coco_kp.kbs.admin import Admin
    from coco_kp.kbs.record import Entry, Record
    from coco_kp.model.kbs_url import KbsUrl


class Registrar:
    """Registers KEKs with one KBS; threads may share it, and processes may share its record.

    With ``key_dir`` each KEK that is made here is kept there in the file
    ``<repository>/<type>/<tag>`` before it is registered, for the time after this process; without
    it the KBS has the only copy.

    Each call takes 30 seconds at the most. It raises ``RemoteError`` unless the KBS confirmed,
    ``RefusedError`` where another key was registered before, and ``InputError`` for a key id that
    the KBS cannot hold.
    """

    def __init__(self, admin: Admin, record: Record, *, key_dir: Path | None = None) -> None:
        self._admin = admin
        self._record = record
        self._key_dir = key_dir
        self._registered: dict[str, Kek] = {}

    @property
    def kbs_url(self) -> KbsUrl:
        """The KBS that it registers with."""
        return self._admin.kbs.url

    def kek_for(self, kid: ResourceUri) -> Kek:
        """Give the KEK of a key id, made and registered at the first call."""
        self._admin.check(kid)
        end = deadline()
        with self._record.entry(self.kbs_url, kid, end) as entry:
            kek = self._registered.get(kid.path) or self._stored(kid) or self._made(kid, entry)
            self._put(kid, kek, entry, end)
            self._registered[kid.path] = kek
        return kek

    def new_kek(self) -> tuple[ResourceUri, Kek]:
        """Make and register a KEK under a key id that nobody has used: ``image-kek/<uuid4>``."""
        kid = ResourceUri("resource", "", ("default", "image-kek", str(uuid.uuid4())))
        end = deadline()
        with self._record.entry(self.kbs_url, kid, end) as entry:
            kek = self._made(kid, entry)
            self._put(kid, kek, entry, end)
        return kid, kek

    def register(self, kid: ResourceUri, kek: Kek, *, replace: bool = False) -> None:
        """Register a KEK that the user has; a second time in this process does nothing.

        ``replace`` does so where the record has another key, too.
        """
        self._admin.check(kid)
        end = deadline()
        with self._record.entry(self.kbs_url, kid, end) as entry:
            self._put(kid, kek, entry, end, replace=replace)
            self._registered[kid.path] = kek

    def _stored(self, kid: ResourceUri) -> Kek | None:
        if self._key_dir is None or not is_there(self._key_dir / kid.path):
            return None
        return read_kek(self._key_dir / kid.path, self._key_dir).kek

    def _made(self, kid: ResourceUri, entry: Entry) -> Kek:
        if fingerprint := entry.fingerprint():
            raise RefusedError(
                f"the key of '{kid}' was registered before ({fingerprint}), and is not known here",
                "give that key with keypath=, keep keys in a folder with --key-dir, or choose "
                "another keyid",
            )
        kek = Kek.generate()
        if self._key_dir is not None:
            _store(kek, self._key_dir, kid)
        return kek

    def _put(
        self, kid: ResourceUri, kek: Kek, entry: Entry, end: float, *, replace: bool = False
    ) -> None:
        before, known = entry.fingerprint(), self._registered.get(kid.path)
        if known and known.fingerprint == kek.fingerprint == before:
            return
        if before not in ("", kek.fingerprint) and not replace:
            raise RefusedError(
                f"'{kid}' was registered with {self.kbs_url} for another key ({before}; "
                f"this one is {kek.fingerprint})",
                "images that need the other key could not be opened any more; choose another key "
                "id, or replace it with: coco-kp keys register --force",
            )
        self._admin.put(kid, kek.raw(), end)
        entry.write(kek.fingerprint)
        event(logging.INFO, "registered", kid=str(kid), address=str(self.kbs_url))


def _store(kek: Kek, key_dir: Path, kid: ResourceUri) -> None:
    """Put a KEK on the disk, with every folder on the way to it."""
    file = (key_dir / kid.path).resolve()
    if not file.is_relative_to(key_dir.resolve()):
        raise RefusedError(f"{shown(str(key_dir / kid.path))} leads out of the folder of keys")
    try:
        for folder in (file.parents[1], file.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_directory(folder.parent)
    except OSError as failure:
        raise InputError(f"cannot store a key in {shown(str(file))}: {reason(failure)}") from None
    write_file(file, kek.raw(), replace=False)
